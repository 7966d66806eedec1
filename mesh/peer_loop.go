package mesh

import (
	"context"
	"errors"
	"slices"
	"time"
)

// deferredOffer is the other side's offer in a glare that this side's wins.
type deferredOffer struct {
	v  verified
	at time.Time // when to answer it after all
}

// replaceWaiter is a call of Replace: it waits for a session above one.
type replaceWaiter struct {
	above order
	done  chan error // capacity 1
}

// run is the Peer's loop: it owns the state, and everything else reaches it
// as a task. It never blocks on the network or on user code.
func (p *Peer) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for p.ctx.Err() == nil {
		timer.Reset(max(time.Until(p.nextWake()), 0))
		select {
		case f := <-p.tasks:
			f()
		case <-p.alarm:
		case <-timer.C:
			p.wake(time.Now())
		case <-p.ctx.Done():
		}
	}
	close(p.stopped)
	p.teardown()
}

// nextWake is when something is to be done without a task.
func (p *Peer) nextWake() time.Time {
	at := time.Now().Add(time.Hour)
	sooner := func(t time.Time) {
		if !t.IsZero() && t.Before(at) {
			at = t
		}
	}
	sooner(p.machine.next())
	sooner(p.standbyDue())
	sooner(p.spare.until)
	sooner(p.renew)
	if p.deferred != nil {
		sooner(p.deferred.at)
	}
	if top := p.top(); top != nil {
		sooner(top.nextPing())
		switch {
		case top.proof.pending(time.Now()):
			sooner(top.proof.until())
		case !top.doubted.Load():
			sooner(top.answered().Add(top.silentLimit()))
			_, look := p.overdue(top)
			sooner(look)
		}
	}
	return at
}

// overdue is since when what is outstanding has made no progress and when to
// look whether it does, zero when nothing is outstanding. From then on the writer
// says when something is.
func (p *Peer) overdue(top *session) (since, look time.Time) {
	p.watching.Store(true)
	since = p.led.unacknowledged(top)
	if since.IsZero() {
		p.watching.Store(false)
		// What the writer sent in between has not been told.
		if since = p.led.unacknowledged(top); since.IsZero() {
			return since, since
		}
	}
	look = since
	if top.checked.After(look) {
		look = top.checked
	}
	return since, look.Add(min(top.ackLimit(), p.machine.recovery.SuspectAfter) / 2)
}

// watch tells the loop that records are outstanding.
func (p *Peer) watch() {
	if p.watching.Load() {
		return
	}
	select {
	case p.alarm <- struct{}{}:
	default:
	}
}

// wake does what is due.
func (p *Peer) wake(now time.Time) {
	if p.deferred != nil && !now.Before(p.deferred.at) {
		p.answerDeferred()
	}
	if top := p.top(); top != nil {
		if !now.Before(top.nextPing()) {
			if err := top.ping(); err != nil {
				p.node.log.Debug("echo", "peer", p.id, "error", err) // its reader will see
			}
		}
		p.assess(now, top)
		// Too soon after another probe it is made up for later.
		if p.machine.state == StateSuspect {
			p.node.probe()
		}
	}
	if !p.renew.IsZero() && !now.Before(p.renew) {
		p.renewRelay(now)
	}
	if until := p.spare.until; !until.IsZero() && !now.Before(until) {
		p.giveUp(func(a *attempt) bool { return a == p.spare.held })
		p.spare.until = time.Time{}
	}
	if due := p.standbyDue(); !due.IsZero() && !now.Before(due) {
		p.offerStandby()
	}
	if next := p.machine.next(); !next.IsZero() && !now.Before(next) {
		p.do(p.machine.wake(now, p.busy()))
	}
}

// assess begins to doubt a session that does not answer.
func (p *Peer) assess(now time.Time, top *session) {
	if top.doubted.Load() || top.proof.pending(now) {
		return
	}
	why := ReasonSilence
	since, look := p.overdue(top)
	if !look.IsZero() && !now.Before(look) {
		again := top.checked.After(since)
		if stuck := top.stuck(now); stuck && !now.Before(since.Add(top.ackLimit())) {
			why = ReasonUnacknowledged
		} else if again && !stuck && top.conn.Queued() > 0 {
			top.prove()
		}
	}
	if why == ReasonSilence && now.Sub(top.answered()) < top.silentLimit() {
		return
	}
	p.suspect(top, why)
}

// suspect doubts a session.
func (p *Peer) suspect(top *session, why Reason) {
	top.doubted.Store(true)
	p.doubtPath(top)
	p.dropDirect()
	p.do(p.machine.doubted(time.Now(), top.answered(), why, p.busy()))
	p.promote(why) // also beside another attempt, which may take its time
}

// dropDirect ends attempts at a direct path beside a relay: now something else matters.
func (p *Peer) dropDirect() {
	p.giveUp(func(a *attempt) bool {
		gone := a.why == ReasonDirectPath && !a.opened.Load()
		if gone {
			p.withdraw(a)
		}
		return gone
	})
}

// answers takes note that the other side has answered on a session in doubt.
func (p *Peer) answers(s *session) {
	if s != p.top() || s.doubted.Load() {
		return // it is doubted again already, and its next answer will be told
	}
	p.unshun(s)
	p.do(p.machine.answers(time.Now(), p.busy()))
	if p.machine.state == StateConnected {
		p.settle(errAnswersAgain) // no session is on its way to who waits for one
	}
}

// busy reports whether an attempt is under way for the next session. That the other
// side tries a direct path, mostly in vain, is none to wait for.
func (p *Peer) busy() bool {
	return slices.ContainsFunc(p.attempts, func(a *attempt) bool {
		return !a.standby() && !a.late && (a.answers == nil || a.why != ReasonDirectPath)
	})
}

// top returns the session that carries the messages, nil when there is none: a
// lower one may be left when that died, and carry envelopes, but no message goes back to it.
func (p *Peer) top() *session {
	if n := len(p.sessions); n > 0 && !p.sessions[n-1].passed {
		return p.sessions[n-1]
	}
	return nil
}

// setTop tells the other goroutines which session is the highest.
func (p *Peer) setTop() {
	top := p.top()
	if top != nil {
		p.agreed.Store(top.order.generation)
	}
	live := slices.Clone(p.sessions)
	slices.Reverse(live)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.way, p.live = top, live
	if top != nil {
		p.key = top.remoteKey
	}
}

// do carries out what the machine decided.
func (p *Peer) do(st step) {
	err := p.lastErr // which a report may clear
	for _, r := range st.reports {
		p.tell(r)
	}
	if st.failed {
		if err == nil {
			err = errNotReplaced
		}
		p.settle(err)
	}
	if st.abandon {
		// One that has opened may have made a session of it at the other side;
		// only a change of the network makes it pointless all the same.
		p.giveUp(func(a *attempt) bool {
			gone := !a.opened.Load() && !a.standby() || st.why == ReasonNetwork
			if gone {
				p.withdraw(a)
			}
			return gone
		})
	}
	if st.attempt {
		p.try(st.why)
	}
}

// tell reports to the application, the log, the recorder and the instruments.
func (p *Peer) tell(r report) {
	c := Change{Time: p.node.now(), From: r.from, State: r.to, Reason: r.reason,
		Attempt: r.attempt, Wait: r.wait, Err: p.lastErr}
	if top := p.top(); top != nil && r.to.carries() {
		c.Path = top.path()
	}
	if r.to == StateConnected && r.reason != ReasonFailed {
		c.Err, p.lastErr = nil, nil
	}
	p.changes.add(c)
	p.node.obs.change(p.id, c, r)
	p.node.stands(p, r.to)
}

// errNotReplaced is Replace's error when nothing says more.
var errNotReplaced = errors.New("no new session was made")

// replace is Replace's part of the loop.
func (p *Peer) replace(done chan error) {
	var above order
	if top := p.top(); top != nil {
		above = top.order
	}
	p.waiters = append(p.waiters, replaceWaiter{above, done})
	p.dropDirect() // it may be of before the session in use, and then nothing waits for it
	p.do(p.machine.wants(ReasonRequested, p.busy()))
}

// settle ends the calls of Replace that wait: all of them with an error, those
// whose session has come without.
func (p *Peer) settle(err error) {
	top := p.top()
	p.waiters = slices.DeleteFunc(p.waiters, func(w replaceWaiter) bool {
		over := err != nil || top != nil && top.order.compare(w.above) > 0
		if over {
			w.done <- err
		}
		return over
	})
}

// hinted takes an unverified sign that the other side, or the way to it, is
// back.
func (p *Peer) hinted() {
	p.repeat()
	p.do(p.machine.hint(time.Now(), p.busy()))
}

// aside takes it that the other side is heard on a session that this one has moved on
// from: it may have nothing else, and what waits to meet it again need not.
func (p *Peer) aside() { p.do(p.machine.hint(time.Now(), p.busy())) }

// dropProbe ends the sessions of a Peer that is still unreachable.
func (p *Peer) dropProbe() {
	if p.machine.state != StateUnreachable {
		return
	}
	for _, s := range p.sessions {
		p.work.Go(func() { s.conn.Close() }) // its reader takes note
	}
}

// teardown says goodbye, ends what the Peer started and waits for it.
func (p *Peer) teardown() {
	cause := context.Cause(p.ctx)
	p.lastErr = cause
	p.do(p.machine.ended())
	p.changes.end()
	p.lose(p.led.end(cause), "the Peer has ended")
	if errors.Is(cause, ErrUntrusted) {
		p.revoke(p.Key())
	}
	text := ""
	if p.replyCode == goodbyeProtocol {
		text = cause.Error()
	}
	for _, s := range p.sessions {
		p.work.Go(func() { s.goodbye(p.replyCode, text) })
	}
	p.sessions = nil
	p.setTop()
	if p.machine.met && p.replyCode == goodbyeClosed && !errors.Is(cause, errGaveWay) {
		p.led.part()
	}
	if p.deferred != nil {
		p.node.refuse(refusalOf(p.deferred.v.Sealed), rejectBusy, "closing")
	}
	p.work.Wait()
	p.node.obs.disconnected(context.Background(), p.id, cause, len(p.lost))
	p.node.forget(p)
	close(p.ended)
}

// sessionEnded decides what follows the end of a session.
func (p *Peer) sessionEnded(s *session, err error) {
	wasTop := s == p.top()
	p.sessions = slices.DeleteFunc(p.sessions, func(x *session) bool { return x == s })
	p.setTop()
	p.led.detach(s)
	lost := errors.Is(err, ErrConnectionLost)
	dropped := lost && !s.passed
	if dropped || !lost {
		p.lastErr = err // otherwise it ended as it was to
	}
	p.node.obs.sessionEnded(p.ctx, p.id, err, dropped)

	current := p.led.current(s)
	var bye *goodbyeError
	switch {
	case current != nil:
		return // of an instance that was displaced: goodbye closes it
	case errors.As(err, &bye) && bye.code == goodbyeClosed && s.passed && p.top() != nil:
		// The other side closed the Peer that this session belonged to, and
		// has dialled again since.
		p.work.Go(func() { s.leave(linger) })
		return
	case errors.As(err, &bye):
		if bye.code == goodbyeReplaced {
			p.led.markReplaced()
		}
		p.work.Go(func() { s.leave(linger) })
		p.shut(goodbyeClosed, err)
		return
	case !lost:
		text := err.Error()
		p.work.Go(func() { s.goodbye(goodbyeProtocol, text) })
		if p.top() == nil {
			p.shut(goodbyeProtocol, err)
		}
		return
	}
	p.work.Go(func() { s.conn.Close() })
	if wasTop {
		// A lower session may be left, but a sender never goes back to one.
		if errors.Is(err, ErrNarrowPath) {
			p.isNarrow(s.kinds)
		}
		p.doubtPath(s)
		p.dropDirect()
		p.do(p.machine.lost(time.Now(), s.answered(), p.busy()))
		p.promote(ReasonLost)
	}
}
