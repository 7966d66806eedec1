package mesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/infrafabric/agentmesh/signaling"
	"github.com/infrafabric/agentmesh/turn"
)

// quietConn is a connection of which a test says what becomes of it.
type quietConn struct {
	*deadConn
	quiet chan struct{}
	read  chan error // nil is a frame
}

func (c *quietConn) Quiet() <-chan struct{} { return c.quiet }

func (c *quietConn) Read(b []byte) (int, error) {
	select {
	case err := <-c.read:
		return copy(b, "frame"), err
	case <-c.done:
		return 0, io.EOF
	}
}

// TestHold: a standby is held until it is wanted, by either side, or is of no use any more.
func TestHold(t *testing.T) {
	wanted := errors.New("given up")
	for name, c := range map[string]struct {
		end  func(p *Peer, a *attempt, conn *quietConn, cancel context.CancelCauseFunc)
		want error
		by   bool // the other side wants it
	}{
		"this side wants it": {end: func(_ *Peer, a *attempt, _ *quietConn, _ context.CancelCauseFunc) { close(a.promoted) }},
		"the other wants it": {end: func(_ *Peer, _ *attempt, conn *quietConn, _ context.CancelCauseFunc) { conn.read <- nil }, by: true},
		"it cannot be read": {end: func(_ *Peer, _ *attempt, conn *quietConn, _ context.CancelCauseFunc) {
			conn.read <- io.ErrUnexpectedEOF
		}, want: io.ErrUnexpectedEOF},
		"it is silent":        {end: func(_ *Peer, _ *attempt, conn *quietConn, _ context.CancelCauseFunc) { close(conn.quiet) }, want: errQuiet},
		"it is given up":      {end: func(_ *Peer, _ *attempt, _ *quietConn, cancel context.CancelCauseFunc) { cancel(wanted) }, want: wanted},
		"its connection died": {end: func(_ *Peer, _ *attempt, conn *quietConn, _ context.CancelCauseFunc) { conn.Close() }, want: ErrConnectionLost},
		"the Peer has ended": {end: func(p *Peer, _ *attempt, _ *quietConn, cancel context.CancelCauseFunc) {
			p.shut(goodbyeClosed, wanted)
			cancel(wanted)
		}, want: wanted},
	} {
		synctest.Test(t, func(t *testing.T) {
			p, _ := metPeer(t, 5)
			conn := &quietConn{newDeadConn(), make(chan struct{}), make(chan error)}
			a, _ := under(p, ReasonStandby, 6)
			a.conn = conn
			ctx, cancel := context.WithCancelCause(t.Context())
			held := make(chan error, 1)
			go func() { held <- p.hold(ctx, a) }()
			synctest.Wait()
			(<-p.tasks)()
			if p.spare.held != nil { // the session is on no relay
				t.Errorf("%s: held beside a direct path", name)
			}
			c.end(p, a, conn, cancel)
			if err := <-held; !errors.Is(err, c.want) || c.want == nil && err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if (len(p.tasks) == 1) != c.by {
				t.Errorf("%s: %d things to do", name, len(p.tasks))
			}
			if c.by {
				if f := <-a.hello; string(f.frame) != "frame" || f.err != nil {
					t.Errorf("%s: %q, %v", name, f.frame, f.err)
				}
				p.spare.held = a
				(<-p.tasks)()
				if p.spare.held != nil || !a.taking || a.standby() {
					t.Errorf("%s: it is not about to be the session", name)
				}
			}
			conn.Close()
			cancel(nil)
			alone(p)
		})
	}
}

// TestHeldBeside: which standby is kept beside which session.
func TestHeldBeside(t *testing.T) {
	one, two := turn.Relay{URL: "turn:192.0.2.1"}, turn.Relay{URL: "turn:192.0.2.2"}
	for name, c := range map[string]struct {
		relay string // of the session
		owned bool   // it is this side's
		by    *turn.Relay
		kept  bool
	}{
		"a direct path":            {"", false, &two, false},
		"another relay":            {"192.0.2.1", true, &two, true},
		"the same relay":           {"192.0.2.1", true, &one, false},
		"the same, of the other's": {"192.0.2.1", false, &one, true},
		"no relay here":            {"192.0.2.1", true, nil, true},
	} {
		p, s := metPeer(t, 5)
		s.relay, s.owned, s.own = c.relay, c.owned, &one
		a, gone := under(p, ReasonStandby, 6)
		other, gaveWay := under(p, ReasonStandby, 7)
		direct, stays := under(p, ReasonDirectPath, 8)
		a.relay = c.by
		p.spare.pause = time.Minute
		p.held(a)
		if (p.spare.held == a) != c.kept || gone() == c.kept || !gaveWay() || slices.Contains(p.attempts, other) || stays() || !slices.Contains(p.attempts, direct) {
			t.Errorf("%s: held %v, given up %v, the other %v", name, p.spare.held != nil, gone(), gaveWay())
		}
		alone(p)
	}
}

// TestAbsence: what follows when a server does not know the other side.
func TestAbsence(t *testing.T) {
	const nothing, repeats, keyless, ends = "nothing", "repeats", "by name", "ends"
	for name, c := range map[string]struct {
		open   []string // servers
		change func(p *Peer, a *attempt)
		want   string
	}{
		"the only server":                {[]string{"s1"}, func(*Peer, *attempt) {}, ends},
		"one of two":                     {[]string{"s1", "s2"}, func(*Peer, *attempt) {}, repeats},
		"the second of two":              {[]string{"s1", "s2"}, func(_ *Peer, a *attempt) { a.absent = []string{"s2"} }, ends},
		"asked for a key":                {[]string{"s1"}, func(_ *Peer, a *attempt) { a.keyed = true }, keyless},
		"asked for a key, one of two":    {[]string{"s1", "s2"}, func(_ *Peer, a *attempt) { a.keyed = true }, repeats},
		"it is open already":             {[]string{"s1"}, func(_ *Peer, a *attempt) { a.opened.Store(true) }, nothing},
		"a standby":                      {[]string{"s1"}, func(_ *Peer, a *attempt) { a.why = ReasonStandby }, nothing},
		"beside a session":               {[]string{"s1"}, func(p *Peer, _ *attempt) { p.machine.state = StateConnected }, nothing},
		"in a replacement":               {[]string{"s1"}, func(p *Peer, _ *attempt) { p.machine.state = StateReplacing }, nothing},
		"met before":                     {[]string{"s1"}, func(p *Peer, _ *attempt) { p.machine.met = true }, nothing},
		"not dialled":                    {[]string{"s1"}, func(p *Peer, _ *attempt) { p.machine.dialling = false }, nothing},
		"an answer":                      {[]string{"s1"}, func(_ *Peer, a *attempt) { a.offerer = false }, nothing},
		"a neighbour may know it":        {[]string{"s1"}, func(p *Peer, _ *attempt) { p.node.carrying = 1 }, nothing},
		"a neighbour had time to say so": {[]string{"s1"}, func(p *Peer, a *attempt) { p.node.carrying, a.started = 1, time.Now().Add(-absentAfter) }, ends},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := stillPeer(t)
			all := []signaling.ServerStatus{{URL: "down", State: signaling.StateWaiting}}
			for _, url := range c.open {
				all = append(all, signaling.ServerStatus{URL: url, State: signaling.StateOpen})
			}
			p.node.signaler = servers{p.node.signaler, all}
			p.machine.dialling = true
			a, gone := under(p, ReasonDial, 5)
			var cause error
			cancel := a.cancel
			a.cancel = func(err error) { cause = err; cancel(err) }
			a.known = signaling.Hash{1}
			c.change(p, a)
			p.absent(signaling.Hash{1}, "s1")
			p.absent(signaling.Hash{2}, "s1")
			got := nothing
			switch {
			case len(a.nudge) > 0:
				got = repeats
			case gone() && len(p.attempts) == 1 && p.attempts[0] != a && p.attempts[0].offerer:
				got = keyless
			case errors.Is(cause, ErrAbsent):
				got = ends
			}
			if got != c.want || !slices.Contains(a.absent, "s1") || !slices.Equal(p.history(), []string{"agent-b is not registered at s1"}) {
				t.Errorf("%s: %s, absent at %q, %q", name, got, a.absent, p.history())
			}
			p.giveUp(func(*attempt) bool { return true })
			p.shut(goodbyeClosed, errors.New("the end"))
			p.work.Wait()
		})
	}
}

// TestWhatADialTells: which ends of attempts a dial tells of, and what its error matches.
func TestWhatADialTells(t *testing.T) {
	narrow := fmt.Errorf("%w: here", ErrNarrowPath)
	refused := &rejectedError{code: rejectClock, clock: &ClockError{Peer: "agent-b"}}
	for name, c := range map[string]struct {
		why   Reason
		err   error
		tells bool
		is    error
	}{
		"no answer":        {ReasonDial, errAttemptTimeout, true, nil},
		"given up":         {ReasonDial, errSuperseded, false, nil},
		"a standby":        {ReasonStandby, errAttemptTimeout, false, nil},
		"absent":           {ReasonDial, fmt.Errorf("agent-b: %w", ErrAbsent), false, nil},
		"a narrow path":    {ReasonDial, narrow, true, ErrNarrowPath},
		"refused by clock": {ReasonDial, refused, true, nil},
	} {
		p := stillPeer(t)
		a := newAttempt(p, order{}, true)
		a.why, a.err = c.why, c.err
		p.noteEnd(a)
		select {
		case <-a.told:
		default:
			t.Errorf("%s: its end is not noted", name)
		}
		err := p.dialError(p.because(context.DeadlineExceeded))
		if (len(err.Tried) == 1) != c.tells || !errors.Is(err, context.DeadlineExceeded) || err.Peer != "agent-b" || c.is != nil && !errors.Is(err, c.is) || errors.Is(err, ErrNarrowPath) != (c.is != nil) {
			t.Errorf("%s: %v, tried %q", name, err, err.Tried)
		}
		var ce *ClockError
		if errors.As(err, &ce) != (c.err == refused) {
			t.Errorf("%s: %v", name, err)
		}
	}
	p := stillPeer(t)
	for i := range maxTried + 3 {
		p.note(fmt.Sprint(i))
		p.note(fmt.Sprint(i)) // once
	}
	if all := p.history(); len(all) != maxTried || all[0] != "3" || all[maxTried-1] != fmt.Sprint(maxTried+2) {
		t.Errorf("%q", all)
	}
	p.distrust(ErrUntrusted, "ws://s1/")
	if err := p.because(context.Canceled); !errors.Is(err, ErrUntrusted) || !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// TestDeferredOffer: the losing offer of a glare is answered after all where nothing else is left to do.
func TestDeferredOffer(t *testing.T) {
	for name, c := range map[string]struct {
		change func(p *Peer)
		want   bool
	}{
		"nothing else":       {func(*Peer) {}, true},
		"there is a session": {func(p *Peer) { onPaper(t, p, 5) }, false},
		"too many under way": {fill, false},
		"there is no offer":  {func(p *Peer) { p.deferred = nil }, false},
		"one more could be":  {func(p *Peer) { fill(p); p.attempts = p.attempts[1:] }, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := stillPeer(t)
			v := wished(signaling.Offer, ReasonDial, 4, 1)
			c.change(p)
			if name != "there is no offer" {
				p.deferred = &deferredOffer{v: v, at: time.Now()}
			}
			before := len(p.attempts)
			p.answerDeferred()
			if answered := len(p.attempts) == before+1; answered != c.want || p.deferred != nil {
				t.Errorf("%s: answered %v", name, answered)
			}
			p.giveUp(func(*attempt) bool { return true })
			alone(p)
			p.shut(goodbyeClosed, errors.New("the end"))
			p.work.Wait()
		})
	}
}
