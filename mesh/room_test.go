package mesh

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
)

// TestUnreachableGivesWay: thousands of agents came and died without a word. The
// next one finds room, at the cost of the one that is gone the longest.
func TestUnreachableGivesWay(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		var first *Peer
		for i := range maxPeers {
			d.node.mu.Lock()
			p := d.node.join(fmt.Sprint("short-lived-", i), false).peer
			d.node.mu.Unlock()
			d.node.connected(p)
			p.post(func() {
				p.key, p.machine.met = d.foe.PublicKey(), true
				var st step
				p.machine.to(&st, StateUnreachable, ReasonExhausted)
				p.do(st)
			})
			if i == 0 {
				first = p
				time.Sleep(time.Second)
			}
		}
		synctest.Wait()
		for range 2 {
			d.hub.inject(d.node.ID(), d.seal(signaling.Offer, signaling.Hash{}, d.description()).Bytes())
			time.Sleep(time.Second)
		}
		if d.node.lookup(d.foe.ID()) == nil {
			t.Error("no room")
		}
		if cause := context.Cause(first.Context()); !errors.Is(cause, ErrTooMany) {
			t.Errorf("the oldest: %v", cause)
		}
		if n := len(d.node.allPeers()); n != maxPeers {
			t.Errorf("%d Peers", n)
		}
	}, func(c *Config) {
		c.Trust = keys.TrustAny
		c.Handler = func(context.Context, *Peer, Message) {}
	})
}
