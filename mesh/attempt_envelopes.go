package mesh

import (
	"context"
	"fmt"
	"time"

	"github.com/infrafabric/agentmesh/signaling"
	"github.com/infrafabric/agentmesh/witness"
)

// The envelopes of an attempt: how they leave, and leave again.

// announce tells the loop by which hash the attempt can be heard of, before its
// envelope leaves.
func (a *attempt) announce(env *signaling.Sealed) error {
	p := a.peer
	p.node.expect(a.ref, p)
	keyed := (a.offerer || a.asks) && !env.ToKey.IsZero()
	if !p.post(func() { a.known, a.keyed = a.ref, keyed }) {
		return context.Cause(p.ctx)
	}
	return nil
}

// ask asks for an offer, by every route and again and again, until one has come
// and ends ctx, or time is over. It returns why it ended.
func (a *attempt) ask(ctx context.Context) error {
	env, err := a.seal(signaling.Ask, (&askBody{Reason: a.why, Avoid: a.avoid}).encode())
	if err != nil {
		return err
	}
	a.ref = env.Hash()
	if err := a.announce(env); err != nil {
		return err
	}
	a.outgoing = []*signaling.Sealed{env}
	wait := resendFirst
	timer := time.NewTimer(wait)
	defer timer.Stop()
	nudge, nudges := a.nudge, 0 // a.nudge itself the Peer's loop reads
	for round := 0; ; {
		a.send(ctx, round)
		select {
		case <-timer.C:
			round++
			wait = min(2*wait, resendMax)
			timer.Reset(wait)
		case <-nudge:
			if nudges++; nudges > maxNudges {
				nudge = nil
			}
		case e := <-a.inbox:
			if e.Kind != signaling.Reject {
				continue
			}
			return rejected(e.Sealed)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// send passes the description, and the candidates that followed it, on. Failing
// is no reason to give up: the next repetition may find a way.
func (a *attempt) send(ctx context.Context, round int) {
	for _, e := range a.outgoing {
		a.post(ctx, e, round)
	}
}

func (a *attempt) post(ctx context.Context, e *signaling.Sealed, round int) {
	way, err := a.peer.node.send(ctx, a, e, round)
	if err == nil {
		a.server = way
	} else if ctx.Err() == nil {
		a.peer.note(fmt.Sprintf("%s not sent: %v", e.Kind, err))
	}
}

// sendCandidates sends one candidate and those that are ready with it.
func (a *attempt) sendCandidates(ctx context.Context, first string, more <-chan string, round int) error {
	list := []string{first}
	for ready := true; ready; {
		select {
		case c, ok := <-more:
			if ready = ok; ok {
				list = append(list, c)
			}
		default:
			ready = false
		}
	}
	for _, c := range list {
		a.localTypes.add(c)
	}
	env, err := a.seal(signaling.Candidate, (&candidateBody{Candidates: list}).encode())
	if err != nil {
		return err
	}
	a.outgoing = append(a.outgoing, env)
	a.post(ctx, env, round)
	a.peer.node.obs.event(ctx, witness.ICECandidateSent, a.peer.id, witness.Info, map[string]any{"count": len(list)})
	return nil
}

// addCandidates uses the candidates of a verified envelope. A candidate that
// makes no sense is ignored: others may do.
func (a *attempt) addCandidates(e verified) {
	if e.Key != a.key || e.Instance != a.bind.remoteInst {
		return
	}
	b, err := decodeCandidates(e.Body)
	if err != nil {
		a.peer.node.log.Debug("bad candidates", "peer", a.peer.id, "error", err)
		return
	}
	for _, c := range b.Candidates {
		ok, err := a.remote.place(c)
		if err == nil && ok {
			err = a.conn.AddCandidate(c)
		}
		if err != nil {
			a.ignored(err)
		} else if ok {
			a.remoteTypes.add(c)
		}
	}
}

// described returns the other side's description with the candidates of it that are
// used.
func (a *attempt) described(d *descriptionBody) string {
	sdp, ignored := a.remote.description(d.SDP)
	for _, err := range ignored {
		a.ignored(err)
	}
	a.remoteTypes.addSDP(sdp)
	return sdp
}

func (a *attempt) ignored(err error) {
	a.peer.node.log.Debug("candidate ignored", "peer", a.peer.id, "error", err)
}
