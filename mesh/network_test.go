package mesh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pion/transport/v5"

	"github.com/infrafabric/agentmesh/internal/virtual"
	"github.com/infrafabric/agentmesh/keys"
)

// TestListenLeavesNothing: a Listen that fails after it began to watch the network
// lets go of what it opened.
func TestListenLeavesNothing(t *testing.T) {
	id := newIdentity(t, "agent-a")
	before := openFiles()
	for range 5 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		_, err := Listen(ctx, Config{Identity: id, Trust: newBook(id), Signaling: []string{"ws://127.0.0.1:9/"}})
		cancel()
		if err == nil {
			t.Fatal("listens at a server that is none")
		}
	}
	if n := openFiles(); n > before+2 {
		t.Errorf("%d files are open, %d were", n, before)
	}
}

// TestNewAddressTriesDirect: a further address is a chance of a direct path for what is
// on a relay, and no reason to leave a path that works.
func TestNewAddressTriesDirect(t *testing.T) {
	inWorld(t, relayedNet, func(w *world) {
		_, one := w.relay()
		use := func(c *Config) {
			c.TURN = fixedRelays{one}
			c.Paths = Paths{RelayAfter: AtOnce, DirectEvery: time.Hour, DirectMost: time.Hour, StandbyAfter: Never}
		}
		a, b := w.agent("agent-a", virtual.Open, use), w.agent("agent-b", virtual.Open, use)
		hostA, hostB := a.cfg.Net.(*virtual.Host), b.cfg.Net.(*virtual.Host)
		w.net.Block(hostA, hostB)
		w.net.Block(hostB, hostA)
		p, q := meet(t, a, b)
		w.net.Unblock(hostA, hostB)
		w.net.Unblock(hostB, hostA)
		time.Sleep(time.Minute)
		if !p.Status().Path.Relayed() || !q.Status().Path.Relayed() {
			t.Fatalf("a direct path was tried without a reason: %v, %v", p.Status().Path, q.Status().Path)
		}
		fresh := &change{fresh: []located{{addr: netip.MustParseAddr("192.0.2.77")}}}
		p.post(func() { p.networkChanged(fresh) })
		time.Sleep(10 * time.Second)
		if p.Status().Path.Relayed() || q.Status().Path.Relayed() {
			t.Fatalf("no direct path was tried: %v, %v", p.Status().Path, q.Status().Path)
		}
		before := look(t, p, p.top)
		p.post(func() { p.networkChanged(fresh) })
		time.Sleep(10 * time.Second)
		if look(t, p, p.top) != before {
			t.Error("a direct path was left for a further address")
		}
	})
}

// unlisted is a network whose interfaces cannot be listed.
type unlisted struct{ transport.Net }

func (unlisted) Interfaces() ([]*transport.Interface, error) { return nil, syscall.EMFILE }

// TestInterfacesFail: it is an error of the attempt, which says so.
func TestInterfacesFail(t *testing.T) {
	lo, err := LoopbackNet()
	if err != nil {
		t.Fatal(err)
	}
	w, err := newWebRTCConnector(connectorConfig{net: unlisted{lo}, log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	cert, err := keys.NewCertificate(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.New(cert, connOptions{}); !errors.Is(err, syscall.EMFILE) || !strings.Contains(fmt.Sprint(err), "interfaces") {
		t.Errorf("%v", err)
	}
}
