package mesh

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/internal/virtual"
	"github.com/infrafabric/agentmesh/keys"
)

// meter is a key service that signs so many times and then no more, until it is paid.
type meter struct {
	crypto.Signer
	left atomic.Int64
}

var errUnpaid = errors.New("the key service wants money")

func (m *meter) Sign(r io.Reader, text []byte, opts crypto.SignerOpts) ([]byte, error) {
	if m.left.Add(-1) < 0 {
		return nil, errUnpaid
	}
	return m.Signer.Sign(r, text, opts)
}

// TestKeyServiceStops: a key service may stop signing before any signature of a dial and
// of what is sent then, on either side. Nothing breaks, nothing unsigned leaves, the log or
// the error says why, and when it signs again everything arrives once and in order.
func TestKeyServiceStops(t *testing.T) {
	for _, caller := range []bool{true, false} {
		for paid := range int64(8) {
			_, private, err := ed25519.GenerateKey(nil)
			if err != nil {
				t.Fatal(err)
			}
			m := &meter{Signer: private}
			m.left.Store(1000)
			log := &logged{}
			inWorld(t, virtual.Config{RTT: 50 * time.Millisecond}, func(w *world) {
				poor, err := keys.NewIdentity("agent-p", m)
				if err != nil {
					w.t.Fatal(err)
				}
				w.trust.mu.Lock()
				w.trust.keys["agent-p"] = poor.PublicKey()
				w.trust.mu.Unlock()
				a := w.agentAs(poor, virtual.Open, func(c *Config) { c.Logger = log.logger() })
				b := w.agent("agent-b", virtual.Open)
				if !caller {
					a, b = b, a
				}
				time.Sleep(time.Second)
				m.left.Store(paid)
				p, err := dialFor(a, b.ID(), 12*time.Second)
				if err != nil {
					if paid == 0 && caller && !errors.Is(err, context.DeadlineExceeded) || paid == 0 && caller && !strings.Contains(err.Error(), errUnpaid.Error()) {
						w.t.Errorf("caller %v, paid %d: %v", caller, paid, err)
					}
					m.left.Store(1000)
					if p, err = dialFor(a, b.ID(), time.Minute); err != nil {
						w.t.Fatalf("caller %v, paid %d: %v", caller, paid, err)
					}
				}
				q, err := b.Accept(w.t.Context())
				if err != nil {
					w.t.Fatal(err)
				}
				for _, s := range []*Peer{p, q} {
					tell(w.t, s, "one")
					tell(w.t, s, "two")
				}
				time.Sleep(20 * time.Second)
				m.left.Store(1_000_000)
				for _, s := range []*Peer{p, q} {
					hear(w.t, s, "one")
					hear(w.t, s, "two")
				}
				time.Sleep(time.Minute)
				for _, s := range []*Peer{p, q} {
					nothing(w.t, s)
					ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
					if err := s.Flush(ctx); err != nil {
						w.t.Errorf("caller %v, paid %d: %v", caller, paid, err)
					}
					cancel()
				}
			})
		}
	}
}

// TestClosedConnection: whatever is asked of a connection that is closed is answered, with
// an error where there is one to give.
func TestClosedConnection(t *testing.T) {
	lo, err := LoopbackNet()
	if err != nil {
		t.Fatal(err)
	}
	w, err := newWebRTCConnector(connectorConfig{net: lo, log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := keys.NewCertificate(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	connect := func() conn {
		t.Helper()
		c, err := w.New(cert, connOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	a := connect()
	offer, err := a.Offer(ctx)
	if err != nil {
		t.Fatal(err)
	}
	// What is no SDP, or comes out of turn, is the other side's mistake.
	b := connect()
	if sdp, err := b.Answer(ctx, "v=1\r\n"); !errors.Is(err, ErrProtocol) || sdp != "" {
		t.Errorf("an offer that is none: %q, %v", sdp, err)
	}
	if err := b.Accept(offer); !errors.Is(err, ErrProtocol) {
		t.Errorf("an answer before an offer: %v", err)
	}
	if err := b.AddCandidate("candidate:1 1 udp 1 127.0.0.1 9 typ host"); !errors.Is(err, ErrProtocol) {
		t.Errorf("a candidate before a description: %v", err)
	}
	if err := a.Accept("v=1\r\n"); !errors.Is(err, ErrProtocol) {
		t.Errorf("an answer that is none: %v", err)
	}
	for _, c := range []conn{a, b} {
		if local, remote := c.Path(); local != "" || remote != "" || c.Base() != (netip.Addr{}) {
			t.Errorf("a path before there is one: %q, %q, %v", local, remote, c.Base())
		}
		if sent, received := c.Packets(); sent != 0 || received != 0 {
			t.Errorf("%d and %d packets before there is a path", sent, received)
		}
		if answered, rtt := c.Checks(); answered != 0 || rtt != 0 {
			t.Errorf("%d checks, %v before there is a path", answered, rtt)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if err := c.Close(); err != nil {
			t.Errorf("the second time: %v", err)
		}
		if sdp, err := c.Offer(ctx); err == nil || sdp != "" {
			t.Errorf("an offer of a closed connection: %q", sdp)
		}
		if sdp, err := c.Answer(ctx, offer); err == nil || sdp != "" {
			t.Errorf("an answer of a closed connection: %q", sdp)
		}
		if err := c.Accept(offer); err == nil {
			t.Error("a closed connection takes an answer")
		}
		if err := c.AddCandidate("candidate:1 1 udp 1 127.0.0.1 9 typ host"); err == nil {
			t.Error("a closed connection takes a candidate")
		}
		if local, remote := c.Path(); local != "" || remote != "" || c.Base() != (netip.Addr{}) {
			t.Errorf("a path of a closed connection: %q, %q, %v", local, remote, c.Base())
		}
		select {
		case <-c.Done():
		default:
			t.Error("Close has not ended the connection")
		}
	}
}

// TestFilterAddresses: a filtered network opens no socket at an address that makes no
// sense, whatever opens it, and dials from an address that is left.
func TestFilterAddresses(t *testing.T) {
	f, err := FilterNet(nil, NetFilter{Address: netip.Addr.IsLoopback})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, bad := range []string{"", "127.0.0.1", "127.0.0.1:x", "::1:5", "127.0.0.1:70000"} {
		if c, err := f.ListenPacket("udp4", bad); err == nil && bad != "" {
			c.Close()
			t.Errorf("ListenPacket %q", bad)
		}
		if c, err := f.CreateListenConfig(new(net.ListenConfig)).ListenPacket(t.Context(), "udp4", bad); err == nil && bad != "" {
			c.Close()
			t.Errorf("ListenConfig.ListenPacket %q", bad)
		}
		if c, err := f.CreateDialer(new(net.Dialer)).Dial("tcp4", bad); err == nil {
			c.Close()
			t.Errorf("Dial %q", bad)
		}
	}
	c, err := f.CreateListenConfig(new(net.ListenConfig)).ListenPacket(t.Context(), "udp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	if at := c.LocalAddr().(*net.UDPAddr); !at.IP.IsLoopback() {
		t.Errorf("a socket at %v", at)
	}
	c.Close()
	s, err := f.CreateDialer(new(net.Dialer)).Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if at := s.LocalAddr().(*net.TCPAddr); !at.IP.IsLoopback() {
		t.Errorf("a connection from %v", at)
	}
	s.Close()
	none, err := FilterNet(nil, NetFilter{Address: func(netip.Addr) bool { return false }})
	if err != nil {
		t.Fatal(err)
	}
	if c, err := none.CreateDialer(new(net.Dialer)).Dial("tcp4", l.Addr().String()); !errors.Is(err, ErrNoAddress) {
		t.Errorf("dialled from no address: %v, %v", c, err)
	}
	if c, err := none.ListenUDP("udp4", nil); !errors.Is(err, ErrNoAddress) {
		t.Errorf("a socket at no address: %v, %v", c, err)
	}
}
