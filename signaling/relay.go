package signaling

import (
	"errors"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/infrafabric/agentmesh/metrics"
	"github.com/infrafabric/agentmesh/witness"
)

// relay passes an envelope of this connection on. It returns what the sender
// is to be told, or nil.
func (c *conn) relay(envelope []byte) *Notice {
	refuse := func(code Code, text string) *Notice {
		return &Notice{Code: code, Text: text, Ref: HashOf(envelope)}
	}
	if len(envelope) > c.s.cfg.Limits.Envelope {
		return refuse(CodeTooLarge, "the envelope is larger than this server relays")
	}
	e, err := Parse(envelope)
	if err != nil {
		var ve *VersionError
		if errors.As(err, &ve) {
			return refuse(CodeVersion, ve.Error())
		}
		return refuse(CodeProtocol, err.Error())
	}
	// The signature is for the recipient to verify. What the server answers for
	// is that nobody sends under another registration than his own: then a
	// flood, or a replay, has a name.
	switch {
	case e.Mesh != c.reg.Mesh:
		return refuse(CodeBadSender, "the envelope is of another mesh")
	case e.From != c.reg.Agent:
		return refuse(CodeBadSender, "the envelope is of another agent")
	case e.Key != c.reg.Key:
		return refuse(CodeBadSender, "the envelope is of another key")
	case e.Instance != c.instance:
		return refuse(CodeBadSender, "the envelope is of another instance")
	}
	to := c.s.reg.find(e.Mesh, e.To, e.ToKey)
	if len(to) == 0 {
		return refuse(CodeNotRegistered, "the recipient is not registered")
	}
	msg := encodeEnvelopeMsg(envelope)
	passed := 0
	for _, r := range to {
		if r.conn != nil {
			// One recipient is waited for. Several are strangers to each
			// other: none may delay what is for the rest.
			if c.deliver(r.conn, msg, len(to) == 1) {
				passed++
			}
			continue
		}
		if err := c.s.broker.Forward(r.reg, envelope); err != nil {
			c.s.cfg.Logger.Error("broker does not forward", "agent", r.reg.Agent, "error", err)
			continue
		}
		passed++
	}
	if passed == 0 {
		return refuse(CodeRateLimited, "too much waits for the recipient")
	}
	c.relayed(e)
	return nil
}

// deliver queues an envelope message at its recipient. If it may wait, it waits
// for room: the sender is held back before anything is dropped.
func (c *conn) deliver(to *conn, msg []byte, wait bool) bool {
	ok, room := to.out.pushEnvelope(msg, c.reg.Key)
	if ok || !wait || room == nil {
		return ok
	}
	t := time.NewTimer(relayWait)
	defer t.Stop()
	for !ok && room != nil {
		select {
		case <-room:
			ok, room = to.out.pushEnvelope(msg, c.reg.Key)
		case <-t.C:
			return false
		case <-to.ctx.Done():
			return false
		case <-c.finishing:
			return false
		case <-c.ctx.Done():
			return false
		}
	}
	return ok
}

// relayed reports an envelope that was passed on.
func (c *conn) relayed(e *Sealed) {
	kind := e.Kind.String()
	c.s.cfg.Metrics.SignalingRelayed.Add(c.ctx, 1, metric.WithAttributes(metrics.Type.String(kind)))
	hash := e.Hash().String()
	c.s.cfg.Logger.Debug("envelope relayed", "type", kind, "from", e.From, "to", e.To, "hash", hash)
	ev := witness.Event{AgentID: e.From, PeerID: e.To, Metadata: map[string]any{"mesh": e.Mesh}}
	switch e.Kind {
	case Offer:
		ev.Name, ev.SDPHash = witness.SDPOfferRelayed, hash
	case Answer:
		ev.Name, ev.SDPHash = witness.SDPAnswerRelayed, hash
		ev.Metadata["offer_hash"] = e.Ref.String()
	case Candidate:
		ev.Name = witness.ICECandidateRelayed
		ev.Metadata["offer_hash"] = e.Ref.String()
	default:
		return
	}
	c.s.record(ev)
}
