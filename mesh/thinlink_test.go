package mesh

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/transport/v5"

	"github.com/infrafabric/agentmesh/internal/virtual"
)

// thinNet is a network whose uplink carries so many bytes a second and queues
// half a second of them; more are lost.
type thinNet struct {
	transport.Net
	rate float64

	mu   sync.Mutex
	free time.Time
}

func (n *thinNet) ListenUDP(network string, addr *net.UDPAddr) (transport.UDPConn, error) {
	c, err := n.Net.ListenUDP(network, addr)
	if err != nil {
		return nil, err
	}
	return &thinConn{c, n}, nil
}

type thinConn struct {
	transport.UDPConn
	n *thinNet
}

func (c *thinConn) WriteTo(b []byte, to net.Addr) (int, error) {
	n := c.n
	n.mu.Lock()
	now := time.Now()
	if n.free.Before(now) {
		n.free = now
	}
	if n.free.Sub(now) > 500*time.Millisecond {
		n.mu.Unlock()
		return len(b), nil
	}
	n.free = n.free.Add(time.Duration(float64(len(b)+28) / n.rate * float64(time.Second)))
	wait := n.free.Sub(now)
	n.mu.Unlock()
	data := bytes.Clone(b)
	time.AfterFunc(wait, func() { c.UDPConn.WriteTo(data, to) })
	return len(b), nil
}

// TestThinLink: an uplink of 1 Mbit/s that is full all the time. A record then
// waits for seconds in its own side's queue, and so do that side's answers; the
// other side is hardly ever in doubt for it, and no session is made.
func TestThinLink(t *testing.T) {
	const rate, lasts = 125e3, 20 * time.Second
	for _, size := range []int{10 << 10, 1000 << 10} {
		inWorld(t, virtual.Config{RTT: 50 * time.Millisecond}, func(w *world) {
			a := w.agent("agent-a", virtual.Open, func(c *Config) { c.Net = &thinNet{Net: c.Net, rate: rate} })
			b := w.agent("agent-b", virtual.Open)
			p, q := w.pair(a, b)
			ctx, cancel := context.WithTimeout(context.Background(), lasts)
			defer cancel()
			var wg sync.WaitGroup
			send := func(p *Peer, payload string, pause time.Duration) {
				wg.Go(func() {
					for ctx.Err() == nil && p.Send(ctx, Message{Payload: json.RawMessage(payload)}) == nil {
						time.Sleep(pause)
					}
				})
			}
			var received [2]int
			for i, x := range []*Peer{p, q} {
				wg.Go(func() {
					for {
						if _, err := x.Receive(ctx); err != nil {
							return
						}
						received[i]++
					}
				})
				wg.Go(func() {
					doubts := 0
					for c := range x.Changes(ctx) {
						if c.State == StateSuspect {
							doubts++
						}
						if c.State == StateConnected && c.Reason != ReasonDial && c.Reason != ReasonAnswers && c.Reason != ReasonFailed || doubts > 2 {
							t.Errorf("%d bytes: %s %v, %v", size, x.node.ID(), c.State, c.Reason)
						}
					}
				})
			}
			send(p, `"`+strings.Repeat("x", size)+`"`, 0)
			send(q, "1", 50*time.Millisecond)
			wg.Wait()
			if least := int(0.7 * rate * lasts.Seconds() / float64(size)); received[1] < least {
				t.Errorf("%d messages of %d bytes arrived, want %d", received[1], size, least)
			}
		})
	}
}
