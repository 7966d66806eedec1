package mesh

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/internal/virtual"
	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/turn"
	"github.com/infrafabric/agentmesh/witness"
)

// turningRelays are relays of which something changes.
type turningRelays struct {
	mu      sync.Mutex
	list    []turn.Relay
	changed chan struct{}
	doubts  int
}

func newTurningRelays(list ...turn.Relay) *turningRelays {
	return &turningRelays{list: list, changed: make(chan struct{})}
}

func (r *turningRelays) Rank(context.Context) []turn.Relay {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]turn.Relay(nil), r.list...)
}

func (r *turningRelays) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

func (r *turningRelays) Doubt(turn.Relay) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.doubts++
}

func (r *turningRelays) set(list ...turn.Relay) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = list
	close(r.changed)
	r.changed = make(chan struct{})
}

// TestAskForStandby: an ask of a trusted agent that names ReasonStandby must not
// bring the process down.
func TestAskForStandby(t *testing.T) {
	inWorld(t, relayedNet, func(w *world) {
		_, b, _ := w.relayed()
		b.mu.Lock()
		q := b.join("agent-a", true).peer
		b.mu.Unlock()
		q.post(func() { q.startAsk(ReasonStandby) })
		time.Sleep(3 * time.Second)
		q.Close()
	})
}

// TestStandbyBesideReplacement: a standby that is due while a replacement is
// under way must not make the other side give the replacement up.
func TestStandbyBesideReplacement(t *testing.T) {
	inWorld(t, relayedNet, func(w *world) {
		a, b, _ := w.relayed(func(c *Config) { c.Paths.StandbyAfter = 60 * time.Millisecond })
		p, _ := meet(t, a, b)
		began := time.Now()
		ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
		defer cancel()
		err := p.Replace(ctx)
		if took := time.Since(began); err != nil || took > 2*time.Second {
			t.Errorf("Replace took %v: %v", took, err)
		}
	})
}

// TestRelayDiesDuringDirectAttempt: a direct path is tried beside a relayed
// session, in vain and for ten seconds; when the relay dies meanwhile, the standby takes over.
func TestRelayDiesDuringDirectAttempt(t *testing.T) {
	inWorld(t, relayedNet, func(w *world) {
		a, b, relays := w.relayed()
		p, q := meet(t, a, b)
		ctx, cancel := context.WithTimeout(w.t.Context(), 2*time.Minute)
		defer cancel()
		for c := range p.Changes(ctx) {
			if c.State == StateReplacing && c.Reason == ReasonDirectPath {
				break
			}
		}
		time.Sleep(time.Second)
		if !holds(t, p) || !holds(t, q) {
			t.Fatal("there is no standby session")
		}
		for _, r := range relays {
			if r.Host().Addr() == p.Status().Path.Relay {
				r.Kill()
			}
		}
		began := time.Now()
		tell(t, p, "one")
		hear(t, q, "one")
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("traffic again after %v", took)
		}
	})
}

// TestStandbyWithOneRelayThere: the answering side knows the relay in use only.
func TestStandbyWithOneRelayThere(t *testing.T) {
	log := new(hostileLog)
	inWorld(t, relayedNet, func(w *world) {
		a, b, _ := w.relayed(func(c *Config) {
			if c.Identity.ID() == "agent-b" {
				c.TURN = c.TURN.(fixedRelays)[:1]
			} else {
				c.Recorder = log
			}
		})
		p, q := meet(t, a, b)
		time.Sleep(20 * time.Second)
		if !holds(t, p) || !holds(t, q) {
			t.Errorf("no standby: %v, %v", holds(t, p), holds(t, q))
		}
		time.Sleep(10 * time.Minute)
		if s := look(t, p, func() []string { return p.shun.list(time.Now()) }); len(s) > 0 || !holds(t, p) || !holds(t, q) {
			t.Errorf("later: %q shunned, standby %v, %v", s, holds(t, p), holds(t, q))
		}
		// Two for the sessions, the others for direct paths.
		if n := log.count("agent-a", witness.WebRTCOfferCreated); n > 12 {
			t.Errorf("%d offers in ten minutes", n)
		}
	})
}

// TestStandbyByAnotherWay: one server, two ways to it.
func TestStandbyByAnotherWay(t *testing.T) {
	inWorld(t, relayedNet, func(w *world) {
		a, b, _ := w.relayed(func(c *Config) {
			c.Paths.RelayOnly = true // both ends of the path are relays' candidates
			one := c.TURN.(fixedRelays)[0]
			again := one
			again.URL = strings.TrimSuffix(one.URL, "?transport=udp")
			if again.URL == one.URL {
				again.URL += "?transport=udp"
			}
			c.TURN = fixedRelays{one, again}
		})
		p, q := meet(t, a, b)
		time.Sleep(20 * time.Second)
		if !holds(t, p) || !holds(t, q) {
			t.Errorf("no standby: %v, %v", holds(t, p), holds(t, q))
		}
		t.Logf("path %+v; shunned by a: %v", p.Status().Path, look(t, p, func() []string { return p.shun.list(time.Now()) }))
	})
}

// TestStandbyRenewedThere: the lesser side's credential for the standby's relay
// is renewed: that is no fault of the relay, and another standby is made soon.
func TestStandbyRenewedThere(t *testing.T) {
	var mine, theirs *turningRelays
	inWorld(t, relayedNet, func(w *world) {
		a, b, _ := w.relayed(func(c *Config) {
			list := c.TURN.(fixedRelays)
			var with []turn.Relay
			for _, r := range list {
				r.Expires = time.Now().Add(time.Hour)
				with = append(with, r)
			}
			tr := newTurningRelays(with...)
			c.TURN = tr
			if c.Identity.ID() == "agent-b" {
				theirs = tr
			} else {
				mine = tr
			}
		})
		p, q := meet(t, a, b)
		time.Sleep(5 * time.Second)
		if !holds(t, p) || !holds(t, q) {
			t.Fatal("there is no standby session")
		}
		var newer []turn.Relay
		for _, r := range theirs.Rank(context.Background()) {
			r.Password, r.Expires = "p", time.Now().Add(2*time.Hour)
			newer = append(newer, r)
		}
		for i := range newer {
			newer[i].Username = "u2" // another credential; the virtual relay is not asked again here
		}
		theirs.set(newer...)
		time.Sleep(time.Second)
		mine.mu.Lock()
		n := mine.doubts
		mine.mu.Unlock()
		if s := look(t, p, func() []string { return p.shun.list(time.Now()) }); len(s) > 0 || n > 0 {
			t.Errorf("agent-a shuns %v and doubts %d times, because the other side renewed its credential", s, n)
		}
	})
}

// TestRelayReturnsForStranger: a relay comes back while a first offer is answered, and the
// dialer gives up: nothing is left behind.
func TestRelayReturnsForStranger(t *testing.T) {
	var theirs *turningRelays
	inWorld(t, relayedNet, func(w *world) {
		r1, r2 := turn.Relay{}, turn.Relay{}
		a, b, _ := w.relayed(func(c *Config) {
			if c.Identity.ID() == "agent-b" {
				list := c.TURN.(fixedRelays)
				r1, r2 = list[0], list[1]
				down := r2
				down.Down = true
				theirs = newTurningRelays(r1, down)
				c.TURN = theirs
			}
		})
		done := make(chan error, 1)
		go func() {
			_, err := dialFor(a, b.ID(), 150*time.Millisecond)
			done <- err
		}()
		for peerCount(b) == 0 {
			time.Sleep(5 * time.Millisecond)
		}
		time.Sleep(20 * time.Millisecond)
		theirs.set(r1, r2)
		if err := <-done; err == nil {
			t.Fatal("it connected")
		}
		time.Sleep(time.Hour)
		b.mu.Lock()
		incoming := b.incoming
		b.mu.Unlock()
		if n := peerCount(b); n != 0 || incoming != 0 {
			t.Errorf("an hour later agent-b has %d Peers, %d incoming", n, incoming)
		}
	})
}

// slowTrust takes a moment for each question.
type slowTrust struct {
	keys.Trust
	slow *atomic.Bool
}

// bubble: it sleeps.
func (s slowTrust) Check(ctx context.Context, c keys.Claim) (keys.Verdict, error) {
	if s.slow.Load() {
		time.Sleep(20 * time.Millisecond)
	}
	return s.Trust.Check(ctx, c)
}

// TestStandbyTakenByTheOther: when the other side takes the standby, this side offers no
// second one beside the dying session.
func TestStandbyTakenByTheOther(t *testing.T) {
	log := new(hostileLog)
	var slow atomic.Bool
	inWorld(t, relayedNet, func(w *world) {
		a, b, _ := w.relayed(func(c *Config) {
			if c.Identity.ID() == "agent-a" {
				c.Recorder = log
				c.Trust = slowTrust{c.Trust, &slow}
			}
		})
		_, q := meet(t, a, b)
		time.Sleep(5 * time.Second)
		before := log.count("agent-a", witness.WebRTCOfferCreated)
		slow.Store(true)
		if !look(t, q, func() bool { return q.promote(ReasonSilence) }) {
			t.Fatal("there is nothing to promote")
		}
		time.Sleep(500 * time.Millisecond)
		if n := log.count("agent-a", witness.WebRTCOfferCreated) - before; n != 0 {
			t.Errorf("%d offers within half a second, before StandbyAfter", n)
		}
	})
}

// TestProtocolErrorAfterReplacement: the top session ends by a protocol error while
// the one before it lingers: the Peer must not stay "connected" without a session, nor
// spin.
func TestProtocolErrorAfterReplacement(t *testing.T) {
	inWorld(t, relayedNet, func(w *world) {
		a, b, _ := w.relayed(func(c *Config) { c.Paths.StandbyAfter = 100 * time.Millisecond })
		p, q := meet(t, a, b)
		time.Sleep(2 * time.Second)
		if err := p.Replace(w.t.Context()); err != nil {
			t.Fatal(err)
		}
		s := look(t, q, q.top)
		_ = s.conn.Write([]byte{0x00})
		for range 2000 {
			if p.ctx.Err() != nil || look(t, p, func() bool { return p.top() == nil }) {
				break
			}
			time.Sleep(time.Millisecond)
		}
		// With no session to stand by, wake does nothing about a standby that is due, and
		// from then on nextWake is always in the past: the loop spins, and in a bubble
		// no time passes any more. So it is not waited for.
		if p.ctx.Err() == nil && look(t, p, func() bool { return p.machine.state == StateConnected && p.top() == nil }) {
			t.Errorf("connected without a session; the loop will spin: %v", look(t, p, func() bool { return !p.standbyDue().IsZero() }))
		}
		p.shut(goodbyeClosed, errors.New("end of the test"))
		<-p.ended
	})
}

// TestRelayDiesWithReplacement: the relay dies just when somebody wants another
// session, which is then negotiated on the dead relay; the standby takes over all the
// same.
func TestRelayDiesWithReplacement(t *testing.T) {
	inWorld(t, relayedNet, func(w *world) {
		a, b, relays := w.relayed()
		p, q := meet(t, a, b)
		time.Sleep(5 * time.Second)
		if !holds(t, p) || !holds(t, q) {
			t.Fatal("there is no standby session")
		}
		for _, r := range relays {
			if r.Host().Addr() == p.Status().Path.Relay {
				r.Kill()
			}
		}
		ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- p.Replace(ctx) }()
		began := time.Now()
		tell(t, p, "one")
		hear(t, q, "one")
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("traffic again after %v", took)
		}
		t.Logf("Replace: %v after %v", <-done, time.Since(began))
	})
}

// TestRelayRemovedDuringReplacement: a relay is taken out of the pool while a
// session on it is negotiated; the Peer leaves it.
func TestRelayRemovedDuringReplacement(t *testing.T) {
	var mine *turningRelays
	inWorld(t, relayedNet, func(w *world) {
		a, b, _ := w.relayed(func(c *Config) {
			c.Paths.RelayOnly = true
			if c.Identity.ID() == "agent-a" {
				mine = newTurningRelays(c.TURN.(fixedRelays)...)
				c.TURN = mine
			}
		})
		p, _ := meet(t, a, b)
		time.Sleep(5 * time.Second)
		go func() {
			time.Sleep(150 * time.Millisecond)
			mine.set(mine.Rank(context.Background())[1:]...)
		}()
		if err := p.Replace(w.t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		if used, left := p.Status().Path.Relay, mine.Rank(context.Background())[0].Server(); used != left {
			t.Errorf("ten minutes later the session is on %s, which is no longer in the pool", used)
		}
	})
}

// TestReplacementBlamesNoRelay: the relay in use is the slower one, so that the end of
// the standby session, which a replacement makes pointless, is seen before the replacement
// is complete. The standby's relay is not to blame.
func TestReplacementBlamesNoRelay(t *testing.T) {
	inWorld(t, relayedNet, func(w *world) {
		a, b, relays := w.relayed()
		relays[0].Host().SetDelay(150 * time.Millisecond)
		p, q := meet(t, a, b)
		time.Sleep(10 * time.Second)
		if !holds(t, p) || !holds(t, q) {
			t.Fatal("there is no standby session")
		}
		for i := range 4 {
			x := []*Peer{p, q}[i%2]
			if err := x.Replace(w.t.Context()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			for _, y := range []*Peer{p, q} {
				if s := look(t, y, func() []string { return y.shun.list(time.Now()) }); len(s) > 0 {
					t.Errorf("%d: the one that meets %s by %v shuns %v", i, y.ID(), y.Status().Path, s)
				}
			}
			time.Sleep(5 * time.Second)
			if !holds(t, p) || !holds(t, q) {
				t.Errorf("%d: no standby six seconds later", i)
			}
		}
	})
}

// TestStandbyWhenTheOtherMoves: the other side's network changes, and it gives up the standby
// with everything else. That is no fault of the relay.
func TestStandbyWhenTheOtherMoves(t *testing.T) {
	inWorld(t, relayedNet, func(w *world) {
		a, b, _ := w.relayed()
		p, q := meet(t, a, b)
		time.Sleep(5 * time.Second)
		if !holds(t, p) || !holds(t, q) {
			t.Fatal("there is no standby session")
		}
		q.post(func() { q.networkChanged(&change{all: true}) })
		time.Sleep(6 * time.Second)
		if s := look(t, p, func() []string { return p.shun.list(time.Now()) }); len(s) > 0 || !holds(t, p) {
			t.Errorf("shunned %v, standby %v", s, holds(t, p))
		}
	})
}

// TestLongRelayName: the name of a relay that the other side states in its hello is
// compared with this side's names, also when it is long.
func TestLongRelayName(t *testing.T) {
	long := "turn-server-0.turn-headless.production-namespace.svc.cluster.local.example"
	if len(long) > maxRelayName {
		t.Fatal("too long")
	}
	h, err := decodeHelloBody((&helloBody{Relay: long + "\x1b"}).encode())
	if err != nil {
		t.Fatal(err)
	}
	told := strings.TrimSuffix(h.Relay, "?")
	got := second(ranking(long, "b"), told, "", nil)
	if got == nil || got.Server() != "b" {
		t.Errorf("the session is on %s, the standby is put on %v", long, got)
	}
}

// TestDirectPathRefused: an agent that uses relays only tells one that would like a
// direct path so, once, and does not report a replacement each time.
func TestDirectPathRefused(t *testing.T) {
	inWorld(t, relayedNet, func(w *world) {
		a, b, _ := w.relayed(func(c *Config) {
			c.Paths.DirectEvery, c.Paths.DirectMost = 30*time.Second, 30*time.Second
			c.Paths.RelayOnly = c.Identity.ID() == "agent-a"
		})
		_, q := meet(t, a, b)
		ctx, cancel := context.WithTimeout(w.t.Context(), 5*time.Minute)
		defer cancel()
		var began time.Time
		var replacing time.Duration
		n := 0
		for c := range q.Changes(ctx) {
			if c.State == StateReplacing {
				began = c.Time
				n++
			} else if !began.IsZero() {
				replacing += c.Time.Sub(began)
				began = time.Time{}
			}
		}
		t.Logf("agent-b: %d times, %v of 5 min spent replacing", n, replacing)
		if replacing > 30*time.Second {
			t.Errorf("asks for a direct path are not refused: %v spent on them, while a standby cannot take over", replacing)
		}
	})
}

// TestUselessRelay: a relay that cannot be used, here for want of a password, costs the
// relay and not the direct path.
func TestUselessRelay(t *testing.T) {
	for _, bad := range []turn.Relay{{URL: "turn:10.0.0.1:3478"}, {URL: "nonsense", Username: "u", Password: "p"}} {
		inWorld(t, virtual.Config{STUN: true}, func(w *world) {
			use := func(c *Config) { c.TURN = fixedRelays{bad} }
			a, b := w.agent("agent-a", virtual.Open, use), w.agent("agent-b", virtual.Open)
			if _, err := dialFor(a, b.ID(), 15*time.Second); err != nil {
				t.Errorf("with the relay %v no direct path, either: %v", bad, err)
			}
		})
	}
}

// TestStandbyHurry: a change of the relays does not put a standby off.
func TestStandbyHurry(t *testing.T) {
	now := time.Now()
	var s standby
	s.begin(now, 0)
	s.failed(now)
	planned := s.due
	for i := range 20 {
		s.hurry(now.Add(time.Duration(i) * time.Second))
	}
	if s.due.After(planned) {
		t.Errorf("changes put the standby off by %v", s.due.Sub(planned))
	}
}

// TestListenerOfFailedListen: "The Node closes it, as does a Listen that fails."
func TestListenerOfFailedListen(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(context.Background(), Config{TCPListener: l}); err == nil {
		t.Fatal("it listens")
	}
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		t.Error("the listener was not closed")
	}
}

// TestStandbyBesideDirectAttempt: a direct path is tried while a standby session is made,
// which goes on all the same.
func TestStandbyBesideDirectAttempt(t *testing.T) {
	inWorld(t, relayedNet, func(w *world) {
		a, b, _ := w.relayed(func(c *Config) { c.Paths.StandbyAfter = time.Hour })
		p, q := meet(t, a, b)
		time.Sleep(time.Second)
		p.post(p.offerStandby)
		time.Sleep(150 * time.Millisecond) // the answer is under way
		p.post(func() { p.startOffer(ReasonDirectPath, nil) })
		time.Sleep(2 * time.Second)
		if !holds(t, p) || !holds(t, q) {
			t.Errorf("no standby: %v, %v", holds(t, p), holds(t, q))
		}
	})
}
