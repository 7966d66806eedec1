package mesh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/internal/virtual"
)

// TestHandlersAnswerEachOther: requests of both sides fill both windows, and every
// Handler answers with as much. Everything is answered.
func TestHandlersAnswerEachOther(t *testing.T) {
	inWorld(t, virtual.Config{RTT: 20 * time.Millisecond, STUN: true}, func(w *world) {
		const requests = 300
		payload := json.RawMessage(`"` + strings.Repeat("x", 1000) + `"`)
		var replies atomic.Int64
		answering := func(c *Config) {
			c.Window = minWindow
			c.Handler = func(ctx context.Context, p *Peer, m Message) {
				if m.Performative != "request" {
					replies.Add(1)
					return
				}
				if err := p.Send(ctx, Message{Performative: "agree", CitationIDs: []string{m.ID}, Payload: m.Payload}); err != nil {
					w.t.Error(err)
				}
			}
		}
		a, b := w.agent("agent-a", virtual.Open, answering), w.agent("agent-b", virtual.Open, answering)
		ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
		defer cancel()
		p, err := a.Dial(ctx, "agent-b")
		if err != nil {
			w.t.Error(err)
			return
		}
		q, err := b.Dial(ctx, "agent-a")
		if err != nil {
			w.t.Error(err)
			return
		}
		sent := make(chan error, 2)
		for _, x := range []*Peer{p, q} {
			go func() {
				for range requests {
					if err := x.Send(ctx, Message{Performative: "request", Payload: payload}); err != nil {
						sent <- err
						return
					}
				}
				sent <- nil
			}()
		}
		for range 2 {
			if err := <-sent; err != nil {
				w.t.Error(err)
			}
		}
		if err := errors.Join(p.Flush(ctx), q.Flush(ctx)); err != nil {
			w.t.Error(err)
		}
		time.Sleep(5 * time.Second)
		if n := replies.Load(); n != 2*requests {
			w.t.Errorf("%d of %d answers", n, 2*requests)
		}
	})
}

// TestHandlerEnds: a Handler that closes its Peer or its Node, or leaves its goroutine,
// ends what it says, and nothing hangs.
func TestHandlerEnds(t *testing.T) {
	for name, c := range map[string]struct {
		does  func(p *Peer) error
		cause error
		node  bool // which ends as well
	}{
		"Peer.Close":  {func(p *Peer) error { return p.Close() }, net.ErrClosed, false},
		"Node.Close":  {func(p *Peer) error { return p.node.Close() }, net.ErrClosed, true},
		"both, twice": {func(p *Peer) error { return errors.Join(p.Close(), p.Close(), p.node.Close(), p.node.Close()) }, net.ErrClosed, true},
		"Goexit":      {func(*Peer) error { runtime.Goexit(); return nil }, ErrHandlerExit, false},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, virtual.Config{RTT: 20 * time.Millisecond, STUN: true}, func(w *world) {
				var did atomic.Value
				b := w.agent("agent-b", virtual.Open, func(cfg *Config) {
					cfg.Handler = func(_ context.Context, p *Peer, _ Message) {
						began := time.Now()
						err := c.does(p)
						did.Store(fmt.Sprint(err, time.Since(began)))
					}
				})
				a := w.agent("agent-a", virtual.Open)
				p, err := dialFor(a, "agent-b", time.Minute)
				if err != nil {
					w.t.Error(err)
					return
				}
				q := b.lookup("agent-a")
				if err := p.Send(w.t.Context(), Message{}); err != nil {
					w.t.Error(err)
				}
				<-q.Context().Done()
				if cause := context.Cause(q.Context()); !errors.Is(cause, c.cause) {
					w.t.Errorf("the Peer ended with %v", cause)
				}
				<-q.ended
				<-p.Context().Done()
				if cause := context.Cause(p.Context()); !errors.Is(cause, ErrPeerClosed) {
					w.t.Errorf("the other side hears %v", cause)
				}
				if got := did.Load(); c.cause == net.ErrClosed && got != "<nil> 0s" {
					w.t.Errorf("the call in the Handler: %v", got)
				}
				if c.node {
					<-b.ended
				} else if b.Context().Err() != nil {
					w.t.Error("the Node ended")
				}
			})
		})
	}
}
