package mesh

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/infrafabric/agentmesh/internal/virtual"
	"github.com/infrafabric/agentmesh/internal/wallclock"
	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
	"github.com/infrafabric/agentmesh/turn"
)

// replaceWithin makes a new session.
func replaceWithin(t *testing.T, p *Peer, d time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return p.Replace(ctx)
}

// TestClocksSetRight: two agents meet while their clocks are an hour ahead. When
// those are set right they make new sessions as before, whoever wants one, also when
// one side has lost its session meanwhile.
func TestClocksSetRight(t *testing.T) {
	inWorld(t, virtual.Config{RTT: 50 * time.Millisecond}, func(w *world) {
		var clock wallclock.Clock
		clock.Step(time.Hour)
		timed := func(c *Config) { c.Time = clock.Now }
		a, b := w.agent("agent-a", virtual.Open, timed), w.agent("agent-b", virtual.Open, timed)
		p, q := w.pair(a, b)
		w.say(p, q, "an hour ahead")
		clock.Step(-time.Hour)
		for i, side := range []*Peer{p, q, q, p} {
			if err := replaceWithin(t, side, time.Second); err != nil {
				t.Errorf("replacement %d, by %s: %v", i, side.node.ID(), err)
			}
			w.say(p, q, fmt.Sprint("on session ", i))
			time.Sleep(time.Second)
		}
		for i, side := range []*Peer{p, q} {
			side.session().conn.Close()
			w.say(p, q, fmt.Sprint("after a loss ", i))
			time.Sleep(time.Second)
		}
	})
}

// TestClockSetRightWhileDialling: who dials with a clock that is an hour wrong gets
// through as soon as it is right.
func TestClockSetRightWhileDialling(t *testing.T) {
	inWorld(t, virtual.Config{RTT: 50 * time.Millisecond}, func(w *world) {
		var clock wallclock.Clock
		clock.Step(time.Hour)
		a, b := w.agent("agent-a", virtual.Open, func(c *Config) { c.Time = clock.Now }), w.agent("agent-b", virtual.Open)
		dialled := make(chan error, 1)
		go func() {
			_, err := dialFor(a, b.ID(), time.Minute)
			dialled <- err
		}()
		time.Sleep(attemptTimeout / 4)
		synctest.Wait()
		select {
		case err := <-dialled:
			t.Fatalf("with a clock that is wrong: %v", err)
		default:
		}
		clock.Step(-time.Hour)
		set := time.Now()
		if err := <-dialled; err != nil {
			t.Error(err)
		}
		if took := time.Since(set); took > clockLook+time.Second {
			t.Errorf("connected %v after the clock was right", took)
		}
	})
}

// TestWaking: a machine that has slept finds out at once that the other side cannot be
// reached, and disturbs nothing when it can.
func TestWaking(t *testing.T) {
	inWorld(t, virtual.Config{RTT: 50 * time.Millisecond}, func(w *world) {
		var clock wallclock.Clock
		var host *virtual.Host
		a := w.agent("agent-a", virtual.Open, func(c *Config) { c.Time = clock.Now })
		b := w.agent("agent-b", virtual.Open, func(c *Config) { host = c.Net.(*virtual.Host) })
		p, q := w.pair(a, b)
		changes := changesOf(p)
		<-changes // it is connected
		for range 3 {
			clock.Step(8 * time.Hour)
			time.Sleep(5 * time.Second)
		}
		synctest.Wait()
		if len(changes) > 0 {
			t.Errorf("woken with a path that works: %+v", <-changes)
		}
		w.say(p, q, "good morning")
		time.Sleep(5 * time.Second) // nothing is outstanding
		synctest.Wait()

		host.Unplug()
		clock.Step(8 * time.Hour)
		woken := time.Now()
		c := <-changes
		if took := time.Since(woken); c.State != StateSuspect || c.Reason != ReasonSilence || took > clockLook+promotionLeast {
			t.Errorf("woken with a path that leads nowhere: %v for %v after %v", c.State, c.Reason, took)
		}
		host.Plug()
	})
}

// TestClockEndsWait: a Peer that waits for its next attempt makes it when the clocks
// part: where a machine wakes the network may be another.
func TestClockEndsWait(t *testing.T) {
	inWorld(t, virtual.Config{RTT: 50 * time.Millisecond}, func(w *world) {
		var clock wallclock.Clock
		var host *virtual.Host
		a := w.agent("agent-a", virtual.Open, func(c *Config) { c.Time = clock.Now })
		b := w.agent("agent-b", virtual.Open, func(c *Config) {
			host, c.Time = c.Net.(*virtual.Host), clock.Now
			c.Recovery = Recovery{SuspectAfter: time.Hour, PartitionAfter: 2 * time.Hour} // it waits, and does not call
		})
		p, q := w.pair(a, b)
		host.Unplug()
		for p.Status().State != StateUnreachable {
			time.Sleep(time.Minute)
		}
		p.session().conn.Close()
		time.Sleep(time.Second)
		host.Plug()
		clock.Step(time.Hour)
		time.Sleep(clockLook + time.Second)
		if s := p.Status().State; s != StateConnected {
			t.Errorf("%v after waking", s)
		}
		w.say(p, q, "awake")
	})
}

// TestEnvelopesAreDatedByTime: what leaves bears the world's time, and what comes is
// held against it.
func TestEnvelopesAreDatedByTime(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub, a, b *Node) {
		p, q := meet(t, a, b)
		tell(t, p, "dated")
		m := hear(t, q, "dated")
		lag := 3 * time.Minute
		near := func(what string, got, want time.Time) {
			if d := got.Sub(want).Abs(); d > time.Second {
				t.Errorf("%s is dated %v from the clock", what, d)
			}
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, e := range h.seen {
			if e.From == "agent-a" {
				near(e.Kind.String(), e.Time, time.Now().Add(lag))
			}
		}
		near("a message", m.Timestamp, time.Now().Add(lag))
		near("a change", p.Status().Time, time.Now().Add(lag))
		if leaf := a.cert.Leaf; leaf.NotBefore.Sub(time.Now().Add(lag-keys.CertificateSkew)).Abs() > 2*time.Second {
			t.Errorf("a certificate from %v", leaf.NotBefore)
		}
	}, func(c *Config) {
		if c.Identity.ID() == "agent-a" {
			c.Time = func() time.Time { return time.Now().Add(3 * time.Minute).Round(0) }
		}
	})
}

// TestCertificateOfTomorrow: one that was made while the clock was ahead is not used
// when it is right.
func TestCertificateOfTomorrow(t *testing.T) {
	n := stillPeer(t).node
	now := time.Now()
	for _, ahead := range []time.Duration{2 * time.Hour, 0, 30 * 24 * time.Hour, 0, -2 * time.Hour} {
		c, err := n.certificate(now.Add(ahead))
		if err != nil {
			t.Fatal(err)
		}
		if err := keys.CheckCertificate(c.Leaf.Raw, now.Add(ahead-freshness)); err != nil {
			t.Errorf("%v ahead, for one whose clock is slow: %v", ahead, err)
		}
	}
}

// TestReplayMemoryClock: what came while the clock was ahead leaves room when it is
// right.
func TestReplayMemoryClock(t *testing.T) {
	r, k, now := newReplayMemory(), newIdentity(t, "agent-a").PublicKey(), time.Now().Round(0)
	number := 0
	fresh := func(at time.Time) verdictReplay {
		number++
		return r.remember(at, k, [16]byte{byte(number), byte(number >> 8), 1}, signaling.Hash{1}, at)
	}
	if v := fresh(now.Add(time.Hour)); v != replayNew {
		t.Fatal(v)
	}
	// A quarter of what one key may send, for two hours.
	for at := now; at.Before(now.Add(2 * time.Hour)); at = at.Add(250 * time.Millisecond) {
		if v := fresh(at); v != replayNew {
			t.Fatalf("%v after the clock was set right: %v", at.Sub(now), v)
		}
	}
	for range maxNonces {
		fresh(now.Add(4 * time.Hour))
	}
	if v := fresh(now.Add(3 * time.Hour)); v != replayNew {
		t.Errorf("after a flood while the clock was ahead: %v", v)
	}
	if n := len(r.keys[k].seen); n != len(r.keys[k].until) || n > maxNonces {
		t.Errorf("%d nonces, %d ends", n, len(r.keys[k].until))
	}
}

// TestCredentialEndsInTheWorld: a relay's credential that ended while the machine
// slept is left at once, whatever this process's clock says.
func TestCredentialEndsInTheWorld(t *testing.T) {
	now := time.Now()
	used := turn.Relay{URL: "turn:r.example", Username: "1", Password: "x", Expires: now.Add(time.Hour)}
	newer := used
	newer.Username = "2"
	for slept, most := range map[time.Duration]time.Duration{0: 30 * time.Minute, 50 * time.Minute: 5 * time.Minute, 2 * time.Hour: 0} {
		at, yes := outdated([]turn.Relay{newer}, used, now, now.Round(0).Add(slept))
		if !yes || at.Before(now) || at.After(now.Add(most)) {
			t.Errorf("slept %v: left after %v, %v", slept, at.Sub(now), yes)
		}
	}
}
