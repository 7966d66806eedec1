package mesh

import (
	"context"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/internal/virtual"
	"github.com/infrafabric/agentmesh/signaling"
	"github.com/infrafabric/agentmesh/turn"
)

// TestNetworkChangesWithoutEnd: a machine whose network changes all the time makes
// no storm of sessions.
func TestNetworkChangesWithoutEnd(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub, a, b *Node) {
		p, q := meet(t, a, b)
		time.Sleep(time.Minute)
		h.mu.Lock()
		offers := 0
		for _, e := range h.seen {
			if e.Kind == signaling.Offer {
				offers++
			}
		}
		h.mu.Unlock()
		if offers > 60 {
			t.Errorf("%d offers in a minute", offers)
		}
		tell(t, p, "all the same")
		hear(t, q, "all the same")
	}, func(c *Config) {
		if c.Identity.ID() == "agent-a" {
			c.NetworkChanged = func(context.Context) error { return nil }
		}
	})
}

// slowRelays takes as long as it may.
type slowRelays struct{}

func (slowRelays) Rank(ctx context.Context) []turn.Relay {
	<-ctx.Done()
	return nil
}

func (slowRelays) Changed() <-chan struct{} { return nil }

func (slowRelays) Doubt(turn.Relay) {}

// TestSlowRelays: whoever chooses the relay cannot be reached, and the direct path is
// used.
func TestSlowRelays(t *testing.T) {
	inHub(t, func(t *testing.T, _ *hub, a, b *Node) {
		if _, err := dialFor(a, "agent-b", 5*time.Second); err != nil {
			t.Error(err)
		}
	}, func(c *Config) { c.TURN = slowRelays{} })
}

// TestClockWasAhead: an offer that was made while the clock was a year ahead does
// not keep those after it from being taken.
func TestClockWasAhead(t *testing.T) {
	inWorld(t, virtual.Config{RTT: 50 * time.Millisecond}, func(w *world) {
		a, b := w.agent("agent-a", virtual.Open), w.agent("agent-b", virtual.Open)
		p, q := w.pair(a, b)
		for _, x := range []*Peer{p, q} {
			x.post(func() { x.lastGen = uint64(time.Now().AddDate(1, 0, 0).UnixMilli()) })
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := p.Replace(ctx); err != nil {
			t.Error(err)
		}
		w.say(p, q, "on the new session")
	})
}
