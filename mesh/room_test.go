package mesh

import (
	"context"
	"errors"
	"fmt"
	"sync"
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

// TestProbesAreBounded: an unreachable Peer keeps its last session as a probe, and
// beyond a number of them those that are gone the longest let go of theirs.
func TestProbesAreBounded(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		var probes []*session
		for i := range maxProbes + 50 {
			d.node.mu.Lock()
			p := d.node.join(fmt.Sprint("gone-", i), false).peer
			d.node.mu.Unlock()
			d.node.connected(p)
			s := newSession(d.node, p.led, newDeadConn(), order{generation: 1})
			probes = append(probes, s)
			p.post(func() {
				p.key, p.machine.met, p.sessions = d.foe.PublicKey(), true, []*session{s}
				var st step
				p.machine.to(&st, StateUnreachable, ReasonExhausted)
				p.do(st)
			})
			time.Sleep(time.Millisecond)
		}
		synctest.Wait()
		for i, s := range probes {
			closed := false
			select {
			case <-s.conn.Done():
				closed = true
			default:
			}
			if closed != (i < 50) {
				t.Errorf("probe %d is closed: %v", i, closed)
			}
		}
	}, func(c *Config) {
		c.Trust = keys.TrustAny
		c.Handler = func(context.Context, *Peer, Message) {}
	})
}

// TestNegotiationsTakeTurns: however many Peers want a session at one time, so many
// connections at most are made for them.
func TestNegotiationsTakeTurns(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		var dials sync.WaitGroup
		for i := range maxNegotiating + 50 {
			defer d.hub.end(fmt.Sprint("nobody-", i)).Close() // it does not answer
			dials.Go(func() {
				if _, err := d.node.Dial(ctx, fmt.Sprint("nobody-", i)); !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
			})
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if n := d.lines.count(); n != maxNegotiating {
			t.Errorf("%d connections for %d dials", n, maxNegotiating+50)
		}
		dials.Wait()
	}, func(c *Config) { c.Trust = keys.TrustAny })
}
