package mesh

import (
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/internal/virtual"
	"github.com/infrafabric/agentmesh/signaling"
)

// TestDoubtedAgain: a session is doubted again before the loop has heard that it
// answered. The Peer must not believe it to be well and look no more.
func TestDoubtedAgain(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		d.connect()
		p := d.accept()
		if err := p.Send(t.Context(), Message{ID: "unacknowledged"}); err != nil {
			t.Fatal(err)
		}
		for c := range p.Changes(t.Context()) {
			if c.State == StateSuspect {
				break
			}
		}
		time.Sleep(2 * time.Second)
		p.post(func() {
			top := p.top()
			top.prove() // as its reader does
			p.assess(time.Now(), top)
			p.assess(time.Now(), top) // the first may find that bytes have moved
		})
		time.Sleep(time.Minute)
		if s := p.Status(); s.State == StateConnected || s.State == StateReplacing {
			t.Errorf("after a minute of silence: %+v", s)
		}
	})
}

// TestReplaceEnds: Replace is called in a partition, and the session that was in
// doubt answers before another is made.
func TestReplaceEnds(t *testing.T) {
	for _, wait := range []time.Duration{4 * time.Second, 35 * time.Second} {
		inWorld(t, virtual.Config{RTT: 50 * time.Millisecond}, func(w *world) {
			a, b := w.agent("agent-a", virtual.Open), w.agent("agent-b", virtual.Open)
			p, _ := w.pair(a, b)
			ha, hb := a.cfg.Net.(*virtual.Host), b.cfg.Net.(*virtual.Host)
			w.net.Block(ha, hb)
			w.net.Block(hb, ha)
			time.Sleep(wait)
			before := look(t, p, p.top)
			done := make(chan error, 1)
			go func() { done <- p.Replace(p.Context()) }()
			// Heal while no attempt is under way.
			for p.Status().Wait < 20*time.Second {
				time.Sleep(100 * time.Millisecond)
			}
			time.Sleep(15 * time.Second)
			w.net.Unblock(ha, hb)
			w.net.Unblock(hb, ha)
			time.Sleep(time.Minute)
			select {
			case err := <-done:
				if err == nil && look(t, p, p.top) == before {
					t.Error("there is no new session")
				}
			default:
				t.Errorf("called %v after the partition began it still waits: %+v", wait, p.Status())
			}
		})
	}
}

// TestRefusedOfferLeavesNothing: an agent offers until an offer is refused for
// their number. The Peer that the first made must not wait for ever.
func TestRefusedOfferLeavesNothing(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		for range maxNegotiationsBurst + 2 {
			d.hub.inject(d.node.ID(), d.seal(signaling.Offer, signaling.Hash{}, d.description()).Bytes())
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Hour)
		if p := d.node.lookup(d.foe.ID()); p != nil {
			t.Errorf("after an hour: %+v", p.Status())
		}
	})
}
