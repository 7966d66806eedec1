package mesh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
	"github.com/infrafabric/agentmesh/witness"
)

// verified is an envelope that has passed admission.
type verified struct {
	*signaling.Sealed
	// learn is set when trust does not know the key, this side dialled, and
	// the policy learns.
	learn bool
	// via is the server or peer it came by, carrier the neighbour that passed it
	// on, "" when none did.
	via, carrier string
}

// dispatch takes what comes from signaling until the Node closes.
func (n *Node) dispatch() {
	for {
		ev, err := n.signaler.Receive(n.ctx)
		if err != nil {
			if n.ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
				n.log.Error("signaling ended", "error", err)
			}
			return
		}
		switch ev.Kind {
		case signaling.EventEnvelope:
			n.admit(ev.Envelope, ev.Server, "")
		case signaling.EventJoined:
			if p := n.lookup(ev.Agent); p != nil {
				p.post(p.hinted)
			}
		case signaling.EventUp:
			for _, p := range n.allPeers() {
				p.post(p.hinted)
			}
		case signaling.EventNotice:
			if ev.Notice.Code == signaling.CodeNotRegistered {
				n.absent(ev.Notice.Ref, ev.Server)
			}
		}
	}
}

// absent passes on that a server does not know the recipient of an envelope.
func (n *Node) absent(ref signaling.Hash, server string) {
	n.door.Lock()
	p := n.awaited[ref]
	n.door.Unlock()
	if p != nil {
		p.post(func() { p.absent(ref, server) })
	}
}

// arrival is an envelope on its way through admission.
type arrival struct {
	*signaling.Sealed
	via, carrier string // as in verified
	// stale says that its time is too far from this agent's clock: the author hears
	// of it, if he is trusted.
	stale bool
}

// begins reports whether an envelope wants a negotiation.
func begins(e *signaling.Sealed) bool { return e.Kind == signaling.Offer || e.Kind == signaling.Ask }

// admit is the one door for envelopes, whatever way they came: form, address, time,
// repetition and signature are looked at here, then it is the turn of judge. A failure is charged to
// who delivered the envelope: junk that claims to be from an agent says nothing about
// that agent. It does not block, and nothing that does is called by it.
func (n *Node) admit(raw []byte, via, carrier string) {
	e, err := signaling.Parse(raw)
	if err != nil {
		n.obs.misdelivered(n.ctx, via, err.Error())
		return
	}
	if e.Mesh != n.cfg.Mesh || e.To != n.cfg.Identity.ID() || e.From == e.To ||
		(!e.ToKey.IsZero() && e.ToKey != n.cfg.Identity.PublicKey()) {
		n.obs.misdelivered(n.ctx, via, "for somebody else")
		return
	}
	if e.Key == n.cfg.Identity.PublicKey() {
		// Which of the two offers win could not be said.
		n.obs.misdelivered(n.ctx, via, "this agent's own key under another name")
		return
	}
	now := n.now()
	a := arrival{Sealed: e, via: via, carrier: carrier}
	if d := now.Sub(e.Time); d > freshness || d < -freshness {
		a.stale = true
	}
	n.door.Lock()
	verdict := n.newcomer(&a, now)
	n.door.Unlock()
	switch verdict {
	case "":
	case "replayed":
		n.obs.security(n.ctx, witness.ReplayRejected, e.From, via)
		return
	default:
		if verdict != "known" {
			n.obs.misdelivered(n.ctx, via, verdict)
		}
		return
	}
	familiar := n.familiar(e)
	if !familiar {
		past, asked := n.verdicts.get(author{e.From, e.Key}, now)
		switch {
		case asked && past.Decision != keys.Yes && n.rejects.Tokens() < 1 && !n.mayLearn(e):
			// An author who is not trusted gets an answer at a bounded rate; beyond it not
			// even a signature is checked for him.
			n.obs.security(n.ctx, witness.UnauthorizedConnectionAttempt, e.From, via)
			return
		case !asked && !n.newKeys.Allow():
			n.obs.misdelivered(n.ctx, via, "too many envelopes under new keys")
			return
		}
	}
	// Before it may stand in its author's line: junk would keep him out of it.
	if err := e.Verify(); err != nil {
		n.door.Lock()
		n.failures.charge(time.Now(), via, e.Key)
		n.door.Unlock()
		n.obs.signatureFailed(n.ctx, e.From, via)
		return
	}
	n.obs.signatureVerified(n.ctx)
	if !n.gate.enter(a, familiar, n.work.Go) {
		n.obs.misdelivered(n.ctx, via, "too many envelopes wait")
	}
}

// newcomer says what is wrong with an envelope that nobody has verified yet: nothing,
// "known", "replayed", or what to tell. n.door is held.
func (n *Node) newcomer(a *arrival, now time.Time) string {
	for _, memory := range []*replayMemory{n.replays, n.strangers} {
		switch memory.seen(a.Key, a.Nonce, a.Hash()) {
		case replayDuplicate:
			if a.stale {
				return "replayed"
			}
			return "known"
		case replayReused:
			return "replayed"
		}
	}
	switch {
	case a.stale && a.Kind == signaling.Reject && n.awaited[a.Ref] != nil:
		// It answers an envelope of this agent, which nobody can have known before.
	case a.stale && (!begins(a.Sealed) || n.replays.knows(a.Key) || !n.stales.Allow()):
		return "replayed" // its author's clock is right: something fresh has come of him
	case !a.stale && n.ahead(a.Sealed, now):
		return "generation in the future"
	}
	if !begins(a.Sealed) && n.lookup(a.From) == nil && !n.gate.holds(a.From) {
		return "known" // of a negotiation that is over
	}
	if n.failures.full(time.Now(), a.via, a.Key) {
		return "too many bad signatures"
	}
	return ""
}

// familiar reports whether an author goes in by the door for friends: trust has lately
// said yes to his key, or there is a Peer with it.
func (n *Node) familiar(e *signaling.Sealed) bool {
	if v, ok := n.verdicts.get(author{e.From, e.Key}, n.now()); ok && v.Decision == keys.Yes {
		return true
	}
	p := n.lookup(e.From)
	return p != nil && p.Key() == e.Key
}

// judge asks trust about the key of a verified envelope, of whose body nothing was looked
// at before. It is called for one envelope of an author at a time, in order.
func (n *Node) judge(a arrival) {
	e := a.Sealed
	who := author{e.From, e.Key}
	verdict, asked := n.verdicts.get(who, n.now())
	asked = asked && verdict.Decision != keys.Yes
	var trustErr error
	if !asked {
		if verdict, trustErr = n.ask(who); trustErr == nil {
			n.verdicts.put(who, verdict)
		}
	}
	trusted := trustErr == nil && verdict.Decision == keys.Yes
	learn := trustErr == nil && verdict.Decision == keys.Unknown && n.mayLearn(e)
	switch {
	case !trusted && !learn:
		n.turnAway(a, verdict, trustErr)
	case a.stale && begins(e):
		n.refuseClock(a)
	case n.remembers(a, learn):
		if !n.deliver(verified{e, learn, a.via, a.carrier}) {
			n.door.Lock()
			n.memory(learn).forget(e.Key, e.Nonce) // its repetition may find room
			n.door.Unlock()
		}
	}
}

// ask asks the trust policy about a key. It may take its time.
func (n *Node) ask(who author) (keys.Verdict, error) {
	ctx, cancel := context.WithTimeout(n.ctx, trustTimeout)
	defer cancel()
	return keys.Check(ctx, n.cfg.Trust, keys.Claim{ID: who.id, Key: who.key, Time: n.now()})
}

// turnAway deals with a verified envelope whose author is not trusted. It is told of once,
// and not remembered otherwise: keys cost a stranger nothing, and beyond the limit of the memory those of
// honest agents would be refused. To play an offer again gets no more than another
// refusal.
func (n *Node) turnAway(a arrival, verdict keys.Verdict, trustErr error) {
	follows := !begins(a.Sealed) && n.lookup(a.From) == nil // an offer that has been turned away
	if !follows && n.verdicts.turnedAway(a.Hash()) {
		n.obs.security(n.ctx, witness.UnauthorizedConnectionAttempt, a.From, a.via)
	}
	switch {
	case a.Kind == signaling.Answer:
		// Somebody else may still answer: whoever dialled only learns of it.
		if p := n.lookup(a.From); p != nil {
			p.distrust(untrusted(keys.Claim{ID: a.From, Key: a.Key}, verdict, trustErr), a.via)
		}
	case begins(a.Sealed):
		says := verdict.Decision.String()
		if trustErr != nil {
			n.log.Warn("the trust policy gave no answer", "peer", a.From, "key", a.Key.Fingerprint(), "error", trustErr)
		}
		n.refuse(refusalOf(a.Sealed), rejectUntrusted, fmt.Sprintf("%s to this agent's trust policy, key %s", says, a.Key.Fingerprint()))
	}
}

// memory is that of envelopes of trusted keys, or of such as may be learned.
func (n *Node) memory(learn bool) *replayMemory {
	if learn {
		return n.strangers
	}
	return n.replays
}

// remembers notes a verified envelope and reports whether it is new.
func (n *Node) remembers(a arrival, learn bool) bool {
	if a.stale {
		return true // a refusal that was waited for
	}
	n.door.Lock()
	v := n.memory(learn).remember(n.now(), a.Key, a.Nonce, a.Hash(), a.Time)
	n.door.Unlock()
	if v != replayNew && v != replayDuplicate {
		n.obs.security(n.ctx, witness.ReplayRejected, a.From, a.via)
	}
	return v == replayNew
}

// mayLearn reports whether a key that trust does not know may be learned: only
// of an agent that was dialled from here, and only by a policy that learns.
func (n *Node) mayLearn(e *signaling.Sealed) bool {
	if !keys.Learns(n.cfg.Trust) {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	m := n.peers[e.From]
	return m != nil && m.dialled
}
