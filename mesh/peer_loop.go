package mesh

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/infrafabric/agentmesh/signaling"
	"github.com/infrafabric/agentmesh/witness"
)

// deferredOffer is the other side's offer in a glare that this side's wins.
type deferredOffer struct {
	v  verified
	at time.Time // when to answer it after all
}

// run is the Peer's loop: it owns the state, and everything else reaches it
// as a task. It never blocks on the network or on user code.
func (p *Peer) run() {
	echo := time.NewTicker(echoInterval)
	defer echo.Stop()
	glare := time.NewTimer(time.Hour)
	defer glare.Stop()
	for p.ctx.Err() == nil {
		if p.deferred != nil {
			glare.Reset(time.Until(p.deferred.at))
		}
		select {
		case f := <-p.tasks:
			f()
		case <-echo.C:
			p.tick()
		case <-glare.C:
			p.answerDeferred()
		case <-p.ctx.Done():
		}
	}
	close(p.stopped)
	p.teardown()
}

// teardown says goodbye, ends what the Peer started and waits for it.
func (p *Peer) teardown() {
	cause := context.Cause(p.ctx)
	p.setState(stateClosed)
	p.lost = append(p.lost, p.led.end(cause)...)
	text := ""
	if p.replyCode == goodbyeProtocol {
		text = cause.Error()
	}
	for _, s := range p.sessions {
		p.work.Go(func() { s.goodbye(p.replyCode, text) })
	}
	if p.deferred != nil {
		p.node.refuse(p.deferred.v.Sealed, rejectBusy, "closing")
	}
	p.work.Wait()
	p.node.obs.disconnected(context.Background(), p.id, cause, len(p.lost))
	p.node.forget(p)
	close(p.ended)
}

func (p *Peer) setState(s peerState) {
	if p.state != s {
		p.node.obs.state(context.Background(), p.id, p.state, s)
		p.state = s
	}
}

// dial makes sure that an offer is under way or a session exists.
func (p *Peer) dial() {
	if len(p.sessions) > 0 {
		return
	}
	p.dialling = true
	if slices.ContainsFunc(p.attempts, func(a *attempt) bool { return a.offerer }) {
		return
	}
	p.startOffer()
}

// startOffer begins an attempt with an offer of our own.
func (p *Peer) startOffer() {
	p.lastGen = max(p.lastGen+1, uint64(time.Now().UnixMilli()))
	a := newAttempt(p, order{p.lastGen, p.node.cfg.Identity.PublicKey()}, true)
	keyless := p.keyless
	p.keyless = false
	p.begin(a, func(ctx context.Context) (*signaling.Sealed, error) {
		if !keyless {
			a.key = p.node.keyOf(ctx, p.id)
		}
		env, err := a.offer(ctx)
		if err != nil {
			return nil, err
		}
		p.node.obs.sdpEvent(ctx, witness.WebRTCOfferCreated, p.id, a.ref.String())
		return env, nil
	})
}

// startAnswer begins an attempt that answers a verified offer.
func (p *Peer) startAnswer(offer verified) {
	a := newAttempt(p, order{offer.Generation, offer.Key}, false)
	a.key, a.ref, a.known, a.learn = offer.Key, offer.Hash(), offer.Hash(), offer.learn
	a.answers = offer.Sealed
	p.begin(a, func(ctx context.Context) (*signaling.Sealed, error) {
		env, err := a.answer(ctx, offer.Sealed)
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
	p.node.obs.attempted(p.ctx)
	ctx, cancel := context.WithCancelCause(p.ctx)
	a.cancel = cancel
	p.work.Go(func() {
		defer cancel(nil)
		ctx, stop := context.WithTimeoutCause(ctx, attemptTimeout, errAttemptTimeout)
		defer stop()
		s, err := p.negotiate(ctx, a, describe)
		p.node.obs.attemptEnded(p.node.ctx, p.id, err, time.Since(a.started))
		if err != nil {
			a.err = err
			if s == nil {
				a.close()
			} else {
				p.decline(s, err)
			}
			if a.answers != nil && p.ctx.Err() != nil && !errors.Is(err, errSuperseded) {
				// The Peer has closed under its offer. The other side need not
				// wait for an answer until its time is over.
				p.node.refuse(a.answers, rejectBusy, "closing")
			}
			if !p.post(func() { p.attemptFailed(a) }) && !errors.Is(err, errSuperseded) {
				p.note(a.story())
			}
			return
		}
		stop()
		p.serve(s)
	})
}

// negotiate takes an attempt to an attached session.
func (p *Peer) negotiate(ctx context.Context, a *attempt, describe func(context.Context) (*signaling.Sealed, error)) (*session, error) {
	env, err := describe(ctx)
	if err != nil {
		return nil, err
	}
	if !p.post(func() { a.known, a.keyed = a.ref, a.offerer && !env.ToKey.IsZero() }) {
		return nil, context.Cause(p.ctx)
	}
	s, h, err := a.establish(ctx, env)
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

// decline ends a session whose hello was verified and which the Peer did not
// take in; the other side learns why.
func (p *Peer) decline(s *session, err error) {
	switch {
	case errors.Is(err, ErrReplaced):
		s.goodbye(goodbyeReplaced, "")
	case p.ctx.Err() != nil:
		s.goodbye(p.replyCode, "")
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
	unknown, displaced, err := p.led.attach(s, h)
	if err != nil {
		p.lastErr = err
		return err
	}
	p.node.obs.established(p.ctx, s)
	if len(unknown) > 0 {
		p.lost = append(p.lost, unknown...)
		p.node.obs.lost(p.ctx, p.id, len(unknown))
	}
	old := p.sessions
	if displaced {
		// The older process learns why; its sessions carry nothing any more.
		for _, o := range old {
			p.work.Go(func() { o.goodbye(goodbyeReplaced, "") })
		}
		old = nil
	}
	at := len(old)
	for at > 0 && s.order.compare(old[at-1].order) < 0 {
		at--
	}
	p.sessions = slices.Insert(slices.Clone(old), at, s)
	top := p.sessions[len(p.sessions)-1]
	p.mu.Lock()
	p.key = top.remoteKey
	p.mu.Unlock()
	for _, o := range p.sessions[:len(p.sessions)-1] {
		p.retire(o, min(time.Duration(o.rtt.Load()), oldSessionMost)+oldSessionGrace)
	}
	for len(p.sessions) > maxSessions {
		lowest := p.sessions[0]
		p.work.Go(func() { lowest.conn.Close() })
		p.sessions = p.sessions[1:]
	}
	// Attempts for a session that would rank lower are pointless; a higher
	// one may be what the other side already uses.
	for _, x := range p.attempts {
		if x.order.compare(top.order) < 0 {
			x.cancel(errSuperseded)
		}
	}
	p.deferred, p.dialling = nil, false
	if p.state == stateConnecting {
		p.setState(stateConnected)
		p.node.connected(p)
		close(p.up)
	}
	s.poke()
	if err := s.ping(); err != nil {
		p.node.log.Debug("echo", "peer", p.id, "error", err) // its reader will see
	}
	return nil
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
	p.lastErr = a.err
	p.note(a.story())
	var r *rejectedError
	final := errors.As(a.err, &r) && r.final()
	if errors.Is(a.err, ErrReplaced) && final {
		p.led.markReplaced()
	}
	switch {
	case len(p.sessions) > 0 || len(p.attempts) > 0 && (final || !p.dialling):
	case final:
		p.shut(goodbyeClosed, a.err)
	case p.dialling:
		// Also while an answer is under way: its offerer may have given up.
		time.AfterFunc(redialPause, func() { p.post(p.dial) })
	case p.state == stateConnecting:
		p.shut(goodbyeClosed, fmt.Errorf("%w: %w", errIncomingFailed, a.err))
	default:
		p.shut(goodbyeClosed, fmt.Errorf("%w: %w", ErrConnectionLost, a.err))
	}
}

// sessionEnded decides what follows the end of a session.
func (p *Peer) sessionEnded(s *session, err error) {
	p.sessions = slices.DeleteFunc(p.sessions, func(x *session) bool { return x == s })
	p.led.detach(s)
	p.lastErr = err
	dropped := errors.Is(err, ErrConnectionLost) && !s.retired
	p.node.obs.sessionEnded(p.ctx, p.id, err, dropped)

	current := p.led.current(s)
	var bye *goodbyeError
	switch {
	case current != nil:
		return // of an instance that was displaced: goodbye closes it
	case errors.As(err, &bye) && bye.code == goodbyeClosed && s.retired && len(p.sessions) > 0:
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
	case !errors.Is(err, ErrConnectionLost):
		text := err.Error()
		p.work.Go(func() { s.goodbye(goodbyeProtocol, text) })
		if len(p.sessions) == 0 {
			p.shut(goodbyeProtocol, err)
		}
		return
	case len(p.sessions) == 0 && len(p.attempts) == 0:
		p.shut(goodbyeClosed, err)
	}
	p.work.Go(func() { s.conn.Close() })
}

// tick sends echoes and gives up sessions that have been silent too long.
func (p *Peer) tick() {
	for _, s := range p.sessions {
		if s.silence() > silenceLimit {
			p.work.Go(func() { s.conn.Close() })
			continue
		}
		if err := s.ping(); err != nil {
			p.node.log.Debug("echo", "peer", p.id, "error", err)
		}
	}
}

// takeOffers takes the offers that have come.
func (p *Peer) takeOffers() {
	for _, v := range p.node.takeOffers(p) {
		p.offered(v)
	}
}

// envelope takes a verified, fresh envelope from the other agent that is not
// an offer.
func (p *Peer) envelope(v verified) {
	for _, a := range p.attempts {
		if a.known == v.Ref {
			a.deliver(v)
			return
		}
	}
	p.node.log.Debug("envelope of no negotiation", "peer", p.id, "kind", v.Kind.String())
}

// offered decides about an offer of the other side.
func (p *Peer) offered(v verified) {
	p.lastGen = max(p.lastGen, v.Generation)
	o := order{v.Generation, v.Key}
	if p.led.isReplaced() {
		p.unwanted(ErrReplaced) // a newer process with this identity will answer
		return
	}
	if err := p.led.admits(v.Instance); err != nil {
		p.node.refuse(v.Sealed, rejectReplaced, "")
		p.unwanted(err)
		return
	}
	if n := len(p.sessions); n > 0 {
		top := p.sessions[n-1]
		if top.bind.remoteInst == v.Instance && o.compare(top.order) <= 0 {
			return // older than what is in use
		}
	}
	if len(p.attempts) >= maxAttempts {
		p.node.refuse(v.Sealed, rejectBusy, "too many negotiations")
		return
	}
	own := slices.ContainsFunc(p.attempts, func(a *attempt) bool { return a.offerer })
	if own && len(p.sessions) == 0 && p.node.cfg.Identity.PublicKey().Compare(v.Key) > 0 {
		// Glare: both sides offered, and the greater key's offer wins. The
		// other side answers it, unless it never arrives.
		p.deferred = &deferredOffer{v: v, at: time.Now().Add(glareWait)}
		return
	}
	p.startAnswer(v)
}

// unwanted ends a Peer that an offer made, which is not answered.
func (p *Peer) unwanted(cause error) {
	if p.state == stateConnecting && !p.dialling && len(p.attempts) == 0 {
		p.shut(goodbyeClosed, fmt.Errorf("%w: %w", errIncomingFailed, cause))
	}
}

// answerDeferred answers the losing offer of a glare after all.
func (p *Peer) answerDeferred() {
	d := p.deferred
	p.deferred = nil
	if d != nil && len(p.sessions) == 0 && len(p.attempts) < maxAttempts {
		p.startAnswer(d.v)
	}
}

// repeat sends the descriptions under way again: the other side has come to a
// signaling server.
func (p *Peer) repeat() {
	for _, a := range p.attempts {
		a.repeat()
	}
}

// absent notes that a signaling server does not know the other side. If it was
// asked for a key, the name may be there with another one: an offer to the name
// alone finds out, and whoever dials hears of it.
func (p *Peer) absent(ref signaling.Hash, server string) {
	for _, a := range p.attempts {
		if a.known != ref {
			continue
		}
		p.note(fmt.Sprintf("%s is not registered at %s", p.id, server))
		if a.keyed && len(p.sessions) == 0 {
			p.keyless = true
			a.cancel(errSuperseded)
			p.startOffer()
		}
		return
	}
}

var (
	// errSuperseded ends attempts that a higher session has made pointless.
	errSuperseded = errors.New("another session was quicker")
	// errIncomingFailed ends a Peer that the other side began and nobody dialled.
	errIncomingFailed = errors.New("the other side's attempt failed")
	// errAbandoned ends a Peer whose dialers have all given up.
	errAbandoned = errors.New("nobody waits for the dial any more")
)
