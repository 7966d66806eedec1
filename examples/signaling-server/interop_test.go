//go:build interop

package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/mesh"
)

const (
	interopMesh = "acme"
	// interopAgents is how many there are in the end, interopFirst how many at
	// the beginning.
	interopAgents, interopFirst = 8, 5
	// registerLimit is how long agents may take to be registered again.
	registerLimit = 2 * time.Minute
	// gapLimit is how long a peer may hear nothing from another.
	gapLimit = 2 * time.Second
	// interopDial bounds Listen, and a dial together with its acceptance.
	interopDial = 30 * time.Second
)

// stage is nginx before three signaling servers, and the agents of one mesh.
type stage struct {
	t       *testing.T
	bin     string // the built program
	trust   string // directory file with all agents
	servers []*server
	nginx   *nginx
	ids     []*keys.Identity
	nodes   []*mesh.Node // of the first identities
	web     *http.Client
}

func newStage(t *testing.T) *stage {
	t.Helper()
	dir := t.TempDir()
	s := &stage{t: t, bin: filepath.Join(dir, "signaling-server"), trust: filepath.Join(dir, "agents.txt"),
		web: &http.Client{Transport: &http.Transport{}}}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", s.bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	var entries strings.Builder
	for i := range interopAgents {
		id := newIdentity(t, fmt.Sprint("agent-", i+1))
		s.ids = append(s.ids, id)
		fmt.Fprintln(&entries, keys.Entry{ID: id.ID(), Key: id.PublicKey()})
	}
	if err := os.WriteFile(s.trust, []byte(entries.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	addrs := freeAddrs(t, 4)
	for _, addr := range addrs[1:] {
		srv := &server{addr: addr}
		s.serve(srv, addrs[0])
		s.servers = append(s.servers, srv)
	}
	s.nginx = startNginx(t, addrs[0], s.servers)
	return s
}

// serve starts a server's process, or starts it again.
func (s *stage) serve(srv *server, name string) {
	s.t.Helper()
	srv.proc = startProc(s.t, s.bin, "-addr", srv.addr, "-name", name, "-trust", s.trust)
	until(s.t, interopDial, srv.addr+" listens", func() bool { return strings.Contains(srv.proc.logs.String(), "listening on") })
}

// join starts the next agent. It returns when it is registered.
func (s *stage) join() *mesh.Node {
	s.t.Helper()
	trust, err := keys.NewDirectory(keys.DirectoryConfig{Path: s.trust})
	if err != nil {
		s.t.Fatal(err)
	}
	loopback, err := mesh.LoopbackNet()
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), interopDial)
	defer cancel()
	n, err := mesh.Listen(ctx, mesh.Config{
		Identity: s.ids[len(s.nodes)], Trust: trust, Mesh: interopMesh, Net: loopback, HTTPClient: s.web,
		Signaling: []string{"ws://" + s.nginx.addr + "/?mesh=" + interopMesh},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { n.Close() }) // what matters of it is checked in finish
	s.nodes = append(s.nodes, n)
	return n
}

// gathered returns the server with which all agents are registered, nil as long
// as there is none.
func (s *stage) gathered() *server {
	s.t.Helper()
	for _, srv := range s.servers {
		if srv.proc.running() && len(srv.agents(s.t)) == len(s.nodes) {
			return srv
		}
	}
	return nil
}

// finish closes every agent and ends every process.
func (s *stage) finish() {
	s.t.Helper()
	for _, n := range s.nodes {
		if err := n.Close(); err != nil {
			s.t.Errorf("close %s: %v", n.ID(), err)
		}
	}
	s.web.CloseIdleConnections()
	s.nginx.proc.stop(syscall.SIGTERM)
	for _, srv := range s.servers {
		srv.proc.stop(syscall.SIGTERM)
	}
}

// TestInteropNginx: agents behind nginx, which is all they know, keep talking
// while the server that introduced them is killed and comes back, and nginx is
// reloaded, the second time with another configuration; those that come in
// between reach the others and are reached.
func TestInteropNginx(t *testing.T) {
	s := newStage(t)
	tr := newTraffic(t)
	phase := func(name string) {
		t.Helper()
		tr.more(50)
		gap := tr.gap()
		t.Logf("%s: the longest gap between two messages was %v", name, gap.Round(time.Millisecond))
		if gap >= gapLimit {
			t.Errorf("%s: a gap of %v, less than %v is wanted", name, gap, gapLimit)
		}
	}

	// 1. Five agents, each with each, all registered with one server.
	for range interopFirst {
		s.join()
	}
	home := s.gathered()
	if home == nil {
		t.Fatalf("one mesh at several servers: %v", s.servers)
	}
	for i, from := range s.nodes {
		for _, to := range s.nodes[i+1:] {
			tr.connect(from, to)
		}
	}
	phase("in peace")

	// 2. Their server is killed. They gather at another, where a sixth reaches
	// them and is reached.
	home.proc.kill()
	var refuge *server
	took := until(t, registerLimit, "registered again after the kill", func() bool { refuge = s.gathered(); return refuge != nil })
	t.Logf("all %d were registered again %v after the kill", len(s.nodes), took.Round(time.Millisecond))
	six := s.join()
	t.Logf("the sixth dialled in %v, was dialled in %v", tr.connect(six, s.nodes[0]), tr.connect(s.nodes[1], six))
	phase("after the kill")

	// 3. It comes back: nobody is drawn away from the others, newcomers neither.
	s.serve(home, s.nginx.addr)
	seven := s.join()
	if now := s.gathered(); now != refuge {
		t.Fatalf("a newcomer is not where the others are: %v", s.servers)
	}
	t.Logf("the seventh dialled in %v, was dialled in %v", tr.connect(seven, s.nodes[0]), tr.connect(s.nodes[1], seven))
	phase("after the return")

	// 4. A reload makes nginx forget the failure: everybody moves back. Who comes
	// while they move waits for them and finds them.
	s.nginx.reload(s.servers)
	eight := s.join()
	t.Logf("the eighth, during the reload, dialled in %v, was dialled in %v", tr.connect(eight, s.nodes[0]), tr.connect(s.nodes[1], eight))
	until(t, registerLimit, "moved back", func() bool { return s.gathered() == home })
	phase("after the reload")

	// 5. Another takes the server out of service.
	home.down = true
	s.nginx.reload(s.servers)
	took = until(t, registerLimit, "moved away", func() bool { return s.gathered() == refuge })
	t.Logf("all %d had moved %v after the second reload", len(s.nodes), took.Round(time.Millisecond))
	if left := home.agents(t); len(left) != 0 {
		t.Errorf("still registered with the server that is down: %v", left)
	}
	t.Logf("then, the seventh dialled the sixth in %v", tr.connect(seven, six))
	phase("after the second reload")

	sent, received := tr.finish()
	t.Logf("%d messages sent, %d received, in %d directions", sent, received, len(tr.flows))
	s.finish()
}
