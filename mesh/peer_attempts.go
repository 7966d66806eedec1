package mesh

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
	"github.com/infrafabric/agentmesh/witness"
)

// dial makes sure that the Peer is connected, or gets there.
func (p *Peer) dial() { p.do(p.machine.dial(p.busy())) }

// try begins an attempt. On first contact both sides may offer; after that the
// greater key does, and the other side asks it to, so that two sides that want
// a session at one time make one.
func (p *Peer) try(why Reason) {
	switch {
	case p.promote(why):
	case p.machine.met && p.lesser():
		if !p.busy() {
			p.startAsk(why)
		}
	case !p.offering():
		p.startOffer(why, nil)
	}
}

// offering reports whether an offer is under way that makes the next session.
func (p *Peer) offering() bool {
	return slices.ContainsFunc(p.attempts, func(a *attempt) bool { return a.offerer && !a.standby() && !a.late })
}

// lesser reports whether the other side's key is the greater one.
func (p *Peer) lesser() bool { return p.node.cfg.Identity.PublicKey().Compare(p.Key()) < 0 }

// address returns whom the next envelope of an attempt is for: the key in use,
// the one that trust names, or whoever has the name.
func (p *Peer) address() func(context.Context) keys.PublicKey {
	keyless, known := p.keyless, p.Key()
	p.keyless = false
	return func(ctx context.Context) keys.PublicKey {
		switch {
		case keyless:
			return keys.PublicKey{}
		case !known.IsZero():
			return known
		}
		return p.node.keyOf(ctx, p.id)
	}
}

// newAttempt makes an attempt that knows what the Peer knows.
func (p *Peer) newAttempt(o order, offerer bool, why Reason) *attempt {
	a := newAttempt(p, o, offerer)
	a.why, a.replaces, a.relayed = why, p.machine.met, p.relayed
	p.knowPaths(a)
	return a
}

// startOffer begins an attempt with an offer of our own; beside is the session in use
// if it is for a standby.
func (p *Peer) startOffer(why Reason, beside *session) {
	p.lastGen = max(p.lastKnown()+1, p.node.generation())
	a := p.newAttempt(order{p.lastGen, p.node.cfg.Identity.PublicKey()}, true, why)
	a.beside = beside
	address := p.address()
	p.begin(a, func(ctx context.Context) (*signaling.Sealed, error) {
		a.key = address(ctx)
		env, err := a.offer(ctx)
		if err != nil {
			return nil, err
		}
		p.node.obs.sdpEvent(ctx, witness.WebRTCOfferCreated, p.id, a.ref.String())
		return env, nil
	})
}

// startAsk asks the other side for an offer above what this side knows of.
func (p *Peer) startAsk(why Reason) {
	a := p.newAttempt(order{p.lastKnown(), p.node.cfg.Identity.PublicKey()}, false, why)
	a.asks = true
	a.avoids()
	address := p.address()
	p.attempts = append(p.attempts, a)
	ctx, cancel := context.WithCancelCause(p.ctx)
	a.cancel = cancel
	p.work.Go(func() {
		defer cancel(nil)
		ctx, stop := context.WithTimeoutCause(ctx, attemptTimeout, errAttemptTimeout)
		defer stop()
		a.key = address(ctx)
		a.err = a.ask(ctx)
		p.node.unexpect(a.ref)
		p.noteEnd(a)
		p.post(func() { p.attemptFailed(a) })
	})
}

// startAnswer begins an attempt that answers a verified offer, whose description is d,
// or malformed.
func (p *Peer) startAnswer(offer verified, d *descriptionBody, malformed error) {
	why := ReasonDial
	if malformed == nil {
		why = d.Reason
	}
	a := p.newAttempt(order{offer.Generation, offer.Key}, false, why)
	a.carrier, a.heard, a.beside = offer.carrier, offer.via, p.top()
	a.key, a.ref, a.known, a.learn = offer.Key, offer.Hash(), offer.Hash(), offer.learn
	a.answers = offer.Sealed
	p.handEarly(a)
	p.begin(a, func(ctx context.Context) (*signaling.Sealed, error) {
		if malformed != nil {
			return nil, malformed
		}
		env, err := a.answer(ctx, offer.Sealed, d)
		if err != nil {
			return nil, err
		}
		p.node.obs.sdpEvent(ctx, witness.WebRTCAnswerCreated, p.id, env.Hash().String())
		return env, nil
	})
}

// begin runs an attempt in its goroutine, which becomes the session's reader
// when the attempt succeeds.
func (p *Peer) begin(a *attempt, describe func(context.Context) (*signaling.Sealed, error)) {
	p.attempts = append(p.attempts, a)
	ctx, cancel := context.WithCancelCause(p.ctx)
	a.cancel = cancel
	p.work.Go(func() {
		defer cancel(nil)
		s, err := p.negotiate(ctx, a, describe)
		p.node.unexpect(a.ref)
		p.node.obs.attemptEnded(p.node.ctx, a, err)
		if err != nil {
			a.err = err
			if s == nil {
				a.close()
			} else {
				p.decline(s, err)
			}
			// The other side need not wait for an answer until its time is over.
			switch {
			case a.answers == nil || errors.Is(err, errSuperseded):
			case p.ctx.Err() != nil:
				p.node.refuse(refusalOf(a.answers), rejectBusy, "closing")
			case !a.answered || unwilling(err):
				code, text := unable(err)
				if code != rejectBusy {
					p.node.log.Warn("an offer cannot be answered", "peer", p.id, "error", err)
				}
				p.node.refuse(refusalOf(a.answers), code, text)
			}
			p.noteEnd(a)
			p.post(func() { p.attemptFailed(a) })
			return
		}
		p.serve(s)
	})
}

// negotiate takes an attempt to an attached session. A standby has the time of an
// attempt for its connection, and another for its hello when it is wanted.
func (p *Peer) negotiate(ctx context.Context, a *attempt, describe func(context.Context) (*signaling.Sealed, error)) (*session, error) {
	limited, stop := context.WithTimeoutCause(ctx, attemptTimeout, errAttemptTimeout)
	defer stop()
	if err := p.open(limited, a, describe); err != nil {
		return nil, err
	}
	if a.why == ReasonStandby {
		if err := p.hold(ctx, a); err != nil {
			return nil, err
		}
		late := time.AfterFunc(p.promotionTime(), func() { p.post(func() { p.promotionLate(a) }) })
		defer late.Stop()
		taking, stop := context.WithTimeoutCause(ctx, attemptTimeout, errPromotion)
		defer stop()
		limited = taking
	}
	s, h, err := a.establish(limited)
	if err != nil {
		return nil, err
	}
	attached := make(chan error, 1)
	if !p.post(func() { attached <- p.attach(a, s, h) }) {
		return nil, context.Cause(p.ctx)
	}
	select {
	case err = <-attached:
	case <-p.stopped: // now it has been attached, or never will be
		select {
		case err = <-attached:
		default:
			err = context.Cause(p.ctx)
		}
	}
	return s, err
}

// open takes an attempt to an open connection, when it is its turn.
func (p *Peer) open(ctx context.Context, a *attempt, describe func(context.Context) (*signaling.Sealed, error)) error {
	turns := p.node.answers
	if a.offerer {
		turns = p.node.turns
	}
	if a.offerer {
		p.node.wanting.Add(1)
	}
	select {
	case turns <- struct{}{}:
		defer func() { <-turns }()
	case <-ctx.Done():
	}
	if a.offerer {
		p.node.wanting.Add(-1)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	env, err := describe(ctx)
	if err != nil {
		return err
	}
	if err := a.announce(env); err != nil {
		return err
	}
	if err := a.connect(ctx, env); err != nil {
		return err
	}
	a.connectedPath = true
	a.kinds = a.pathKinds()
	if a.slim {
		a.conn = newSlimConn(a.conn)
	}
	a.opened.Store(true)
	return nil
}

// decline ends a session whose hello was verified and which the Peer did not
// take in; the other side learns why.
func (p *Peer) decline(s *session, err error) {
	switch {
	case errors.Is(err, ErrReplaced):
		s.goodbye(goodbyeReplaced, "")
	case p.ctx.Err() != nil:
		s.goodbye(p.replyCode, "")
	case errors.Is(err, ErrConnectionLost):
		s.conn.Close() // the association goes on
	case errors.Is(err, ErrProtocol):
		s.goodbye(goodbyeProtocol, err.Error())
	default:
		s.goodbye(goodbyeClosed, "")
	}
}

// serve runs an attached session to its end.
func (p *Peer) serve(s *session) {
	ctx, cancel := context.WithCancel(p.ctx)
	defer cancel()
	p.work.Go(func() { s.write(ctx) })
	err := s.read()
	cancel()
	// When the Peer is closing already, teardown closes the session.
	p.post(func() { p.sessionEnded(s, err) })
}

// attach takes in a session whose hello was verified. After an error the
// session is not the Peer's.
func (p *Peer) attach(a *attempt, s *session, h *helloBody) error {
	p.drop(a)
	if p.ctx.Err() != nil {
		return context.Cause(p.ctx)
	}
	got, err := p.led.attach(s, h)
	if err != nil {
		p.lastErr = err
		return err
	}
	displaced := got.displaced
	p.node.obs.established(p.ctx, s)
	p.lose(got.unknown, "the other side has forgotten whether it had them")
	p.lose(got.oversized, "the other side's window is smaller than they are")
	old := p.sessions
	if displaced {
		// The older process learns why; its sessions carry nothing any more.
		for _, o := range old {
			p.work.Go(func() { o.goodbye(goodbyeReplaced, "") })
		}
		old = nil
		p.giveUp((*attempt).standby)
	}
	at := len(old)
	for at > 0 && s.order.compare(old[at-1].order) < 0 {
		at--
	}
	p.sessions = slices.Insert(slices.Clone(old), at, s)
	top := p.sessions[len(p.sessions)-1]
	for _, o := range p.sessions[:len(p.sessions)-1] {
		o.passed = true
	}
	p.supersede()
	for len(p.sessions) > maxSessions {
		p.displace()
	}
	p.setTop()
	// Attempts for a session that would rank lower are pointless; a higher
	// one may be what the other side already uses.
	p.giveUp(func(x *attempt) bool { return x.below(top.order) })
	p.deferred = nil
	if top == s {
		if !displaced && len(old) > 0 {
			s.rtt.Store(old[len(old)-1].rtt.Load()) // until it is measured
		}
		if p.machine.met {
			p.node.obs.replaced(s.why)
		}
		p.moved(s)
		p.do(p.machine.attached(time.Now(), s.why, p.relayed, s.slim))
		p.settle(nil)
	}
	if first := p.node.connected(p); first {
		close(p.up)
	}
	s.poke()
	if err := s.ping(); err != nil {
		p.node.log.Debug("echo", "peer", p.id, "error", err) // its reader will see
	}
	return nil
}

// lose notes messages that were given up.
func (p *Peer) lose(ids []string, why string) {
	p.lost = append(p.lost, ids...)
	p.node.obs.lost(p.ctx, p.id, len(ids), why)
}

// moved takes note of the path of the session that carries the messages now.
func (p *Peer) moved(s *session) {
	now := time.Now()
	p.relayed = s.relay != ""
	p.unshun(s)
	p.checkRelay(now)
	p.dropStandby()
	p.planStandby(s, now)
}

// supersede retires the sessions below the highest that both sides are known to have
// taken in. Until then the lower ones stay: this side may be the only one that has
// both hellos, and they are how the two meet when there is no other way.
func (p *Peer) supersede() {
	for i := len(p.sessions) - 1; i > 0; i-- {
		if !p.sessions[i].confirmed.Load() {
			continue
		}
		for _, o := range p.sessions[:i] {
			p.retire(o, min(time.Duration(o.rtt.Load()), oldSessionMost)+oldSessionGrace)
		}
		return
	}
}

// displace closes the lowest session, or the next one if that is the only one that both
// sides have.
func (p *Peer) displace() {
	at := 0
	if p.sessions[0].confirmed.Load() && !slices.ContainsFunc(p.sessions[1:], func(s *session) bool { return s.confirmed.Load() }) {
		at = 1
	}
	s := p.sessions[at]
	p.sessions = slices.Delete(p.sessions, at, at+1)
	p.work.Go(func() { s.conn.Close() })
}

// retire closes a session that a higher one has taken over from, after a
// while: what is in flight on it may still arrive. The greater key closes it,
// the other side follows.
func (p *Peer) retire(s *session, after time.Duration) {
	if s.retired {
		return
	}
	s.retired = true
	if p.node.cfg.Identity.PublicKey().Compare(s.remoteKey) < 0 {
		after += time.Second
	}
	p.work.Go(func() { s.leave(after) })
}

// giveUp ends the attempts that meet the condition; nothing follows from it.
func (p *Peer) giveUp(which func(*attempt) bool) {
	p.attempts = slices.DeleteFunc(p.attempts, func(a *attempt) bool {
		gone := which(a)
		if gone {
			a.cancel(errSuperseded)
			if p.spare.held == a {
				p.spare.held = nil
				p.spare.failed(time.Now())
			}
		}
		return gone
	})
}

// withdraw tells the other side that it need not wait for an attempt.
func (p *Peer) withdraw(a *attempt) {
	switch {
	case a.answers != nil:
		p.node.refuse(refusalOf(a.answers), rejectBusy, "withdrawn")
	case a.offerer && !a.known.IsZero():
		p.node.refuse(refusal{to: p.id, key: p.Key(), ref: a.known, generation: a.order.generation}, rejectBusy, "withdrawn")
	}
}

// drop removes an attempt that has ended.
func (p *Peer) drop(a *attempt) {
	p.attempts = slices.DeleteFunc(p.attempts, func(x *attempt) bool { return x == a })
}

// attemptFailed decides what follows a failed attempt.
func (p *Peer) attemptFailed(a *attempt) {
	p.drop(a)
	if errors.Is(a.err, errSuperseded) {
		return
	}
	var r *rejectedError
	refused := errors.As(a.err, &r)
	if refused && r.code == rejectClosed && p.machine.met {
		p.lastErr = a.err
		p.shut(goodbyeClosed, a.err) // whatever became of the goodbye
		return
	}
	if a.standby() && p.machine.met {
		p.standbyFailed(a)
		return
	}
	away := errors.Is(a.err, ErrAbsent)
	if !away && !errors.Is(a.err, errYielded) {
		p.blame(a)
	}
	p.lastErr = a.err
	if !p.machine.met && a.answers == nil {
		p.miss(a.err)
	}
	if errors.Is(a.err, ErrNarrowPath) && !p.machine.met { // otherwise the step that follows tells
		p.tell(report{from: p.machine.state, to: p.machine.state, reason: p.machine.reason})
	}
	final := refused && r.final() || errors.Is(a.err, errNotLearned)
	if errors.Is(a.err, ErrReplaced) && final {
		p.led.markReplaced()
	}
	m := &p.machine
	switch {
	case !m.met && p.busy() && (final || !m.dialling):
		// Another attempt may do.
	case final && m.state != StateConnected && m.state != StateReplacing:
		p.shut(goodbyeClosed, a.err)
	case !m.met && !m.dialling:
		p.shut(goodbyeClosed, fmt.Errorf("%w: %w", errIncomingFailed, a.err))
	default:
		m.away = away
		p.do(m.failed(time.Now(), p.busy()))
	}
}

var (
	// errSuperseded ends attempts that a higher session has made pointless.
	errSuperseded = errors.New("given up for another session or attempt")
	// errAnswersAgain ends calls of Replace when the session in doubt is well.
	errAnswersAgain = errors.New("the session before answers again")
	// errPromotion is the cause of a standby session's context when its hello is not
	// answered.
	errPromotion = errors.New("the standby session did not answer")
	// errIncomingFailed ends a Peer that the other side began and nobody dialled.
	errIncomingFailed = errors.New("the other side's attempt failed")
	// errNotLearned ends an attempt whose key trust is to remember and cannot.
	errNotLearned = errors.New("the key cannot be remembered")
	// errAbandoned ends a Peer whose dialers have all given up.
	errAbandoned = errors.New("nobody waits for the dial any more")
)
