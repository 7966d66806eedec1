package mesh

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/internal/virtual"
	"github.com/infrafabric/agentmesh/signaling"
	"github.com/infrafabric/agentmesh/witness"
)

// relayedNet is a network for agents that need relays.
var relayedNet = virtual.Config{RTT: 50 * time.Millisecond, STUN: true}

// relayed starts two agents that have no direct path, and two relays. The key of
// agent-a is the greater, so that it makes the standby sessions.
func (w *world) relayed(change ...func(*Config)) (a, b *Node, relays []*virtual.Relay) {
	w.t.Helper()
	r1, one := w.relay()
	r2, two := w.relay()
	greater, lesser := newIdentity(w.t, "agent-a"), newIdentity(w.t, "agent-b")
	for greater.PublicKey().Compare(lesser.PublicKey()) < 0 {
		greater = newIdentity(w.t, "agent-a")
	}
	w.trust.mu.Lock()
	w.trust.keys["agent-a"], w.trust.keys["agent-b"] = greater.PublicKey(), lesser.PublicKey()
	w.trust.mu.Unlock()
	use := func(c *Config) {
		c.TURN, c.Paths.RelayAfter = fixedRelays{one, two}, AtOnce
		for _, f := range change {
			f(c)
		}
	}
	return w.agentAs(greater, virtual.Symmetric, use), w.agentAs(lesser, virtual.Symmetric, use), []*virtual.Relay{r1, r2}
}

// look runs f in the loop of a Peer.
func look[T any](t *testing.T, p *Peer, f func() T) T {
	t.Helper()
	got := make(chan T, 1)
	if !p.post(func() { got <- f() }) {
		t.Fatal("the Peer has ended")
	}
	return <-got
}

func holds(t *testing.T, p *Peer) bool {
	t.Helper()
	return look(t, p, func() bool { return p.spare.held != nil })
}

// TestStandbyIsMade: both sides hold one and the same standby session, on the other
// relay, and say nothing on it; what replaces the session in use ends it, and the
// next one gets another.
func TestStandbyIsMade(t *testing.T) {
	inWorld(t, relayedNet, func(w *world) {
		a, b, _ := w.relayed()
		p, q := meet(t, a, b)
		time.Sleep(5 * time.Second)
		ref := func(p *Peer) func() signaling.Hash {
			return func() signaling.Hash { return p.spare.held.ref }
		}
		if !holds(t, p) || !holds(t, q) {
			t.Fatal("there is no standby session")
		}
		first := look(t, p, ref(p))
		if first != look(t, q, ref(q)) {
			t.Error("two sides hold two standby sessions")
		}
		if used, other := p.Status().Path.Relay, look(t, p, func() string { return p.spare.held.relayName() }); used == other || other == "" {
			t.Errorf("the session is on %q, its standby on %q", used, other)
		}
		if n := look(t, p, func() int { return len(p.sessions) }); n != 1 {
			t.Errorf("%d sessions said hello", n)
		}
		if err := q.Replace(w.t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if !holds(t, p) || !holds(t, q) {
			t.Fatal("there is no standby session beside the new session")
		}
		if second := look(t, p, ref(p)); second == first || second != look(t, q, ref(q)) {
			t.Error("the standby session is the old one, or two")
		}
	})
}

// TestStandbyEndsOnDirectPath: a Peer that has moved to a direct path keeps no session
// on a relay, also when the offer of that one is the later and ranks above.
func TestStandbyEndsOnDirectPath(t *testing.T) {
	inWorld(t, relayedNet, func(w *world) {
		_, one := w.relay()
		_, two := w.relay()
		use := func(c *Config) {
			c.TURN = fixedRelays{one, two}
			c.Paths = Paths{RelayAfter: AtOnce, DirectEvery: 5 * time.Second, StandbyAfter: time.Hour}
		}
		a, b := w.agent("agent-a", virtual.Open, use), w.agent("agent-b", virtual.Open, use)
		hostA, hostB := a.cfg.Net.(*virtual.Host), b.cfg.Net.(*virtual.Host)
		w.net.Block(hostA, hostB)
		w.net.Block(hostB, hostA)
		p, q := meet(t, a, b)
		if !p.Status().Path.Relayed() {
			t.Fatalf("first contact by %v", p.Status().Path)
		}
		w.net.Unblock(hostA, hostB)
		w.net.Unblock(hostB, hostA)
		offerer := p
		if p.lesser() {
			offerer = q
		}
		offered := false
		ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
		defer cancel()
		for c := range offerer.Changes(ctx) {
			if c.State == StateReplacing && c.Reason == ReasonDirectPath && !offered {
				offered = offerer.post(offerer.offerStandby)
			}
		}
		if !offered || p.Status().Path.Relayed() {
			t.Fatalf("offered %v, %v", offered, p.Status().Path)
		}
		for _, x := range []*Peer{p, q} {
			if n := look(t, x, func() int { return len(x.attempts) }); n != 0 || holds(t, x) {
				t.Errorf("%d attempts beside a direct path, standby %v", n, holds(t, x))
			}
		}
	})
}

// TestStandbyIsRelayed: a standby session is on a relay also where a direct path has
// become possible meanwhile. That one is another session's.
func TestStandbyIsRelayed(t *testing.T) {
	inWorld(t, relayedNet, func(w *world) {
		_, one := w.relay()
		_, two := w.relay()
		use := func(c *Config) {
			c.TURN = fixedRelays{one, two}
			c.Paths = Paths{RelayAfter: AtOnce, DirectEvery: Never, StandbyAfter: 2 * time.Second}
		}
		a, b := w.agent("agent-a", virtual.Open, use), w.agent("agent-b", virtual.Open, use)
		hostA, hostB := a.cfg.Net.(*virtual.Host), b.cfg.Net.(*virtual.Host)
		w.net.Block(hostA, hostB)
		w.net.Block(hostB, hostA)
		p, q := meet(t, a, b)
		w.net.Unblock(hostA, hostB)
		w.net.Unblock(hostB, hostA)
		time.Sleep(10 * time.Second)
		for _, x := range []*Peer{p, q} {
			if !holds(t, x) {
				t.Fatal("there is no standby session")
			}
			relayed := look(t, x, func() bool {
				local, remote := x.spare.held.conn.Path()
				return local == "relay" || remote == "relay"
			})
			if !relayed {
				t.Errorf("the standby session with %s is not on a relay", x.ID())
			}
		}
	})
}

// TestStandbyIsNotWanted: an agent whose policy wants none refuses those that
// others begin, who then ask less and less often.
func TestStandbyIsNotWanted(t *testing.T) {
	log := new(hostileLog)
	inWorld(t, relayedNet, func(w *world) {
		a, b, _ := w.relayed(func(c *Config) {
			if c.Identity.ID() == "agent-b" {
				c.Paths.StandbyAfter = Never
			} else {
				c.Recorder = log
			}
		})
		p, q := meet(t, a, b)
		time.Sleep(10 * time.Minute)
		if holds(t, p) || holds(t, q) {
			t.Error("there is a standby session")
		}
		offers := log.count("agent-a", witness.WebRTCOfferCreated)
		// One for the first contact, those for direct paths, 30 s, 60 s, 120 s …
		if offers < 4 || offers > 25 {
			t.Errorf("%d offers in ten minutes", offers)
		}
		if s := p.Status().State; s != StateConnected {
			t.Errorf("the Peer is %v", s)
		}
	})
}

// TestStandbyOfStranger: an offer of a standby session from an agent with which there is
// no session is refused, and leaves nothing behind.
func TestStandbyOfStranger(t *testing.T) {
	inWorld(t, relayedNet, func(w *world) {
		a, b, relays := w.relayed()
		a.mu.Lock()
		p := a.join("agent-b", true).peer
		a.mu.Unlock()
		p.post(func() { p.startOffer(ReasonStandby, &session{relay: relays[0].Host().Addr()}) })
		time.Sleep(3 * time.Second)
		for _, n := range []*Node{a, b} {
			if peers := peerCount(n); peers != 0 {
				t.Errorf("%s has %d Peers", n.ID(), peers)
			}
		}
	})
}

// TestStandbyOfDistrusted: trust in the other side ends while a standby session is held,
// and before anybody has noticed the relay in use dies. The standby does not take over.
func TestStandbyOfDistrusted(t *testing.T) {
	inWorld(t, relayedNet, func(w *world) {
		a, b, relays := w.relayed()
		p, q := meet(t, a, b)
		time.Sleep(5 * time.Second)
		if !holds(t, p) || !holds(t, q) {
			t.Fatal("there is no standby session")
		}
		time.Sleep(trustInterval - time.Since(a.start)%trustInterval + 10*time.Millisecond)
		w.trust.remove("agent-b")
		for _, r := range relays {
			if r.Host().Addr() == p.Status().Path.Relay {
				r.Kill()
			}
		}
		tell(t, p, "one more")
		for c := range p.Changes(w.t.Context()) {
			if c.Reason == ReasonStandby {
				t.Errorf("the standby session of an agent that is not trusted took over: %+v", c)
			}
		}
		<-p.Context().Done()
	})
}

// TestStandbyPromotedFromOneSide: only one side has reason to doubt; the hello of that
// side is enough.
func TestStandbyPromotedFromOneSide(t *testing.T) {
	for _, who := range []int{0, 1} {
		inWorld(t, relayedNet, func(w *world) {
			a, b, _ := w.relayed()
			p, q := meet(t, a, b)
			peers := []*Peer{p, q}
			time.Sleep(5 * time.Second)
			one := peers[who]
			if !look(t, one, func() bool { return one.promote(ReasonSilence) }) {
				t.Fatal("there is nothing to promote")
			}
			time.Sleep(time.Second)
			for _, x := range peers {
				if look(t, x, func() bool { a := x.spare.held; return a != nil && !slices.Contains(x.attempts, a) }) {
					t.Error("what took over is still held")
				}
				if c := x.Status(); c.State != StateConnected || c.Reason != ReasonStandby || !c.Path.Relayed() {
					t.Errorf("%+v", c)
				}
			}
			tell(t, p, "there")
			hear(t, q, "there")
			tell(t, q, "back")
			hear(t, p, "back")
		})
	}
}

// TestFallbackIsCounted: sessions over a relay are counted, and those that policy
// wants there are not.
func TestFallbackIsCounted(t *testing.T) {
	for _, only := range []bool{false, true} {
		meter := newHostileMeter()
		inWorld(t, relayedNet, func(w *world) {
			a, b, _ := w.relayed(func(c *Config) {
				c.Paths.RelayOnly = only
				if c.Identity.ID() == "agent-a" {
					meter.config(c)
				}
			})
			p, _ := meet(t, a, b)
			if err := p.Replace(w.t.Context()); err != nil {
				t.Error(err)
			}
		})
		want := map[bool]int64{false: 2, true: 0}[only]
		if n := meter.count(t, "webrtc_turn_fallback_total"); n != want {
			t.Errorf("relays only: %v: %d fallbacks", only, n)
		}
	}
}
