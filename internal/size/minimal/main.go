// Command minimal is the smallest agent that does something: it imports keys and
// mesh and nothing else of this module. It is built to be measured: its modules
// and its bytes are what embedding the SDK costs.
//
//	minimal KEY-FILE TRUST-DIRECTORY SIGNALING-URL ID [PEER-ID]
//
// With a peer it sends one message and prints the answer; without one it answers
// the first peer that comes.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/mesh"
)

func main() {
	if len(os.Args) < 5 {
		fmt.Fprintln(os.Stderr, "usage: minimal KEY-FILE TRUST-DIRECTORY SIGNALING-URL ID [PEER-ID]")
		os.Exit(2)
	}
	if err := run(context.Background(), os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5:]); err != nil {
		fmt.Fprintln(os.Stderr, "minimal:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, key, directory, server, id string, peers []string) error {
	identity, err := keys.LoadOrGenerate(key, id)
	if err != nil {
		return err
	}
	trust, err := keys.NewDirectory(keys.DirectoryConfig{Path: directory})
	if err != nil {
		return err
	}
	node, err := mesh.Listen(ctx, mesh.Config{Identity: identity, Trust: trust, Signaling: []string{server}})
	if err != nil {
		return err
	}
	defer node.Close()

	if len(peers) == 0 {
		return answer(ctx, node)
	}
	peer, err := node.Dial(ctx, peers[0])
	if err != nil {
		return err
	}
	if err := peer.Send(ctx, mesh.Message{Performative: "query-if", Payload: json.RawMessage(`"are you there?"`)}); err != nil {
		return err
	}
	m, err := peer.Receive(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("%s: %s\n", m.Source, m.Payload)
	return nil
}

// answer answers the first message of the first peer.
func answer(ctx context.Context, node *mesh.Node) error {
	peer, err := node.Accept(ctx)
	if err != nil {
		return err
	}
	m, err := peer.Receive(ctx)
	if err != nil {
		return err
	}
	if err := peer.Send(ctx, mesh.Message{Performative: "inform", Payload: m.Payload}); err != nil {
		return err
	}
	return peer.Flush(ctx)
}
