package virtual_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/logging"
	"github.com/pion/turn/v5"
	"github.com/pion/webrtc/v4"

	"github.com/infrafabric/agentmesh/internal/virtual"
)

var credential = virtual.RelayConfig{Username: "mesh", Password: "secret"}

func newRelay(t *testing.T, n *virtual.Net) *virtual.Relay {
	t.Helper()
	r, err := n.Relay(credential)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// allocation is one on a relay, of a client on a host of its own. As a socket it
// is at the relayed address.
type allocation struct {
	t      *testing.T
	client *turn.Client
	host   *virtual.Host
	net.PacketConn
}

// allocate fails as the client does.
func allocate(t *testing.T, n *virtual.Net, r *virtual.Relay, nat virtual.NAT, user virtual.RelayConfig) (*allocation, error) {
	t.Helper()
	s := newSocket(t, n, nat)
	server, _ := strings.CutSuffix(strings.TrimPrefix(r.URL(), "turn:"), "?transport=udp")
	client, err := turn.NewClient(&turn.ClientConfig{
		TURNServerAddr: server,
		Username:       user.Username,
		Password:       user.Password,
		Conn:           s.UDPConn,
		Net:            s.host,
		LoggerFactory:  &logging.DefaultLoggerFactory{Writer: io.Discard},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	if err := client.Listen(); err != nil {
		t.Fatal(err)
	}
	relayed, err := client.Allocate()
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = relayed.Close() })
	return &allocation{t: t, client: client, host: s.host, PacketConn: relayed}, nil
}

func mustAllocate(t *testing.T, n *virtual.Net, r *virtual.Relay, nat virtual.NAT) *allocation {
	t.Helper()
	a, err := allocate(t, n, r, nat, credential)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// permit lets s, which may be an allocation, in.
func (a *allocation) permit(addr net.Addr) {
	a.t.Helper()
	if err := a.client.CreatePermission(addr); err != nil {
		a.t.Fatal(err)
	}
}

func (a *allocation) send(text string, to net.Addr) {
	a.t.Helper()
	if _, err := a.WriteTo([]byte(text), to); err != nil {
		a.t.Fatal(err)
	}
}

// next is "" when nothing comes within a second.
func (a *allocation) next() string {
	a.t.Helper()
	if err := a.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		a.t.Fatal(err)
	}
	buf := make([]byte, 1500)
	n, _, err := a.ReadFrom(buf)
	if err != nil {
		return ""
	}
	return string(buf[:n])
}

// inRelay runs f with a relay, an allocation on it from behind a symmetric NAT,
// and a host in the open that is let in.
func inRelay(t *testing.T, f func(t *testing.T, n *virtual.Net, r *virtual.Relay, a *allocation, b *socket)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := virtual.New(t, virtual.Config{RTT: 20 * time.Millisecond})
		r := newRelay(t, n)
		a, b := mustAllocate(t, n, r, virtual.Symmetric), newSocket(t, n, virtual.Open)
		a.permit(b.LocalAddr())
		// The client asks for a permission of its own before it sends for the first
		// time, which takes another round trip.
		if got := echo(a, b); got != 60*time.Millisecond {
			t.Fatalf("the first echo took %v", got)
		}
		f(t, n, r, a, b)
	})
}

// echo is the time from a to b and back through the relay; 0 if it does not work.
func echo(a *allocation, b *socket) time.Duration {
	a.t.Helper()
	start := time.Now()
	a.send("ping", b.LocalAddr())
	text, from := b.next()
	if text != "ping" {
		return 0
	}
	if from.String() != a.LocalAddr().String() {
		a.t.Errorf("came from %v, want the relayed address %v", from, a.LocalAddr())
	}
	b.send("pong", from)
	if a.next() != "pong" {
		return 0
	}
	return time.Since(start)
}

// TestRelayedWay: two hops each way; faults between the two ends do not touch
// it, and those between an end and the relay do.
func TestRelayedWay(t *testing.T) {
	inRelay(t, func(t *testing.T, n *virtual.Net, r *virtual.Relay, a *allocation, b *socket) {
		check := func(when string, want time.Duration) {
			t.Helper()
			if got := echo(a, b); got != want {
				t.Errorf("%s: the echo took %v, want %v", when, got, want)
			}
		}
		check("at first", 40*time.Millisecond)
		n.Block(a.host, b.host)
		n.Block(b.host, a.host)
		check("the ends blocked from each other", 40*time.Millisecond)
		n.Block(r.Host(), b.host)
		check("the relay blocked from one end", 0)
		n.Unblock(r.Host(), b.host)
		b.host.SetDelay(5 * time.Millisecond)
		check("one end slow", 50*time.Millisecond)
		r.Host().SetDelay(100 * time.Millisecond)
		check("the relay slow", 450*time.Millisecond)
		r.Host().SetDelay(0)
		if err := r.Host().SetLoss(100, 1); err != nil {
			t.Fatal(err)
		}
		check("the relay lossy", 0)
	})
}

// TestTwoAllocations: they reach each other through the relay's own address.
func TestTwoAllocations(t *testing.T) {
	inRelay(t, func(t *testing.T, n *virtual.Net, r *virtual.Relay, a *allocation, _ *socket) {
		b := mustAllocate(t, n, r, virtual.Symmetric)
		a.permit(b.LocalAddr())
		b.permit(a.LocalAddr())
		n.Block(a.host, b.host)
		r.Host().SetDelay(time.Millisecond) // twice: not on the way to itself
		// The first takes the client's own permission, and with it a round trip, too.
		for _, want := range []time.Duration{54 * time.Millisecond, 32 * time.Millisecond} {
			start := time.Now()
			a.send("hello", b.LocalAddr())
			if got := b.next(); got != "hello" {
				t.Fatalf("received %q", got)
			}
			if got := time.Since(start); got != want {
				t.Errorf("took %v, want %v", got, want)
			}
		}
	})
}

// TestHang: nothing passes, and then all is as before.
func TestHang(t *testing.T) {
	inRelay(t, func(t *testing.T, n *virtual.Net, r *virtual.Relay, a *allocation, b *socket) {
		r.Hang()
		if echo(a, b) != 0 {
			t.Error("a hanging relay relays")
		}
		if _, err := allocate(t, n, r, virtual.Open, credential); err == nil {
			t.Error("a hanging relay allocates")
		}
		r.Host().Unplug()
		r.Host().Plug() // is another matter
		if echo(a, b) != 0 {
			t.Error("plugging the cable in ended the hanging")
		}
		r.Resume()
		if got := echo(a, b); got != 40*time.Millisecond {
			t.Errorf("after Resume the echo took %v", got)
		}
	})
}

// TestKill: allocations are gone for good, and the same address serves new ones.
func TestKill(t *testing.T) {
	inRelay(t, func(t *testing.T, n *virtual.Net, r *virtual.Relay, a *allocation, b *socket) {
		if err := r.Start(); err != nil {
			t.Errorf("starting a running relay: %v", err)
		}
		if got := echo(a, b); got != 40*time.Millisecond {
			t.Errorf("the echo took %v", got)
		}
		relayed, url := a.LocalAddr(), r.URL()
		r.Hang()
		r.Kill()
		r.Kill()
		if echo(a, b) != 0 {
			t.Error("a dead relay relays")
		}
		if _, err := allocate(t, n, r, virtual.Open, credential); err == nil {
			t.Error("a dead relay allocates")
		}
		if err := r.Start(); err != nil {
			t.Fatal(err)
		}
		if r.URL() != url {
			t.Errorf("back at %s, was at %s", r.URL(), url)
		}
		b.send("pong", relayed)
		if got := a.next(); got != "" {
			t.Errorf("a lost allocation received %q", got)
		}
		c := mustAllocate(t, n, r, virtual.FullCone)
		c.permit(b.LocalAddr())
		if got := echo(c, b); got != 60*time.Millisecond { // the first
			t.Errorf("after Start the echo took %v", got)
		}
	})
}

// TestSocketsOfADeadRelay: none works when it is back, though at the same address.
func TestSocketsOfADeadRelay(t *testing.T) {
	inRelay(t, func(t *testing.T, _ *virtual.Net, r *virtual.Relay, _ *allocation, b *socket) {
		s := &socket{t: t, host: r.Host()}
		s.UDPConn = s.listen()
		r.Kill()
		if err := r.Start(); err != nil {
			t.Fatal(err)
		}
		if s.reaches(b, b.LocalAddr()) || b.reaches(s, s.LocalAddr()) {
			t.Error("an old socket works")
		}
	})
}

// TestKillLosesWhatIsUnderWay: to the relay, and from it to the other end.
func TestKillLosesWhatIsUnderWay(t *testing.T) {
	for _, at := range []time.Duration{5 * time.Millisecond, 15 * time.Millisecond} {
		inRelay(t, func(t *testing.T, _ *virtual.Net, r *virtual.Relay, a *allocation, b *socket) {
			a.send("lost", b.LocalAddr())
			time.Sleep(at)
			r.Kill()
			b.expectNothing()
		})
	}
}

// TestKillAndStartAtOnce: the old server does not live on beside the new one.
func TestKillAndStartAtOnce(t *testing.T) {
	inRelay(t, func(t *testing.T, _ *virtual.Net, r *virtual.Relay, a *allocation, b *socket) {
		for range 20 {
			a.send("before", b.LocalAddr())
			r.Kill()
			if err := r.Start(); err != nil {
				t.Fatal(err)
			}
			a.send("after", b.LocalAddr())
		}
		b.expectNothing()
	})
}

func TestRelayCredentials(t *testing.T) {
	for _, cfg := range []virtual.RelayConfig{{}, {Username: "mesh"}, {Password: "secret"}} {
		synctest.Test(t, func(t *testing.T) {
			if _, err := virtual.New(t, virtual.Config{}).Relay(cfg); err == nil {
				t.Errorf("%+v was accepted", cfg)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		n := virtual.New(t, virtual.Config{})
		r := newRelay(t, n)
		for _, user := range []virtual.RelayConfig{{Username: "mesh", Password: "guess"}, {Username: "guess", Password: "secret"}} {
			if _, err := allocate(t, n, r, virtual.Open, user); err == nil {
				t.Errorf("the relay takes %+v", user)
			}
		}
		if err := r.Host().Move(); !errors.Is(err, virtual.ErrFixed) {
			t.Errorf("Move: %v", err)
		}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
		r.Kill()
		if err := r.Start(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Start after Close: %v", err)
		}
		if _, err := n.Relay(credential); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Relay after Close: %v", err)
		}
	})
}

// TestRelayedPeerConnections: two real WebRTC stacks behind symmetric NATs, and
// what they see of the relay's troubles.
func TestRelayedPeerConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := virtual.New(t, virtual.Config{RTT: 50 * time.Millisecond})
		r := newRelay(t, n)
		relayOnly := func() (a, b *peer) {
			cfg := webrtc.Configuration{
				ICEServers:         []webrtc.ICEServer{{URLs: []string{r.URL()}, Username: credential.Username, Credential: credential.Password}},
				ICETransportPolicy: webrtc.ICETransportPolicyRelay,
			}
			a, b = newPeerWith(t, n, virtual.Symmetric, cfg), newPeerWith(t, n, virtual.Symmetric, cfg)
			n.Block(a.host, b.host)
			n.Block(b.host, a.host)
			signal(t, a, b)
			a.await(webrtc.PeerConnectionStateConnected)
			return a, b
		}
		a, _ := relayOnly()
		pair, err := a.SCTP().Transport().ICETransport().GetSelectedCandidatePair()
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(pair.Local.Typ, pair.Remote.Typ); got != fmt.Sprint(webrtc.ICECandidateTypeRelay, webrtc.ICECandidateTypeRelay) {
			t.Errorf("connected by %s", got)
		}
		r.Hang()
		a.await(webrtc.PeerConnectionStateDisconnected)
		r.Resume()
		a.await(webrtc.PeerConnectionStateConnected)
		r.Kill()
		a.await(webrtc.PeerConnectionStateDisconnected)
		if err := r.Start(); err != nil {
			t.Fatal(err)
		}
		a.await(webrtc.PeerConnectionStateFailed)
		relayOnly()
	})
}
