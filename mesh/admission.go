package mesh

import (
	"context"
	"errors"
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
	for _, p := range n.allPeers() {
		p.post(func() { p.absent(ref, server) })
	}
}

// admit is the one door for envelopes, whatever way they came. Each step is
// cheaper than the next, and nothing of the body is looked at before trust and
// signature are checked. A failure is charged to who delivered the envelope:
// junk that claims to be from an agent says nothing about that agent.
func (n *Node) admit(raw []byte, via, carrier string) {
	n.door.Lock()
	defer n.door.Unlock()
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
	now := n.now()
	if d := now.Sub(e.Time); d > freshness || d < -freshness {
		n.obs.security(n.ctx, witness.ReplayRejected, e.From, via)
		return
	}
	if n.ahead(e, now) {
		n.obs.misdelivered(n.ctx, via, "generation in the future")
		return
	}
	for _, memory := range []*replayMemory{n.replays, n.strangers} {
		switch memory.seen(e.Key, e.Nonce, e.Hash()) {
		case replayDuplicate:
			return
		case replayReused:
			n.obs.security(n.ctx, witness.ReplayRejected, e.From, via)
			return
		}
	}
	begins := e.Kind == signaling.Offer || e.Kind == signaling.Ask
	if !begins && n.lookup(e.From) == nil {
		return // of a negotiation that is over
	}
	if n.failures.full(time.Now(), via, e.Key) {
		n.obs.misdelivered(n.ctx, via, "too many bad signatures")
		return
	}
	ctx, cancel := context.WithTimeout(n.ctx, trustTimeout)
	defer cancel()
	verdict, trustErr := keys.Check(ctx, n.cfg.Trust, keys.Claim{ID: e.From, Key: e.Key, Time: now})
	trusted := trustErr == nil && verdict.Decision == keys.Yes
	learn := trustErr == nil && verdict.Decision == keys.Unknown && n.mayLearn(e)
	// An author who is not trusted gets an answer, and is told of, at a bounded
	// rate; beyond it not even a signature is checked for him.
	if !trusted && !learn && (!begins && e.Kind != signaling.Answer || !n.rejects.Allow()) {
		n.obs.security(n.ctx, witness.UnauthorizedConnectionAttempt, e.From, via)
		return
	}
	if err := e.Verify(); err != nil {
		n.failures.charge(time.Now(), via, e.Key)
		n.obs.signatureFailed(n.ctx, e.From, via)
		return
	}
	n.obs.signatureVerified(n.ctx)
	if !trusted && !learn {
		// Not remembered: keys cost a stranger nothing, and beyond the limit of
		// the memory those of honest agents would be refused. To play an offer
		// again gets no more than another refusal.
		n.obs.security(n.ctx, witness.UnauthorizedConnectionAttempt, e.From, via)
		if e.Kind == signaling.Answer {
			// Somebody else may still answer: whoever dialled only learns of it.
			if p := n.lookup(e.From); p != nil {
				p.distrust(checkTrust(ctx, n.cfg.Trust, keys.Claim{ID: e.From, Key: e.Key, Time: now}), via)
			}
			return
		}
		n.reject(refusalOf(e), rejectUntrusted, verdict.Decision.String()+" to this agent's trust policy")
		return
	}
	memory := n.replays
	if learn {
		memory = n.strangers
	}
	switch v := memory.remember(now, e.Key, e.Nonce, e.Hash(), e.Time); v {
	case replayNew:
	case replayDuplicate:
		return
	default:
		n.obs.security(n.ctx, witness.ReplayRejected, e.From, via)
		return
	}
	n.deliver(verified{e, learn, via, carrier})
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

// deliver hands an envelope to its Peer; an offer may make one, and so may an
// ask, from an agent that had one with a former process of this agent.
func (n *Node) deliver(v verified) {
	begins := v.Kind == signaling.Offer || v.Kind == signaling.Ask
	n.mu.Lock()
	m := n.peers[v.From]
	if m == nil && begins && !n.closed {
		if len(n.peers) >= maxPeers {
			n.makeRoom()
		}
		if len(n.peers) >= maxPeers || n.incoming >= maxIncoming || len(n.accepted) >= acceptBacklog {
			n.mu.Unlock()
			n.refuse(refusalOf(v.Sealed), rejectBusy, "too many connections")
			return
		}
		m = n.join(v.From, false)
	}
	if m == nil || !begins {
		n.mu.Unlock()
		if m != nil {
			m.peer.post(func() { m.peer.envelope(v) })
		}
		return
	}
	full := len(m.offers) >= maxAttempts
	if !full {
		m.offers = append(m.offers, v)
	}
	n.mu.Unlock()
	if full {
		n.refuse(refusalOf(v.Sealed), rejectBusy, "too many offers")
		return
	}
	m.peer.post(m.peer.takeOffers)
}

// refusal is of an offer or an ask, or of an offer of this agent's own that it
// takes back.
type refusal struct {
	to         string
	key        keys.PublicKey
	ref        signaling.Hash
	generation uint64
}

func refusalOf(e *signaling.Sealed) refusal { return refusal{e.From, e.Key, e.Hash(), e.Generation} }

// refuse is reject at a bounded rate.
func (n *Node) refuse(r refusal, code rejectCode, text string) {
	if n.rejects.Allow() {
		n.reject(r, code, text)
	}
}

// reject sends a signed refusal. Its callers bound the rate, or know the other
// side.
func (n *Node) reject(r refusal, code rejectCode, text string) {
	env, err := signaling.Seal(n.cfg.Identity, signaling.Envelope{
		Kind: signaling.Reject, Mesh: n.cfg.Mesh, To: r.to, ToKey: r.key, Instance: n.instance,
		Generation: r.generation, Time: n.now(), Ref: r.ref,
		Body: (&rejectBody{Code: code, Text: text}).encode(),
	})
	if err != nil {
		n.log.Error("sign reject", "error", err)
		return
	}
	if p := n.lookup(r.to); p != nil {
		if p.Key() == r.key {
			if taken, sound := p.carry(env.Bytes()); taken && sound {
				return
			}
		}
	}
	// The dispatcher does not wait for a server that takes nothing: it would
	// keep what comes by the others waiting.
	n.work.Go(func() {
		ctx, cancel := context.WithTimeout(n.ctx, sendWait)
		defer cancel()
		if _, err := n.signaler.Send(ctx, env.Bytes(), 0); err != nil {
			n.log.Debug("reject not sent", "error", err)
		}
	})
}
