package mesh

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/internal/virtual"
)

// TestCloseWithBacklog: a side that is sending more than its line carries closes its
// Peer. The other side learns that soon, and nothing comes back.
func TestCloseWithBacklog(t *testing.T) {
	for _, mbit := range []int{1, 2, 5, 20} {
		inWorld(t, virtual.Config{RTT: 50 * time.Millisecond}, func(w *world) {
			line := w.host(virtual.Open).(*virtual.Host)
			rate := mbit * 1_000_000 / 8
			if err := line.SetRate(rate, rate/2); err != nil {
				w.t.Fatal(err)
			}
			a := w.agent("agent-a", virtual.Open, func(c *Config) { c.Net = line })
			b := w.agent("agent-b", virtual.Open)
			p, q := w.pair(a, b)
			ctx, cancel := context.WithCancel(w.t.Context())
			defer cancel()
			ended := make(chan error, 2)
			go func() {
				for {
					if err := p.Send(ctx, Message{Payload: digits(8000)}); err != nil {
						ended <- err
						return
					}
				}
			}()
			go func() {
				for {
					if _, err := q.Receive(ctx); err != nil {
						ended <- err
						return
					}
				}
			}()
			time.Sleep(8 * time.Second)
			var lost *UndeliveredError
			if err := p.Close(); !errors.As(err, &lost) || len(lost.IDs) == 0 {
				w.t.Errorf("%d Mbit/s: Close with a backlog: %v", mbit, err)
			}
			began := time.Now()
			select {
			case <-q.Context().Done():
			case <-time.After(5 * time.Second):
				w.t.Errorf("%d Mbit/s: 5 s after the close the other side is %v", mbit, q.Status().State)
			}
			w.t.Logf("%d Mbit/s: the other side learns after %v", mbit, time.Since(began))
			if cause := context.Cause(q.Context()); !errors.Is(cause, ErrPeerClosed) {
				w.t.Errorf("%d Mbit/s: the other side ends with %v", mbit, cause)
			}
			for range 2 {
				if err := <-ended; !errors.Is(err, net.ErrClosed) && !errors.Is(err, ErrPeerClosed) {
					w.t.Errorf("%d Mbit/s: a call ends with %v", mbit, err)
				}
			}
			time.Sleep(time.Minute)
			if a.lookup("agent-b") != nil || b.lookup("agent-a") != nil || len(a.accepted)+len(b.accepted) != 0 {
				w.t.Errorf("%d Mbit/s: a Peer came back", mbit)
			}
		})
	}
}

// TestClosedOutOfReach: a side closes while nothing of it gets through but envelopes,
// whose offer or ask the other side needs. That learns of it all the same, with what it
// had sent; a new dial of either side makes a new Peer.
func TestClosedOutOfReach(t *testing.T) {
	for i := range 2 {
		inWorld(t, virtual.Config{RTT: 50 * time.Millisecond}, func(w *world) {
			a, b := w.agent("agent-a", virtual.Open), w.agent("agent-b", virtual.Open)
			p, q := w.pair(a, b)
			if i == 1 {
				p, q, a, b = q, p, b, a
			}
			if err := w.net.SetLoss(100, 1); err != nil {
				w.t.Fatal(err)
			}
			if err := q.Send(w.t.Context(), Message{ID: "never arrives"}); err != nil {
				w.t.Fatal(err)
			}
			if err := p.Close(); err != nil {
				w.t.Error(err)
			}
			if err := w.net.SetLoss(0, 1); err != nil {
				w.t.Fatal(err)
			}
			select {
			case <-q.Context().Done():
			case <-time.After(6 * time.Second):
			}
			if cause := context.Cause(q.Context()); !errors.Is(cause, ErrPeerClosed) {
				w.t.Fatalf("after six seconds: %v", cause)
			}
			var lost *UndeliveredError
			if err := q.Close(); !errors.As(err, &lost) || len(lost.IDs) != 1 {
				w.t.Errorf("what was under way: %v", err)
			}
			time.Sleep(time.Minute)
			if a.lookup(b.ID()) != nil || b.lookup(a.ID()) != nil {
				w.t.Error("a Peer came back")
			}
			p, q = w.pair(b, a)
			tell(w.t, p, "anew")
			hear(w.t, q, "anew")
		})
	}
}
