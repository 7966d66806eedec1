// Command minimal is the smallest agent that does what the SDK is for: it joins
// a mesh, dials or is dialled, and exchanges a message. It imports keys and mesh
// and nothing else of this module, and is built to be measured: its modules and
// its bytes are what embedding the SDK costs.
//
//	minimal SIGNALING-URL ID [PEER-ID]
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/mesh"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: minimal SIGNALING-URL ID [PEER-ID]")
		os.Exit(2)
	}
	if err := run(context.Background(), os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		fmt.Fprintln(os.Stderr, "minimal:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, server, id string, peers []string) error {
	identity, err := keys.Generate(id)
	if err != nil {
		return err
	}
	node, err := mesh.Listen(ctx, mesh.Config{Identity: identity, Trust: keys.TrustAny, Signaling: []string{server}})
	if err != nil {
		return err
	}
	defer node.Close()
	var peer *mesh.Peer
	if len(peers) > 0 {
		peer, err = node.Dial(ctx, peers[0])
	} else {
		peer, err = node.Accept(ctx)
	}
	if err != nil {
		return err
	}
	if err := peer.Send(ctx, mesh.Message{Payload: []byte(`"hello"`)}); err != nil {
		return err
	}
	m, err := peer.Receive(ctx)
	if err != nil {
		return err
	}
	fmt.Println(m.Source, string(m.Payload))
	return peer.Flush(ctx)
}
