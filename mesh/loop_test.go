package mesh

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/infrafabric/agentmesh/signaling"
)

// TestNextWake: the loop wakes for whatever is due first.
func TestNextWake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		at := now.Add(10 * time.Minute)
		if p := stillPeer(t); !p.nextWake().Equal(now.Add(time.Hour)) {
			t.Errorf("with nothing due: in %v", p.nextWake().Sub(now))
		}
		for name, set := range map[string]func(p *Peer){
			"the machine":        func(p *Peer) { p.machine.state, p.machine.due = StateUnreachable, at },
			"the standby's end":  func(p *Peer) { p.spare.until = at },
			"another relay":      func(p *Peer) { p.renew = at },
			"an offer put aside": func(p *Peer) { p.deferred = &deferredOffer{at: at} },
		} {
			p := stillPeer(t)
			set(p)
			if !p.nextWake().Equal(at) {
				t.Errorf("%s: in %v", name, p.nextWake().Sub(now))
			}
			p.renew = now.Add(20 * time.Minute)
			if name != "another relay" && !p.nextWake().Equal(at) {
				t.Errorf("%s, and something later: in %v", name, p.nextWake().Sub(now))
			}
			p.deferred = nil
		}
		p := stillPeer(t)
		p.sessions = []*session{deadSession(p, 1, 1)}
		p.setTop()
		p.machine.state, p.spare.due = StateConnected, now.Add(100*time.Millisecond)
		if !p.nextWake().Equal(p.spare.due) {
			t.Errorf("a standby: in %v", p.nextWake().Sub(now))
		}
		p.spare.due = time.Time{}
		if !p.nextWake().Equal(p.top().nextPing()) {
			t.Errorf("a ping: in %v", p.nextWake().Sub(now))
		}
		p.sessions = nil
		p.setTop()
	})
}

// TestWakeDoesWhatIsDue: each thing at its time, and not before.
func TestWakeDoesWhatIsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		for _, early := range []bool{true, false} {
			p := stillPeer(t)
			at := now.Add(time.Second)
			held, gone := under(p, ReasonStandby, 3)
			p.spare.held, p.spare.until = held, at
			p.deferred = &deferredOffer{at: at, v: verified{Sealed: &signaling.Sealed{}}}
			p.sessions = []*session{deadSession(p, 1, 1)} // nothing is deferred beside a session
			p.setTop()
			p.sessions[0].doubted.Store(true)
			when := at
			if early {
				when = at.Add(-1)
			}
			p.wake(when)
			if gone() == early || p.spare.until.IsZero() == early || (p.deferred == nil) == early {
				t.Errorf("early %v: given up %v, until %v, deferred %v", early, gone(), p.spare.until, p.deferred != nil)
			}
			p.deferred, p.sessions, p.attempts = nil, nil, nil
			p.setTop()
		}
	})
}

// TestBusy: what is under way for the next session, and what is beside that.
func TestBusy(t *testing.T) {
	for _, c := range []struct {
		name           string
		change         func(a *attempt)
		busy, offering bool
	}{
		{"an offer", func(*attempt) {}, true, true},
		{"a standby", func(a *attempt) { a.why = ReasonStandby }, false, false},
		{"a standby that takes over", func(a *attempt) { a.why, a.taking = ReasonStandby, true }, true, true},
		{"one that takes over too late", func(a *attempt) { a.why, a.taking, a.late = ReasonStandby, true, true }, false, false},
		{"an answer", func(a *attempt) { a.offerer, a.answers = false, &signaling.Sealed{} }, true, false},
		{"an answer to a try of a direct path", func(a *attempt) {
			a.offerer, a.answers, a.why = false, &signaling.Sealed{}, ReasonDirectPath
		}, false, false},
		{"a try of a direct path", func(a *attempt) { a.why = ReasonDirectPath }, true, true},
		{"an ask", func(a *attempt) { a.offerer, a.asks = false, true }, true, false},
	} {
		p := stillPeer(t)
		if p.busy() || p.offering() {
			t.Error("busy with nothing")
		}
		a, _ := under(p, ReasonDial, 1)
		c.change(a)
		if p.busy() != c.busy || p.offering() != c.offering {
			t.Errorf("%s: busy %v, offering %v", c.name, p.busy(), p.offering())
		}
	}
}

// TestWhatIsAbandoned: a step that abandons gives up what has not opened, and what has
// when the network has changed; what else matters ends tries of a direct path.
func TestWhatIsAbandoned(t *testing.T) {
	for _, c := range []struct {
		why, of         Reason
		opened          bool
		abandon, direct bool // by do, and by dropDirect
	}{
		{ReasonSilence, ReasonDial, false, true, false},
		{ReasonSilence, ReasonDial, true, false, false},
		{ReasonSilence, ReasonStandby, false, false, false},
		{ReasonSilence, ReasonDirectPath, false, true, true},
		{ReasonSilence, ReasonDirectPath, true, false, false},
		{ReasonNetwork, ReasonDial, true, true, false},
		{ReasonNetwork, ReasonStandby, true, true, false},
	} {
		p := stillPeer(t)
		a, gone := under(p, c.of, 1)
		a.opened.Store(c.opened)
		p.do(step{why: c.why})
		if gone() {
			t.Errorf("%+v: given up for nothing", c)
		}
		if p.do(step{why: c.why, abandon: true}); gone() != c.abandon || slices.Contains(p.attempts, a) == c.abandon {
			t.Errorf("%+v: given up %v", c, gone())
		}
		p = stillPeer(t)
		a, gone = under(p, c.of, 1)
		a.opened.Store(c.opened)
		if p.dropDirect(); gone() != c.direct {
			t.Errorf("%+v: dropped %v", c, gone())
		}
	}
}

// TestSettle: Replace returns when there is a session above the one that was, or with an
// error, and not before.
func TestSettle(t *testing.T) {
	p := stillPeer(t)
	wait := func(generation uint64) chan error {
		done := make(chan error, 1)
		p.waiters = append(p.waiters, replaceWaiter{order{generation: generation}, done})
		return done
	}
	low, same, high := wait(1), wait(2), wait(3)
	p.sessions = []*session{deadSession(p, 2, 1)}
	p.setTop()
	p.settle(nil)
	if len(low) != 1 || <-low != nil || len(same) != 0 || len(high) != 0 || len(p.waiters) != 2 {
		t.Errorf("%d, %d, %d, %d wait", len(low), len(same), len(high), len(p.waiters))
	}
	p.lastErr = errors.New("why")
	if p.do(step{failed: true}); len(same) != 1 || <-same != p.lastErr || len(high) != 1 || <-high != p.lastErr || len(p.waiters) != 0 {
		t.Error("an error does not end who waits")
	}
	p.lastErr = nil
	last := wait(0)
	if p.do(step{failed: true}); len(last) != 1 || <-last != errNotReplaced {
		t.Error("who waits is not told that there is no session")
	}
	p.sessions = nil
	p.setTop()
	none := wait(0)
	if p.settle(nil); len(none) != 0 {
		t.Error("settled without a session")
	}
}

// TestRetirement: sessions below one that both sides have are closed after a while, by the
// greater key first, each once; with too many, one that can be spared goes.
func TestRetirement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		small, great := newIdentity(t, "agent-b").PublicKey(), newIdentity(t, "agent-b").PublicKey()
		p := stillPeer(t)
		own := p.node.cfg.Identity.PublicKey()
		for own.Compare(small) <= 0 || own.Compare(great) >= 0 {
			small, great = newIdentity(t, "agent-b").PublicKey(), newIdentity(t, "agent-b").PublicKey()
		}
		begun := time.Now()
		s := deadSession(p, 1, 1)
		s.remoteKey = small
		o := deadSession(p, 2, 1)
		o.remoteKey = great
		p.retire(s, 300*time.Millisecond)
		p.retire(o, 300*time.Millisecond)
		p.retire(s, time.Millisecond)
		<-s.conn.Done()
		if took := time.Since(begun); took != 300*time.Millisecond {
			t.Errorf("the greater key closes after %v", took)
		}
		<-o.conn.Done()
		if took := time.Since(begun); took != 1300*time.Millisecond {
			t.Errorf("the lesser key closes after %v", took)
		}
		p.work.Wait()

		for _, c := range []struct {
			confirmed []int
			retired   []int
			displaced int
		}{
			{nil, nil, 0},
			{[]int{0}, nil, 1},
			{[]int{1}, []int{0}, 0},
			{[]int{2}, []int{0, 1}, 0},
			{[]int{0, 2}, []int{0, 1}, 0},
			{[]int{0, 1}, []int{0}, 0},
		} {
			p := stillPeer(t)
			var all []*session
			for i := range 3 {
				all = append(all, deadSession(p, uint64(i+1), 1))
			}
			for _, i := range c.confirmed {
				all[i].confirmed.Store(true)
			}
			p.sessions = slices.Clone(all)
			p.supersede()
			for i, s := range all {
				if s.retired != slices.Contains(c.retired, i) {
					t.Errorf("%+v: session %d retired: %v", c, i, s.retired)
				}
			}
			p.displace()
			if len(p.sessions) != 2 || slices.Contains(p.sessions, all[c.displaced]) {
				t.Errorf("%+v: another one is displaced", c)
			}
			p.work.Wait()
			select {
			case <-all[c.displaced].conn.Done():
			default:
				t.Errorf("%+v: what is displaced is not closed", c)
			}
			p.sessions = nil
		}
	})
}

// TestTop: a session that was passed carries no messages, whatever is left.
func TestTop(t *testing.T) {
	p := stillPeer(t)
	if p.top() != nil {
		t.Error("a session from nowhere")
	}
	low, high := deadSession(p, 1, 1), deadSession(p, 2, 1)
	low.passed = true
	p.sessions = []*session{low, high}
	p.setTop()
	if p.top() != high || p.session() != high || !slices.Equal(p.live, []*session{high, low}) || p.agreed.Load() != 2 {
		t.Errorf("%v", p.live)
	}
	p.sessions = []*session{low}
	p.setTop()
	if p.top() != nil || p.session() != nil || !slices.Equal(p.live, []*session{low}) || p.agreed.Load() != 2 {
		t.Errorf("%v", p.live)
	}
	p.sessions = nil
	p.setTop()
}
