package mesh

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/internal/virtual"
)

// fullPacket is the largest payload of UDP that a session sends.
const fullPacket = 1225

// narrowPair starts two agents whose path loses larger datagrams than that, from a to
// b, from b to a, or both ways; no limit is 0.
//
// bubble: the caller is in a world.
func (w *world) narrowPair(there, back int, change ...func(*Config)) (a, b *Node, ha, hb *virtual.Host) {
	w.t.Helper()
	ha, hb = w.host(virtual.Open).(*virtual.Host), w.host(virtual.Open).(*virtual.Host)
	w.narrow(ha, hb, there, back)
	at := func(h *virtual.Host) []func(*Config) {
		return append([]func(*Config){func(c *Config) { c.Net, c.STUN = h, nil }}, change...)
	}
	return w.agent("agent-a", virtual.Open, at(ha)...), w.agent("agent-b", virtual.Open, at(hb)...), ha, hb
}

func (w *world) narrow(a, b *virtual.Host, there, back int) {
	w.t.Helper()
	if err := errors.Join(w.net.SetMTU(a, b, there), w.net.SetMTU(b, a, back)); err != nil {
		w.t.Fatal(err)
	}
}

// TestHelloProves: one byte less than a full packet, either way, and both sides know
// it within four seconds; with that byte there is a session, and all else passes.
func TestHelloProves(t *testing.T) {
	for _, c := range []struct{ there, back int }{
		{fullPacket, fullPacket}, {fullPacket - 1, fullPacket - 1}, {fullPacket - 1, 0}, {0, fullPacket - 1}, {1100, 1100},
	} {
		narrow := c.there != fullPacket
		inWorld(t, virtual.Config{RTT: 50 * time.Millisecond}, func(w *world) {
			a, b, _, _ := w.narrowPair(c.there, c.back)
			ctx, cancel := context.WithTimeout(context.Background(), 3800*time.Millisecond)
			defer cancel()
			go func() {
				if q, err := b.Accept(ctx); err == nil {
					q.Receive(ctx)
				}
			}()
			p, err := a.Dial(ctx, "agent-b")
			if err == nil && narrow && c.there != 0 {
				time.Sleep(3300 * time.Millisecond)
				err = p.Status().Err
			}
			if errors.Is(err, ErrNarrowPath) != narrow {
				t.Errorf("%v: %v", c, err)
			}
			if err != nil || narrow {
				return
			}
			if err := errors.Join(p.Send(ctx, Message{Payload: digits(50_000)}), p.Flush(ctx)); err != nil {
				t.Errorf("%v: %v", c, err)
			}
		})
	}
}

// TestHelloFillsAPacket: whatever is in it, and a shorter one is none.
func TestHelloFillsAPacket(t *testing.T) {
	for n := range 1200 {
		f := helloFrame{Body: make([]byte, n), Signature: make([]byte, signatureLen)}
		b := f.encode()
		if len(b) < helloLeast || n < 1000 && len(b) > helloLeast+1 {
			t.Fatalf("a body of %d bytes: a hello of %d", n, len(b))
		}
		if got, err := decodeHelloFrame(b); err != nil || len(got.Body) != n {
			t.Fatalf("a body of %d bytes: %d, %v", n, len(got.Body), err)
		}
	}
	short := frameHead(nil, kindHello, 3)
	for range 3 {
		short = append(short, 0x40)
	}
	if _, err := decodeHelloFrame(short); !errors.Is(err, ErrProtocol) {
		t.Errorf("a short hello: %v", err)
	}
}
