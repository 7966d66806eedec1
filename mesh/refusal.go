package mesh

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
	"github.com/infrafabric/agentmesh/witness"
)

// Who will not go on says so, signed, at a bounded rate.

// refusal is of an offer or an ask, or of an offer of this agent's own that it
// takes back.
type refusal struct {
	to         string
	key        keys.PublicKey
	ref        signaling.Hash
	generation uint64
	body       rejectBody
}

func refusalOf(e *signaling.Sealed) refusal {
	return refusal{to: e.From, key: e.Key, ref: e.Hash(), generation: e.Generation}
}

// refuse hands a refusal to the goroutine that signs and sends them, which may take
// its time. It does not block; what exceeds the rate is dropped.
func (n *Node) refuse(r refusal, code rejectCode, text string) {
	r.body.Code, r.body.Text = code, printable(text)
	if len(r.body.Text) > maxReason {
		r.body.Text = r.body.Text[:maxReason]
	}
	if !n.rejects.Allow() {
		return
	}
	select {
	case n.refusals <- r:
	default:
		n.log.Debug("too many refusals wait", "peer", r.to, "code", code)
	}
}

// refuseClock tells a trusted author that the two clocks are too far apart. Which of
// them is wrong nobody here can say.
func (n *Node) refuseClock(a arrival) {
	now := n.now()
	r := refusalOf(a.Sealed)
	r.body.Theirs, r.body.Ours = wireMillis(a.Time), wireMillis(now)
	err := &ClockError{Peer: a.From, Theirs: a.Time.UTC(), Ours: now.UTC()}
	if n.verdicts.tellsOf(author{a.From, a.Key}) {
		n.log.Warn("an offer is too old or too new, or the clocks are too far apart", "peer", a.From, "error", err)
		if a.Time.Before(now) { // or somebody plays an old one again: that cannot be told apart
			n.obs.security(n.ctx, witness.ReplayRejected, a.From, a.via)
		}
	}
	n.refuse(r, rejectClock, "its time is too far from this agent's clock")
}

func wireMillis(t time.Time) uint64 { return uint64(max(t.UnixMilli(), 0)) }

// sendRefusals signs and sends what refuse was handed, until the Node closes.
func (n *Node) sendRefusals() {
	for {
		select {
		case r := <-n.refusals:
			n.reject(r)
		case <-n.ctx.Done():
			return
		}
	}
}

// reject signs a refusal and sends it.
func (n *Node) reject(r refusal) {
	env, err := signaling.Seal(n.cfg.Identity, signaling.Envelope{
		Kind: signaling.Reject, Mesh: n.cfg.Mesh, To: r.to, ToKey: r.key, Instance: n.instance,
		Generation: r.generation, Time: n.now(), Ref: r.ref, Body: r.body.encode(),
	})
	if err != nil {
		n.log.Error("sign reject", "error", err)
		return
	}
	if p := n.lookup(r.to); p != nil && p.Key() == r.key {
		if taken, sound := p.carry(env.Bytes()); taken && sound {
			return
		}
	}
	ctx, cancel := context.WithTimeout(n.ctx, sendWait)
	defer cancel()
	if _, err := n.signaler.Send(ctx, env.Bytes(), 0); err != nil {
		n.log.Debug("reject not sent", "error", err)
	}
}

// expect notes an envelope of a Peer's that may be refused: a refusal is believed
// whatever its time, because it names an envelope that nobody can have known before.
func (n *Node) expect(ref signaling.Hash, p *Peer) {
	n.door.Lock()
	defer n.door.Unlock()
	n.awaited[ref] = p
}

// unexpect ends what expect began.
func (n *Node) unexpect(ref signaling.Hash) {
	n.door.Lock()
	defer n.door.Unlock()
	delete(n.awaited, ref)
}

// unable says to the other side, in words that tell nothing of this one's addresses,
// why its offer will not be answered; "" when that is nothing to tell.
func unable(err error) (rejectCode, string) {
	switch {
	case unwilling(err):
		return rejectBusy, err.Error()
	case errors.Is(err, ErrProtocol):
		return rejectMalformed, err.Error()
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return rejectUnable, "no file descriptors are left there"
	case errors.Is(err, syscall.ENOBUFS), errors.Is(err, syscall.ENOMEM):
		return rejectUnable, "no memory for sockets is left there"
	}
	return rejectUnable, "it cannot make a connection; its log says why"
}
