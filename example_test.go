package agentmesh_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
	"github.com/infrafabric/agentmesh/turn"
)

// TestReadmeProgram builds the program that stands in the README and runs it
// as two agents, with a STUN server.
func TestReadmeProgram(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```go\n(.*?)```").FindSubmatch(readme)
	if block == nil {
		t.Fatal("README.md has no Go program")
	}
	dir := t.TempDir()
	source := filepath.Join(dir, "agent.go")
	if err := os.WriteFile(source, block[1], 0o600); err != nil {
		t.Fatal(err)
	}
	agent := filepath.Join(dir, "agent")
	if out, err := exec.Command("go", "build", "-o", agent, source).CombinedOutput(); err != nil {
		t.Fatalf("the README's program does not build: %v\n%s", err, out)
	}

	var agents strings.Builder
	for _, name := range []string{"agent-a", "agent-b"} {
		id, err := keys.LoadOrGenerate(filepath.Join(dir, name+".key"), name)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&agents, "%s %s\n", name, id.PublicKey())
	}
	if err := os.WriteFile(filepath.Join(dir, "agents"), []byte(agents.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := signaling.NewServer(signaling.ServerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(s)
	defer web.Close()
	defer s.Close()
	url := strings.Replace(web.URL, "http", "ws", 1)
	socket, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	counted := &countedSocket{PacketConn: socket}
	stun, err := turn.NewServer(turn.ServerConfig{PacketConns: []net.PacketConn{counted},
		RelayIPs: []turn.RelayIP{{Public: netip.MustParseAddr("127.0.0.1")}}, Users: map[string]string{"nobody": "password"}})
	if err != nil {
		t.Fatal(err)
	}
	defer stun.Close()
	t.Setenv("STUN", "stun:"+socket.LocalAddr().String())

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var said, erred bytes.Buffer
	b := exec.CommandContext(ctx, agent, url, "agent-b")
	b.Dir, b.Stdout, b.Stderr = dir, &said, &erred
	if err := b.Start(); err != nil {
		t.Fatal(err)
	}
	a := exec.CommandContext(ctx, agent, url, "agent-a", "agent-b")
	a.Dir = dir
	if out, err := a.CombinedOutput(); err != nil {
		t.Errorf("agent-a: %v\n%s", err, out)
	}
	if err := b.Wait(); err != nil {
		t.Errorf("agent-b: %v\n%s", err, erred.String())
	}
	if counted.packets.Load() == 0 {
		t.Error("nobody asked the STUN server")
	}
	if got, want := said.String(), "agent-a {\"status\":\"up\"}\n"; got != want {
		t.Errorf("agent-b printed %q, want %q", got, want)
	}
}

// countedSocket counts what it receives.
type countedSocket struct {
	net.PacketConn
	packets atomic.Int64
}

func (c *countedSocket) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := c.PacketConn.ReadFrom(b)
	if err == nil {
		c.packets.Add(1)
	}
	return n, from, err
}
