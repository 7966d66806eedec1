package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/mesh"
	"github.com/infrafabric/agentmesh/signaling"
)

// together runs a signaling server and both agents in this process.
func together(ctx context.Context, o options, stdin io.Reader, stdout io.Writer) (err error) {
	server, err := signaling.NewServer(signaling.ServerConfig{})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	web := &http.Server{Handler: server, ReadHeaderTimeout: 5 * time.Second}
	served := make(chan error, 1)
	go func() { served <- web.Serve(l) }()
	defer func() {
		err = errors.Join(err, server.Close(), web.Close())
		<-served
	}()

	// Each agent has a key, and a directory says which key may speak for
	// which name.
	a, err := keys.Generate("agent-a")
	if err != nil {
		return err
	}
	b, err := keys.Generate("agent-b")
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "hello-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "agents")
	lines := fmt.Sprintf("%s %s\n%s %s\n", a.ID(), a.PublicKey(), b.ID(), b.PublicKey())
	if err := os.WriteFile(file, []byte(lines), 0o600); err != nil {
		return err
	}
	trust, err := keys.NewDirectory(keys.DirectoryConfig{Path: file})
	if err != nil {
		return err
	}
	url := "ws://" + l.Addr().String() + "/"
	fmt.Fprintf(stdout, "signaling server at %s, agents %s and %s\n", url, a.ID(), b.ID())

	nodeA, err := listen(ctx, o, a, trust, url)
	if err != nil {
		return err
	}
	defer nodeA.Close()
	nodeB, err := listen(ctx, o, b, trust, url)
	if err != nil {
		return err
	}
	defer nodeB.Close()

	answered := make(chan error, 1)
	go func() { answered <- serve(ctx, nodeA, trust, stdout) }()
	err = send(ctx, o, nodeB, a.ID(), stdin, stdout)
	return errors.Join(err, nodeA.Close(), <-answered)
}

// alone runs one agent against a server that is already there.
func alone(ctx context.Context, o options, stdin io.Reader, stdout, stderr io.Writer) error {
	id, err := identity(o)
	if err != nil {
		return err
	}
	trust := keys.TrustAny
	if o.trust == "" {
		fmt.Fprintln(stderr, "hello: no -trust file: every agent is believed to be who it says")
	} else if trust, err = keys.NewDirectory(keys.DirectoryConfig{Path: o.trust}); err != nil {
		return err
	}
	node, err := listen(ctx, o, id, trust, o.server)
	if err != nil {
		return err
	}
	if o.dial != "" {
		return errors.Join(send(ctx, o, node, o.dial, stdin, stdout), node.Close())
	}
	fmt.Fprintf(stdout, "%s waits for messages\n", id.ID())
	served := make(chan error, 1)
	go func() { served <- serve(ctx, node, trust, stdout) }()
	<-ctx.Done()
	return errors.Join(node.Close(), <-served)
}

func identity(o options) (*keys.Identity, error) {
	if o.key == "" {
		return keys.Generate(o.name)
	}
	return keys.LoadOrGenerate(o.key, o.name)
}

// listen joins the mesh.
func listen(ctx context.Context, o options, id *keys.Identity, trust keys.Trust, url string) (*mesh.Node, error) {
	cfg := mesh.Config{Identity: id, Trust: trust, Mesh: meshName, Signaling: strings.Split(url, ",")}
	if o.loopback {
		n, err := mesh.LoopbackNet()
		if err != nil {
			return nil, err
		}
		cfg.Net = n
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	return mesh.Listen(ctx, cfg)
}
