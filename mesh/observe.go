package mesh

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/infrafabric/agentmesh/metrics"
	"github.com/infrafabric/agentmesh/signaling"
	"github.com/infrafabric/agentmesh/witness"
)

// observer tells the log, the instruments and the recorder what happens. Each
// method is one thing that happens, so that the three never disagree.
type observer struct {
	agent string
	now   func() time.Time // of the world
	log   *slog.Logger
	ins   *metrics.Instruments
	rec   *eventQueue
	// quiet is set when nobody records events, so that none is built for
	// every message.
	quiet bool
}

func newObserver(cfg *Config) (*observer, error) {
	ins, err := metrics.New(cfg.MeterProvider)
	if err != nil {
		return nil, err
	}
	return &observer{agent: cfg.Identity.ID(), now: cfg.Time, log: cfg.Logger, ins: ins, rec: newEventQueue(cfg.Recorder, cfg.Logger), quiet: cfg.Recorder == nil}, nil
}

// recorder takes events for the Node's own, nil without one.
func (o *observer) recorder() witness.Recorder {
	if o.quiet {
		return nil
	}
	return witness.RecorderFunc(o.rec.put)
}

// event records an event about a peer.
func (o *observer) event(ctx context.Context, name witness.Name, peer string, sev witness.Severity, meta map[string]any) {
	if o.quiet {
		return
	}
	o.rec.put(ctx, witness.Event{Name: name, Time: o.now(), AgentID: o.agent, PeerID: peer, Severity: sev, Metadata: meta})
}

// sdpEvent records that a description was made or came in; of the SDP, which
// holds the ICE password, only the hash is told.
func (o *observer) sdpEvent(ctx context.Context, name witness.Name, peer, hash string) {
	if o.quiet {
		return
	}
	o.rec.put(ctx, witness.Event{Name: name, Time: o.now(), AgentID: o.agent, PeerID: peer,
		Severity: witness.Info, SDPHash: hash})
}

// attemptEnded counts an attempt, when it has ended. One that was given up for
// another, and one that tried a direct path or a standby beside a session that works,
// have not failed: rates of success would say that something is wrong.
func (o *observer) attemptEnded(ctx context.Context, a *attempt, err error) {
	switch {
	case err == nil:
		o.ins.ConnectionsEstablished.Add(ctx, 1)
		if a.why != ReasonStandby {
			o.ins.Establishment.Record(ctx, time.Since(a.started).Seconds())
		}
	case errors.Is(err, errSuperseded) || a.why == ReasonDirectPath || a.why == ReasonStandby:
		o.log.Debug("attempt given up", "peer", a.peer.id, "reason", a.why.String(), "error", err)
		return
	default:
		o.ins.ConnectionsFailed.Add(ctx, 1)
		o.log.Debug("attempt failed", "peer", a.peer.id, "reason", a.why.String(), "error", err)
	}
	o.ins.ConnectionsAttempted.Add(ctx, 1)
}

func (o *observer) established(ctx context.Context, s *session) {
	path := s.path()
	o.log.Info("session established", "peer", s.bind.remote, "path", path.String(), "relay", s.relay)
	o.event(ctx, witness.WebRTCCertValidated, s.bind.remote, witness.Info, nil)
	o.event(ctx, witness.DataChannelOpen, s.bind.remote, witness.Info, nil)
	o.event(ctx, witness.WebRTCSessionEstablished, s.bind.remote, witness.Info,
		map[string]any{"local_candidate": path.Local, "remote_candidate": path.Remote})
	if s.relay == "" {
		return
	}
	relay := map[string]any{"server": s.relay}
	o.event(ctx, witness.TURNConnectionDetected, s.bind.remote, witness.Info, relay)
	if s.fellBack {
		o.event(ctx, witness.TURNFallbackSuccessful, s.bind.remote, witness.Info, relay)
	}
	if !s.node.cfg.Paths.RelayOnly {
		o.ins.TURNFallback.Add(ctx, 1)
	}
}

// fallback tells that no direct path was found in time.
func (o *observer) fallback(ctx context.Context, peer, server string) {
	o.log.Info("no direct path in time", "peer", peer, "relay", server)
	o.event(ctx, witness.TURNFallbackInitiated, peer, witness.Info, map[string]any{"server": server})
}

// change tells of a change of a Peer's state, or of what it does about a
// partition.
func (o *observer) change(peer string, c Change, r report) {
	ctx := context.Background()
	was, is := gauge(c.From), gauge(c.State)
	if was != is {
		if was != "" {
			o.ins.Connections.Add(ctx, -1, metric.WithAttributes(metrics.State.String(was)))
		}
		if is != "" {
			o.ins.Connections.Add(ctx, 1, metric.WithAttributes(metrics.State.String(is)))
		}
	}
	if r.event != "" {
		meta := map[string]any{"attempt": c.Attempt}
		sev := witness.Warning
		switch r.event {
		case witness.MeshPartitionDetected, witness.PeerPermanentlyUnreachable:
			meta = map[string]any{"silent_seconds": r.silent.Seconds()}
		case witness.MeshReconnectionScheduled:
			meta["delay_seconds"] = c.Wait.Seconds()
		case witness.MeshPartitionHealed:
			meta, sev = nil, witness.Info
		}
		o.log.Warn(string(r.event), "peer", peer, "attempt", c.Attempt, "wait", c.Wait)
		o.event(ctx, r.event, peer, sev, meta)
		return
	}
	o.log.Info("peer "+c.State.String(), "peer", peer, "reason", c.Reason.String(), "path", c.Path.String(), "error", c.Err)
	o.event(ctx, witness.ConnectionStateChanged, peer, witness.Info, map[string]any{
		"from": c.From.String(), "state": c.State.String(), "reason": c.Reason.String(), "path": c.Path.String()})
}

// gauge is under which state webrtc_connections counts a Peer.
func gauge(s State) string {
	switch s {
	case StateConnecting, StateRecovering:
		return "pending"
	case StateConnected, StateReplacing, StateSuspect:
		return "connected"
	case StateUnreachable:
		return "failed"
	}
	return ""
}

// joined counts a new Peer.
func (o *observer) joined() {
	o.ins.Connections.Add(context.Background(), 1, metric.WithAttributes(metrics.State.String(gauge(StateConnecting))))
}

// passedOn tells that an envelope was passed on for a neighbour.
func (o *observer) passedOn(e *signaling.Sealed) {
	o.log.Debug("envelope passed on", "from", e.From, "to", e.To, "kind", e.Kind.String())
}

// replaced tells that a session has taken over from another one.
func (o *observer) replaced(why Reason) {
	o.ins.KeyRotations.Add(context.Background(), 1, metric.WithAttributes(metrics.Reason.String(why.String())))
}

func (o *observer) sessionEnded(ctx context.Context, peer string, err error, dropped bool) {
	o.event(ctx, witness.DataChannelClosed, peer, witness.Info, map[string]any{"reason": err.Error()})
	if dropped {
		o.ins.ConnectionsDropped.Add(ctx, 1)
		o.log.Warn("session lost", "peer", peer, "error", err)
	}
}

func (o *observer) disconnected(ctx context.Context, peer string, cause error, lost int) {
	o.event(ctx, witness.PeerDisconnected, peer, witness.Info, map[string]any{"reason": cause.Error(), "undelivered": lost})
}

func (o *observer) lost(ctx context.Context, peer string, n int, why string) {
	if n == 0 {
		return
	}
	o.ins.MessagesLost.Add(ctx, int64(n))
	o.ins.SendQueue.Add(ctx, int64(-n))
	o.log.Warn("messages not acknowledged as delivered", "peer", peer, "count", n, "reason", why)
	o.event(ctx, witness.IFMessageFailed, peer, witness.Warning, map[string]any{"count": n, "reason": why})
}

func (o *observer) certificate(ctx context.Context, peer string, err error) {
	if err == nil {
		o.ins.DTLSValidationSuccess.Add(ctx, 1)
		return
	}
	o.ins.DTLSValidationFailures.Add(ctx, 1)
	o.log.Error("certificate refused", "peer", peer, "error", err)
}

func (o *observer) signatureVerified(ctx context.Context) { o.ins.SignatureSuccess.Add(ctx, 1) }

// signatureFailed is charged to who delivered: via names the server or peer.
func (o *observer) signatureFailed(ctx context.Context, peer, via string) {
	o.ins.SignatureFailures.Add(ctx, 1)
	o.security(ctx, witness.SignatureVerificationFailed, peer, via)
}

// misdelivered counts an envelope that a server should not have delivered.
func (o *observer) misdelivered(ctx context.Context, via, why string) {
	o.ins.SignalingErrors.Add(ctx, 1)
	o.log.Debug("envelope refused", "via", via, "reason", why)
}

func (o *observer) security(ctx context.Context, name witness.Name, peer, via string) {
	o.ins.SecurityEvents.Add(ctx, 1, metric.WithAttributes(metrics.EventType.String(string(name))))
	o.log.Warn(string(name), "claimed", safeText(peer), "via", via)
	o.event(ctx, name, peer, witness.Warning, map[string]any{"via": via})
}

func (o *observer) roundTrip(ctx context.Context, s *session, rtt time.Duration) {
	kind := "p2p"
	if s.relay != "" {
		kind = "relay"
	}
	o.ins.RTT.Record(ctx, float64(rtt)/float64(time.Millisecond), metric.WithAttributes(metrics.ConnectionType.String(kind)))
}

func (o *observer) sent(ctx context.Context, m *Message) {
	o.ins.MessagesSent.Add(ctx, 1)
	o.ins.SendQueue.Add(ctx, 1)
	if !o.quiet {
		o.message(ctx, witness.IFMessageSent, m.Destination, m)
	}
}

func (o *observer) received(ctx context.Context, m *Message) {
	o.ins.MessagesReceived.Add(ctx, 1)
	if !o.quiet {
		o.message(ctx, witness.IFMessageReceived, m.Source, m)
	}
}

func (o *observer) message(ctx context.Context, name witness.Name, peer string, m *Message) {
	o.rec.putPatient(ctx, witness.Event{Name: name, Time: o.now(), AgentID: o.agent, PeerID: peer, Severity: witness.Info,
		TraceID: m.TraceID, Metadata: map[string]any{"id": m.ID, "sequence_num": m.SequenceNum, "performative": m.Performative}})
}

func (o *observer) messageError(ctx context.Context, kind string) {
	o.ins.MessageErrors.Add(ctx, 1, metric.WithAttributes(metrics.ErrorType.String(kind)))
}

// delivered notes records that the other application has taken.
func (o *observer) delivered(gone []heldRecord) {
	ctx := context.Background()
	now := time.Now()
	n := int64(0)
	for _, r := range gone {
		if r.data != nil { // and was not given up
			o.ins.MessageDelivery.Record(ctx, float64(now.Sub(r.at))/float64(time.Millisecond))
			n++
		}
	}
	o.ins.SendQueue.Add(ctx, -n)
}
