package mesh

import (
	"fmt"
	"slices"
	"time"

	"github.com/infrafabric/agentmesh/signaling"
)

// What the Peer's loop does with what the other side wants.

// offered decides about an offer of the other side.
func (p *Peer) offered(v verified) {
	p.lastGen = max(p.lastGen, v.Generation)
	o := order{v.Generation, v.Key}
	if p.led.isReplaced() {
		p.unwanted(ErrReplaced) // a newer process with this identity will answer
		return
	}
	if err := p.led.admits(v.Instance); err != nil {
		p.node.refuse(refusalOf(v.Sealed), rejectReplaced, "")
		p.unwanted(err)
		return
	}
	if n := len(p.sessions); n > 0 {
		top := p.sessions[n-1]
		if top.bind.remoteInst == v.Instance && o.compare(top.order) <= 0 {
			return // older than what is in use
		}
	}
	if !p.theirs.Allow() {
		p.node.refuse(refusalOf(v.Sealed), rejectBusy, "too many negotiations")
		return // what is under way goes on: nothing else would follow from it
	}
	d, malformed := decodeDescription(v.Body)
	if malformed == nil {
		p.heed(d.Avoid)
	}
	spare := malformed == nil && d.Reason == ReasonStandby
	direct := malformed == nil && d.Reason == ReasonDirectPath
	// The author has begun anew: what it offered before, or was asked for, is
	// pointless. A standby takes the place of another one only, and a try of a direct
	// path, mostly in vain, not that of a standby, of whose end the author hears.
	p.giveUp(func(a *attempt) bool {
		gone := !a.offerer && !a.opened.Load() && a.below(o) && (!spare || a.standby()) && !(direct && a.standby()) &&
			(a.asks || a.answers.Instance == v.Instance && a.answers.Key == v.Key)
		if gone && a.standby() {
			p.withdraw(a)
		}
		return gone
	})
	if len(p.attempts) >= maxAttempts {
		p.node.refuse(refusalOf(v.Sealed), rejectBusy, "too many negotiations")
		return
	}
	if p.offering() && len(p.sessions) == 0 && p.node.cfg.Identity.PublicKey().Compare(v.Key) > 0 {
		// Glare: both sides offered, and the greater key's offer wins. The
		// other side answers it, unless it never arrives.
		p.deferred = &deferredOffer{v: v, at: time.Now().Add(glareWait)}
		return
	}
	p.startAnswer(v, d, malformed)
}

// asked takes the other side's wish for an offer above the generation that it
// names. What is there or under way may be one already.
func (p *Peer) asked(v verified) {
	body, err := decodeAsk(v.Body)
	if err != nil {
		p.node.log.Debug("bad ask", "peer", p.id, "error", err)
		p.unwanted(err)
		return
	}
	p.lastGen = max(p.lastGen, v.Generation)
	if p.led.isReplaced() {
		p.unwanted(ErrReplaced)
		return
	}
	if err := p.led.admits(v.Instance); err != nil {
		p.node.refuse(refusalOf(v.Sealed), rejectReplaced, "")
		p.unwanted(err)
		return
	}
	if top := p.top(); top != nil && top.bind.remoteInst == v.Instance && top.order.generation > v.Generation {
		return
	}
	for _, a := range p.attempts {
		if a.offerer && !a.standby() && !a.late && (a.why != ReasonDirectPath || body.Reason == ReasonDirectPath) &&
			a.order.generation > v.Generation {
			a.repeat()
			return
		}
	}
	if !p.theirs.Allow() {
		p.node.refuse(refusalOf(v.Sealed), rejectBusy, "too many negotiations")
		return
	}
	p.heed(body.Avoid)
	switch body.Reason {
	case ReasonStandby, ReasonAnswers, ReasonFailed, ReasonEnded:
		body.Reason = ReasonRequested // nobody wishes that
	}
	if body.Reason == ReasonDirectPath && p.node.cfg.Paths.RelayOnly {
		p.node.refuse(refusalOf(v.Sealed), rejectBusy, errNoDirectPath.Error())
		return
	}
	if !p.machine.met {
		// It had this agent as a Peer, which this process knows nothing of: an
		// offer answers as it would a dial.
		// What is under way is no answer if the other side knows of it.
		if len(p.attempts) < maxAttempts &&
			!slices.ContainsFunc(p.attempts, func(a *attempt) bool { return a.order.generation > v.Generation }) {
			p.startOffer(body.Reason, nil)
		}
		return
	}
	// The other side has no use for what is under way. What has opened may be a session
	// there already, so it stays, and the one that is asked for comes above it.
	p.giveUp(func(a *attempt) bool { return a.offerer && !a.opened.Load() })
	p.do(p.machine.wants(body.Reason, p.busy()))
	above := func(a *attempt) bool {
		return a.offerer && !a.standby() && !a.late && a.order.generation > v.Generation
	}
	if p.node.cfg.Identity.PublicKey().Compare(v.Key) > 0 && !slices.ContainsFunc(p.attempts, above) {
		p.startOffer(body.Reason, nil) // asked for by name, whatever the machine waits for
	}
}

// unwanted ends a Peer that an offer made, which is not answered.
func (p *Peer) unwanted(cause error) {
	if !p.machine.met && !p.machine.dialling && len(p.attempts) == 0 {
		p.shut(goodbyeClosed, fmt.Errorf("%w: %w", errIncomingFailed, cause))
	}
}

// answerDeferred answers the losing offer of a glare after all.
func (p *Peer) answerDeferred() {
	d := p.deferred
	p.deferred = nil
	if d != nil && len(p.sessions) == 0 && len(p.attempts) < maxAttempts {
		body, malformed := decodeDescription(d.v.Body)
		p.startAnswer(d.v, body, malformed)
	}
}

// repeat sends the descriptions under way again: the other side has come to a
// signaling server.
func (p *Peer) repeat() {
	for _, a := range p.attempts {
		a.repeat()
	}
}

// absent notes that a signaling server does not know the other side. When none does that
// this agent is connected to, and it was asked for a key, the name may be there with
// another one: an offer to the name alone finds out, and whoever dials hears of it.
// Otherwise there is nobody to wait for an answer of; a server that it comes to tells.
func (p *Peer) absent(ref signaling.Hash, server string) {
	i := slices.IndexFunc(p.attempts, func(a *attempt) bool { return a.known == ref })
	if i < 0 {
		return
	}
	a := p.attempts[i]
	p.note(fmt.Sprintf("%s is not registered at %s", p.id, server))
	if !slices.Contains(a.absent, server) {
		a.absent = append(a.absent, server)
	}
	m := &p.machine
	switch {
	case !p.node.absentEverywhere(a.absent):
		a.repeat() // by the next one
	case a.opened.Load() || a.standby() || m.state == StateConnected || m.state == StateReplacing:
	case a.keyed:
		p.keyless = true
		p.giveUp(func(x *attempt) bool { return x == a })
		if a.asks {
			p.startAsk(a.why)
		} else {
			p.startOffer(a.why, nil)
		}
	case m.dialling && !m.met && a.offerer && (time.Since(a.started) >= absentAfter || !p.node.hasNeighbours()):
		a.cancel(fmt.Errorf("%s: %w", p.id, ErrAbsent))
	}
}
