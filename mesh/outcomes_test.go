package mesh

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/infrafabric/agentmesh/signaling"
	"github.com/infrafabric/agentmesh/turn"
)

// onPaper is a session of the other side's instance 1 over a connection that keeps what is written,
// and that the Peer has taken in.
func onPaper(t *testing.T, p *Peer, generation uint64) (*session, *paper) {
	t.Helper()
	on := newPaper()
	s := newSession(p.node, p.led, on, order{generation: generation})
	s.bind = binding{remote: p.id, remoteInst: signaling.Instance{1}}
	if err := p.attach(newAttempt(p, s.order, true), s, helloOf(s)); err != nil {
		t.Fatal(err)
	}
	on.frames = nil
	return s, on
}

// TestEndOfASession: what follows the end of a session, for the Peer and for the other side.
func TestEndOfASession(t *testing.T) {
	lost := fmt.Errorf("%w: gone", ErrConnectionLost)
	broken := protocolErrorf("nonsense")
	for name, c := range map[string]struct {
		err         error
		passed      bool // another session carries the messages
		between     bool // and what ends has passed, but is the last
		other       bool // it is of an instance that was displaced
		ended       bool // the Peer has
		lastErr     bool
		replaced    bool
		state       State
		says        *goodbyeFrame
		closesAfter time.Duration
	}{
		"lost":                         {err: lost, lastErr: true, state: StateRecovering},
		"lost, below another":          {err: lost, passed: true, state: StateConnected},
		"closed by the other side":     {err: &goodbyeError{code: goodbyeClosed}, ended: true, lastErr: true, state: StateConnected, closesAfter: linger},
		"closed, and dialled again":    {err: &goodbyeError{code: goodbyeClosed}, passed: true, lastErr: true, state: StateConnected, closesAfter: linger},
		"replaced":                     {err: &goodbyeError{code: goodbyeReplaced}, ended: true, lastErr: true, replaced: true, state: StateConnected, closesAfter: linger},
		"replaced, below another":      {err: &goodbyeError{code: goodbyeReplaced}, passed: true, ended: true, lastErr: true, replaced: true, state: StateConnected, closesAfter: linger},
		"untrusted":                    {err: &goodbyeError{code: goodbyeUntrusted}, ended: true, lastErr: true, state: StateConnected, closesAfter: linger},
		"nonsense":                     {err: broken, ended: true, lastErr: true, state: StateConnected, says: &goodbyeFrame{Code: goodbyeProtocol, Text: broken.Error()}},
		"nonsense, below another":      {err: broken, passed: true, lastErr: true, state: StateConnected, says: &goodbyeFrame{Code: goodbyeProtocol, Text: broken.Error()}},
		"closed, of one displaced":     {err: &goodbyeError{code: goodbyeClosed}, other: true, lastErr: true, state: StateConnected, closesAfter: -1},
		"lost, of one displaced":       {err: lost, other: true, lastErr: true, state: StateConnected, closesAfter: -1},
		"closed, passed, none is left": {err: &goodbyeError{code: goodbyeClosed}, between: true, ended: true, lastErr: true, state: StateConnected, closesAfter: linger},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := stillPeer(t)
			s, on := onPaper(t, p, 5)
			if c.passed {
				onPaper(t, p, 6)
			}
			if c.between {
				s.passed = true
			}
			if c.other {
				s.bind.remoteInst = signaling.Instance{2}
			}
			p.lastErr = nil
			start := time.Now()
			p.sessionEnded(s, c.err)
			if slices.Contains(p.sessions, s) || (p.lastErr != nil) != c.lastErr || p.led.isReplaced() != c.replaced {
				t.Errorf("%s: last error %v, replaced %v", name, p.lastErr, p.led.isReplaced())
			}
			if p.machine.state != c.state || (p.ctx.Err() != nil) != c.ended || c.ended && !errors.Is(context.Cause(p.ctx), c.err) {
				t.Errorf("%s: %v, ended with %v", name, p.machine.state, context.Cause(p.ctx))
			}
			closed := time.Duration(-1)
			go func() {
				select {
				case <-on.Done():
					closed = time.Since(start)
				case <-time.After(time.Hour):
				}
			}()
			time.Sleep(2 * time.Hour)
			synctest.Wait()
			if closed != c.closesAfter {
				t.Errorf("%s: closed after %v, want %v", name, closed, c.closesAfter)
			}
			if got := on.goodbye(t); (got == nil) != (c.says == nil) || got != nil && *got != *c.says {
				t.Errorf("%s: says %+v", name, got)
			}
			p.giveUp(func(*attempt) bool { return true })
		})
	}
}

// TestEndOfAnAttempt: what follows when an attempt has failed.
func TestEndOfAnAttempt(t *testing.T) {
	plain := errors.New("no path")
	refused := &rejectedError{code: rejectUntrusted, text: "no"}
	replaced := &rejectedError{code: rejectReplaced}
	busy := &rejectedError{code: rejectBusy, text: "later"}
	closed := &rejectedError{code: rejectClosed}
	absent := fmt.Errorf("agent-b: %w", ErrAbsent)
	const on, ends, waits = "goes on", "ends", "waits for another"
	for name, c := range map[string]struct {
		err     error
		met     bool
		dialled bool
		other   bool // another attempt is under way
		theirs  bool // it answered an offer
		state   State
		want    string
		missed  bool // it is told to whoever dials
		blamed  bool
		away    bool
	}{
		"no path":                     {err: plain, dialled: true, want: on, missed: true, blamed: true},
		"no path, of theirs":          {err: plain, theirs: true, want: ends, blamed: true},
		"no path, of theirs, beside":  {err: plain, theirs: true, other: true, want: waits, blamed: true},
		"no path, of theirs, dialled": {err: plain, theirs: true, dialled: true, want: on, blamed: true},
		"given up":                    {err: errSuperseded, dialled: true, want: waits},
		"absent":                      {err: absent, dialled: true, want: on, missed: true, away: true},
		"others wait":                 {err: errYielded, dialled: true, want: on, missed: true},
		"busy":                        {err: busy, dialled: true, want: on, missed: true},
		"refused":                     {err: refused, dialled: true, want: ends, missed: true},
		"refused, beside another":     {err: refused, dialled: true, other: true, want: waits, missed: true},
		"refused, beside a session":   {err: refused, met: true, state: StateReplacing, want: on},
		"refused, after a session":    {err: refused, met: true, state: StateRecovering, want: ends},
		"replaced":                    {err: replaced, dialled: true, want: ends, missed: true},
		"cannot be remembered":        {err: errNotLearned, dialled: true, want: ends, missed: true, blamed: true},
		"closed, never met":           {err: closed, dialled: true, want: ends, missed: true},
		"closed":                      {err: closed, met: true, state: StateRecovering, want: ends},
		"closed, beside a session":    {err: closed, met: true, state: StateConnected, want: ends},
		"no path, after a session":    {err: plain, met: true, state: StateRecovering, want: on, blamed: true},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := stillPeer(t)
			p.node.cfg.TURN = fixedRelays{}
			m := &p.machine
			m.met, m.dialling = c.met, c.dialled
			if c.state != 0 {
				m.state = c.state
			}
			if c.other {
				under(p, ReasonDial, 9)
			}
			a := newAttempt(p, order{generation: 5}, !c.theirs)
			a.why, a.relay, a.err = ReasonDial, &turn.Relay{URL: "turn:192.0.2.1"}, c.err
			a.localTypes["relay"], a.answered = 1, true
			if c.theirs {
				a.answers = wished(signaling.Offer, ReasonDial, 5, 1).Sealed
			}
			p.attempts = append(p.attempts, a)
			before := len(p.attempts)
			miss := make(chan error, 1)
			p.missing = append(p.missing, miss)
			p.attemptFailed(a)
			got := on
			switch {
			case p.ctx.Err() != nil:
				got = ends
			case len(p.attempts) == before-1 && m.due.IsZero() && (c.other || errors.Is(c.err, errSuperseded)):
				got = waits
			}
			if got != c.want || slices.Contains(p.attempts, a) {
				t.Errorf("%s: %s", name, got)
			}
			if c.want == ends && !errors.Is(context.Cause(p.ctx), c.err) || errors.Is(context.Cause(p.ctx), errIncomingFailed) != (c.want == ends && c.theirs) {
				t.Errorf("%s: ended with %v", name, context.Cause(p.ctx))
			}
			if (len(miss) > 0) != c.missed || c.missed && !errors.Is(<-miss, c.err) || m.away != c.away || p.led.isReplaced() != errors.Is(c.err, ErrReplaced) {
				t.Errorf("%s: missed %v, away %v, replaced %v", name, len(miss), m.away, p.led.isReplaced())
			}
			if blamed := len(p.shun.list(time.Now())) > 0; blamed != c.blamed {
				t.Errorf("%s: shunned %q", name, p.shun.list(time.Now()))
			}
			if c.err != errSuperseded && !errors.Is(p.lastErr, c.err) {
				t.Errorf("%s: last error %v", name, p.lastErr)
			}
			p.giveUp(func(*attempt) bool { return true })
		})
	}
}

// TestOffererIsTold: whoever's offer is not answered hears why, unless it was given up for another.
func TestOffererIsTold(t *testing.T) {
	for name, c := range map[string]struct {
		err      error
		own      bool // the offer is this side's
		answered bool
		closing  bool
		code     rejectCode // 0 is silence
		text     string
	}{
		"malformed":               {err: protocolErrorf("no fingerprint"), code: rejectMalformed, text: "protocol error: no fingerprint"},
		"no descriptors":          {err: syscall.EMFILE, code: rejectUnable, text: "no file descriptors are left there"},
		"no descriptors anywhere": {err: syscall.ENFILE, code: rejectUnable, text: "no file descriptors are left there"},
		"no buffers":              {err: syscall.ENOBUFS, code: rejectUnable, text: "no memory for sockets is left there"},
		"no memory":               {err: syscall.ENOMEM, code: rejectUnable, text: "no memory for sockets is left there"},
		"something else":          {err: errors.New("secret of mine"), code: rejectUnable, text: "it cannot make a connection; its log says why"},
		"no relay":                {err: errNoRelay, code: rejectBusy, text: errNoRelay.Error()},
		"an offer of one's own":   {err: syscall.EMFILE, own: true},
		"answered":                {err: syscall.EMFILE, answered: true},
		"answered, no standby":    {err: errNoStandby, answered: true, code: rejectBusy, text: errNoStandby.Error()},
		"given up":                {err: errSuperseded},
		"closing":                 {err: errors.New("x"), closing: true, code: rejectBusy, text: "closing"},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := stillPeer(t)
			a := newAttempt(p, order{generation: 5}, c.own)
			a.why = ReasonDial
			v := wished(signaling.Offer, ReasonDial, 5, 1)
			if !c.own {
				a.answers = v.Sealed
			}
			p.begin(a, func(context.Context) (*signaling.Sealed, error) {
				a.answered = c.answered
				if c.closing {
					p.shut(goodbyeClosed, errors.New("the end"))
				}
				return nil, c.err
			})
			synctest.Wait()
			var got []refusal
			for len(p.node.refusals) > 0 {
				got = append(got, <-p.node.refusals)
			}
			if c.code == 0 && len(got) != 0 || c.code != 0 && (len(got) != 1 || got[0].body.Code != c.code || got[0].body.Text != c.text ||
				got[0].to != "agent-b" || got[0].ref != v.Hash() || got[0].generation != 5) {
				t.Errorf("%s: told %+v", name, got)
			}
			if !errors.Is(a.err, c.err) {
				t.Errorf("%s: %v", name, a.err)
			}
			select {
			case <-a.told:
			default:
				t.Errorf("%s: its end is not noted", name)
			}
		})
	}
}

// TestTurnsOfOffers: an offer waits while others are being negotiated, and its context ends that.
func TestTurnsOfOffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, own := range []bool{true, false} {
			p := stillPeer(t)
			turns := p.node.answers
			if own {
				turns = p.node.turns
			}
			for len(turns) < cap(turns) {
				turns <- struct{}{}
			}
			begun := false
			refused := errors.New("described")
			start := func() *attempt {
				a := newAttempt(p, order{generation: 5}, own)
				p.begin(a, func(context.Context) (*signaling.Sealed, error) { begun = true; return nil, refused })
				synctest.Wait()
				return a
			}
			a := start()
			if begun || p.node.wanting.Load() > 0 != own {
				t.Errorf("own %v: begun %v, %d wait", own, begun, p.node.wanting.Load())
			}
			<-turns
			synctest.Wait()
			if !begun || !errors.Is(a.err, refused) || p.node.wanting.Load() != 0 || len(turns) != cap(turns)-1 {
				t.Errorf("own %v: begun %v, %v, %d wait, %d turns", own, begun, a.err, p.node.wanting.Load(), len(turns))
			}
			turns <- struct{}{}
			begun = false
			a = start()
			a.cancel(errSuperseded)
			synctest.Wait()
			if begun || !errors.Is(a.err, errSuperseded) || p.node.wanting.Load() != 0 || len(turns) != cap(turns) {
				t.Errorf("own %v, given up: begun %v, %v, %d wait, %d turns", own, begun, a.err, p.node.wanting.Load(), len(turns))
			}
		}
	})
}

// TestWithdrawn: the other side hears of what it answers or waits for, and of nothing else.
func TestWithdrawn(t *testing.T) {
	for name, c := range map[string]struct {
		change func(a *attempt)
		ref    signaling.Hash
	}{
		"an answer":            {func(a *attempt) { a.answers = wished(signaling.Offer, ReasonDial, 5, 1).Sealed }, wished(signaling.Offer, ReasonDial, 5, 1).Hash()},
		"an offer":             {func(a *attempt) { a.offerer, a.known = true, signaling.Hash{4} }, signaling.Hash{4}},
		"an offer not yet out": {func(a *attempt) { a.offerer = true }, signaling.Hash{}},
		"an ask":               {func(a *attempt) { a.asks, a.known = true, signaling.Hash{4} }, signaling.Hash{}},
	} {
		p := stillPeer(t)
		p.key = keyOfNobody()
		a := newAttempt(p, order{generation: 5}, false)
		c.change(a)
		p.withdraw(a)
		var got []refusal
		for len(p.node.refusals) > 0 {
			got = append(got, <-p.node.refusals)
		}
		if (len(got) == 1) != (c.ref != signaling.Hash{}) || len(got) == 1 && (got[0].ref != c.ref || got[0].generation != 5 || got[0].to != "agent-b" ||
			got[0].body.Code != rejectBusy || got[0].body.Text != "withdrawn") {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// TestTry: by what means a session is sought.
func TestTry(t *testing.T) {
	const offers, asks, nothing = "offers", "asks", "nothing"
	for name, c := range map[string]struct {
		met, greater bool
		change       func(p *Peer)
		want         string
	}{
		"first contact":                  {change: func(*Peer) {}, want: offers},
		"first contact, greater":         {greater: true, change: func(*Peer) {}, want: offers},
		"first contact, an offer is out": {change: func(p *Peer) { under(p, ReasonDial, 3) }, want: nothing},
		"first contact, an answer is": {change: func(p *Peer) {
			a, _ := under(p, ReasonDial, 3)
			a.offerer = false
		}, want: offers},
		"an offer is out":         {met: true, greater: true, change: func(p *Peer) { under(p, ReasonDial, 3) }, want: nothing},
		"an offer is late":        {met: true, greater: true, change: func(p *Peer) { a, _ := under(p, ReasonDial, 3); a.late = true }, want: offers},
		"a standby is offered":    {met: true, greater: true, change: func(p *Peer) { under(p, ReasonStandby, 3) }, want: offers},
		"met, greater":            {met: true, greater: true, change: func(*Peer) {}, want: offers},
		"met, lesser":             {met: true, change: func(*Peer) {}, want: asks},
		"met, lesser, asked":      {met: true, change: func(p *Peer) { a, _ := under(p, ReasonLost, 3); a.offerer, a.asks = false, true }, want: nothing},
		"met, lesser, a standby":  {met: true, change: func(p *Peer) { under(p, ReasonStandby, 3) }, want: asks},
		"met, lesser, it is late": {met: true, change: func(p *Peer) { a, _ := under(p, ReasonLost, 3); a.late = true }, want: asks},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := stillPeer(t)
			greater(p, c.greater)
			p.machine.met = c.met
			c.change(p)
			before := slices.Clone(p.attempts)
			p.try(ReasonLost)
			got := nothing
			for _, a := range p.attempts {
				switch {
				case slices.Contains(before, a):
				case a.asks:
					got = asks
				default:
					got = offers
				}
				if !slices.Contains(before, a) && (a.why != ReasonLost || a.replaces != c.met) {
					t.Errorf("%s: because of %v, replaces %v", name, a.why, a.replaces)
				}
			}
			if got != c.want {
				t.Errorf("%s: %s", name, got)
			}
			p.giveUp(func(*attempt) bool { return true })
			p.shut(goodbyeClosed, errors.New("the end"))
			p.work.Wait()
		})
	}
}

// TestRetiredAfter: the greater key closes a session that was superseded, the other side a second later
// if it has to, and once.
func TestRetiredAfter(t *testing.T) {
	for is, want := range map[bool]time.Duration{true: 3 * time.Second, false: 4 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			p := stillPeer(t)
			s, on := onPaper(t, p, 5)
			greater(p, is)
			s.remoteKey = p.key
			start := time.Now()
			p.retire(s, 3*time.Second)
			p.retire(s, time.Millisecond)
			<-on.Done()
			if d := time.Since(start); d != want {
				t.Errorf("greater %v: closed after %v", is, d)
			}
		})
	}
}

// TestDialIsGivenUp: whoever gives up a dial waits a moment for what was tried, and for nothing that hangs.
func TestDialIsGivenUp(t *testing.T) {
	for name, c := range map[string]struct {
		loop   func(p *Peer, a *attempt) // what the loop does
		before func(p *Peer)
		want   time.Duration
	}{
		"the loop hangs":           {loop: func(*Peer, *attempt) {}, want: storyWait},
		"the Peer has ended":       {loop: func(*Peer, *attempt) {}, before: func(p *Peer) { p.shut(goodbyeClosed, errors.New("x")); fillTasks(p) }},
		"the Peer ends":            {loop: func(p *Peer, _ *attempt) { <-time.After(100 * time.Millisecond); close(p.ended) }, want: 100 * time.Millisecond},
		"the attempt says nothing": {loop: func(p *Peer, _ *attempt) { (<-p.tasks)() }, want: storyWait},
		"the attempt tells": {loop: func(p *Peer, a *attempt) {
			(<-p.tasks)()
			<-time.After(200 * time.Millisecond)
			close(a.told)
		}, want: 200 * time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := stillPeer(t)
			a, _ := under(p, ReasonDial, 3)
			if c.before != nil {
				c.before(p)
			}
			start := time.Now()
			done := make(chan struct{})
			go func() { defer close(done); c.loop(p, a) }()
			p.giveUpDial()
			if d := time.Since(start); d != c.want {
				t.Errorf("%s: after %v, want %v", name, d, c.want)
			}
			<-done
		})
	}
}

// fillTasks leaves no room for another thing to do.
func fillTasks(p *Peer) {
	for len(p.tasks) < cap(p.tasks) {
		p.tasks <- func() {}
	}
}

// TestTornDown: at its end a Peer tells every session why, refuses the offer that waits, and what waits for it
// to end goes on.
func TestTornDown(t *testing.T) {
	broken := protocolErrorf("nonsense")
	for name, c := range map[string]struct {
		code   goodbyeCode
		cause  error
		says   goodbyeFrame
		parted bool
	}{
		"closed":      {goodbyeClosed, &closedError{}, goodbyeFrame{Code: goodbyeClosed}, true},
		"untrusted":   {goodbyeUntrusted, ErrUntrusted, goodbyeFrame{Code: goodbyeUntrusted}, false},
		"nonsense":    {goodbyeProtocol, broken, goodbyeFrame{Code: goodbyeProtocol, Text: broken.Error()}, false},
		"it gave way": {goodbyeClosed, errGaveWay, goodbyeFrame{Code: goodbyeClosed}, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := stillPeer(t)
			_, one := onPaper(t, p, 5)
			_, two := onPaper(t, p, 6)
			p.machine.met = true
			p.deferred = &deferredOffer{v: wished(signaling.Offer, ReasonDial, 9, 1), at: time.Now().Add(time.Hour)}
			refusedWith(p.node)
			p.shut(c.code, c.cause)
			p.run()
			for i, on := range []*paper{one, two} {
				if got := on.goodbye(t); got == nil || *got != c.says || on.closes != 1 {
					t.Errorf("%s, session %d: says %+v, closed %d times", name, i, got, on.closes)
				}
			}
			if codes := refusedWith(p.node); !slices.Equal(codes, []rejectCode{rejectBusy}) {
				t.Errorf("%s: refused with %v", name, codes)
			}
			if p.led.isParted() != c.parted || p.node.lookup(p.id) != nil || len(p.sessions) != 0 || !errors.Is(p.lastErr, c.cause) {
				t.Errorf("%s: parted %v, still known %v, %v", name, p.led.isParted(), p.node.lookup(p.id) != nil, p.lastErr)
			}
			select {
			case <-p.ended:
			default:
				t.Errorf("%s: it has not ended", name)
			}
		})
	}
}

// TestAnswersOfOthers: only what comes on the session in use, and not after it is doubted again, ends a doubt.
func TestAnswersOfOthers(t *testing.T) {
	for name, c := range map[string]struct {
		other, doubted bool
		want           State
	}{
		"the session in use": {false, false, StateConnected},
		"doubted again":      {false, true, StateSuspect},
		"another one":        {true, false, StateSuspect},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := stillPeer(t)
			s, _ := onPaper(t, p, 5)
			p.do(p.machine.doubted(time.Now(), time.Now(), ReasonSilence, false))
			if p.machine.state != StateSuspect {
				t.Fatalf("%v", p.machine.state)
			}
			s.doubted.Store(c.doubted)
			if c.other {
				s = deadSession(p, 4, 1)
			}
			p.answers(s)
			if p.machine.state != c.want {
				t.Errorf("%s: %v", name, p.machine.state)
			}
			p.giveUp(func(*attempt) bool { return true })
			alone(p)
			p.shut(goodbyeClosed, errors.New("the end"))
			p.work.Wait()
		})
	}
}

// TestTakenFromFormerInstance: a message of an instance that is gone makes room for the present one, and counts
// for nothing else.
func TestTakenFromFormerInstance(t *testing.T) {
	p := stillPeer(t)
	l := p.led
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, c := range map[string]struct {
		reserve, size uint64
		due           bool
	}{"it held room": {100, 60, true}, "it held none": {0, 60, false}} {
		l.in = newReceiver(messageFlow, 1000, c.reserve)
		l.ackDue, l.unread = false, 500
		l.delivered(inbound{size: c.size, epoch: l.epoch + 1})
		if l.ackDue != c.due || l.unread != 440 || l.in.reserve != c.reserve-min(c.reserve, c.size) || l.in.delivered != 0 {
			t.Errorf("%s: due %v, unread %d, reserve %d", name, l.ackDue, l.unread, l.in.reserve)
		}
	}
}
