package mesh

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A Peer whose session is on a relay keeps another one ready on a second relay: an
// attempt whose connection has opened and on which nobody has said hello yet.
//
//	greater key:  offer (ReasonStandby) ─► open ─► hold ─► hello ─► session
//	lesser key:   answer                ─► open ─► hold ─► hello ─► session
//
// Its order is above that of the session in use, so the hello of either side, and
// nothing else, makes it take over: no envelope and no relay but its own is needed.
// A session that is made later ranks above it and ends it.

// standby is what a Peer's loop knows of that.
type standby struct {
	held  *attempt      // ready to take over; nil for none
	due   time.Time     // when the next is tried; zero for never
	pause time.Duration // after the last failure
	until time.Time     // when the one held is given up for its relay; zero for never
}

// begin plans the first standby of a session, wait after now.
func (s *standby) begin(now time.Time, wait time.Duration) {
	s.due, s.pause = now.Add(wait), 0
}

// end plans none.
func (s *standby) end() { s.due, s.pause = time.Time{}, 0 }

// failed plans the next one.
func (s *standby) failed(now time.Time) {
	if s.due.IsZero() {
		return
	}
	s.pause = min(max(2*s.pause, standbyPause), standbyPauseMost)
	s.due = now.Add(s.pause)
}

// hurry plans the next one for now, because the relays have changed.
func (s *standby) hurry(now time.Time) {
	if at := now.Add(standbyPause); s.pause > 0 && at.Before(s.due) {
		s.due = at
	}
}

// standby reports whether the attempt makes a standby session, or holds one. The
// loop's own.
func (a *attempt) standby() bool { return a.why == ReasonStandby && !a.taking }

// planStandby decides whether the session that has taken over gets a standby. The
// greater key makes it.
func (p *Peer) planStandby(s *session, now time.Time) {
	wait := p.node.cfg.Paths.StandbyAfter
	if s.relay == "" || p.lesser() || wait == Never || p.node.cfg.TURN == nil {
		p.spare.end()
		return
	}
	p.spare.begin(now, wait)
}

// standbyDue is when to try one, zero for never. Another attempt under way may make
// it pointless, but one at a direct path rarely does.
func (p *Peer) standbyDue() time.Time {
	s := p.machine.state
	if s != StateConnected && s != StateReplacing || p.top() == nil ||
		slices.ContainsFunc(p.attempts, func(a *attempt) bool { return a.why != ReasonDirectPath }) {
		return time.Time{}
	}
	return p.spare.due
}

// offerStandby begins the attempt.
func (p *Peer) offerStandby() {
	if top := p.top(); top != nil {
		p.startOffer(ReasonStandby, top)
	}
}

// hold keeps an attempt that has opened until the Peer wants it, the other side
// says hello on it, or it dies.
func (p *Peer) hold(ctx context.Context, a *attempt) error {
	a.hello = make(chan firstFrame, 1)
	p.work.Go(func() { // ends with the connection, and hands over at most one frame
		buf := make([]byte, maxFrame)
		n, err := a.conn.Read(buf)
		a.hello <- firstFrame{buf[:n], err}
	})
	if !p.post(func() { p.held(a) }) {
		return context.Cause(p.ctx)
	}
	select {
	case <-a.promoted:
		return nil
	case f := <-a.hello:
		a.hello <- f // for the handshake
		if f.err != nil {
			return fmt.Errorf("%w: %w", ErrConnectionLost, f.err)
		}
		p.post(func() { p.promoted(a) })
		return nil
	case <-a.conn.Quiet():
		return errQuiet
	case <-a.conn.Done():
		return fmt.Errorf("%w: the standby session died", ErrConnectionLost)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// held takes note of a standby that is ready.
func (p *Peer) held(a *attempt) {
	if !slices.Contains(p.attempts, a) {
		return // given up meanwhile
	}
	p.giveUp(func(x *attempt) bool { return x != a && x.standby() })
	p.spare.held, p.spare.pause = a, 0
	p.checkRelay(time.Now())
	p.dropStandby()
	p.node.log.Debug("standby session", "peer", p.id, "relay", a.relayName())
}

// dropStandby ends a standby session that is none: beside a direct path, or, as far as
// this side's relay is concerned, on the way of the session that it stands by.
func (p *Peer) dropStandby() {
	top, a := p.top(), p.spare.held
	if top == nil || a == nil {
		return
	}
	if top.relay == "" || top.owned && a.relay != nil && a.relay.URL == top.own.URL {
		p.giveUp(func(x *attempt) bool { return x == a })
	}
}

// promote makes the standby take over, if there is one. It reports whether there
// is.
func (p *Peer) promote(why Reason) bool {
	a := p.spare.held
	switch why {
	case ReasonNetwork, ReasonRequested, ReasonDirectPath, ReasonRelay:
		return false // they want something that it may not have
	}
	if a == nil {
		return false
	}
	p.promoted(a)
	close(a.promoted)
	return true
}

// promotionTime is how long the other side of a standby session may take to
// answer its hello.
func (p *Peer) promotionTime() time.Duration {
	rtt := firstRTT
	if s := p.session(); s != nil {
		rtt = time.Duration(s.rtt.Load())
	}
	return min(max(4*rtt, promotionLeast), promotionMost)
}

// promoted takes note that an attempt is no standby any more, but about to be the
// session.
func (p *Peer) promoted(a *attempt) {
	if p.spare.held == a {
		p.spare.held = nil
		a.taking = true
	}
}

// promotionLate looks for another way beside a standby session that does not answer
// the hello with which it is to take over. It may still: nothing else may be left.
func (p *Peer) promotionLate(a *attempt) {
	if !slices.Contains(p.attempts, a) {
		return
	}
	a.late = true
	p.shunRelays(a)
	p.lastErr = errPromotion
	p.do(p.machine.failed(time.Now(), p.busy()))
}

// standbyFailed decides what follows the end of one.
func (p *Peer) standbyFailed(a *attempt) {
	if p.spare.held == a {
		p.spare.held = nil
	}
	p.node.log.Debug("no standby session", "peer", p.id, "relay", a.relayName(), "error", a.err)
	if !errors.Is(a.err, errNoRelay) {
		p.blame(a)
	}
	p.spare.failed(time.Now())
}

// errQuiet ends a standby session from whose other side nothing comes.
var errQuiet = errors.New("the standby session is silent")
