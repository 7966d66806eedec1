package metrics

import (
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
)

// scope is the name of the instrumentation scope of every instrument.
const scope = "github.com/infrafabric/agentmesh"

// Attribute keys, the labels in Prometheus.
const (
	// State is the state of a connection: "connected", "pending" or "failed".
	State = attribute.Key("state")
	// ConnectionType is the kind of path: "p2p" or "relay".
	ConnectionType = attribute.Key("connection_type")
	// ErrorType is a short word for what went wrong with a message.
	ErrorType = attribute.Key("error_type")
	// EventType is the name of a security event, as in package witness.
	EventType = attribute.Key("event_type")
	// Reason is why a session was replaced, in the words of mesh.Reason.
	Reason = attribute.Key("reason")
	// Server is the URL of a server, without user information or query; that of a
	// TURN server with "?transport=", which tells its ways apart.
	Server = attribute.Key("server")
	// Type is the kind of a relayed envelope: "offer", "answer", "candidate" or "reject".
	Type = attribute.Key("type")
)

// Instruments holds every instrument. Its fields are never nil and safe for
// concurrent use; they must not be assigned to.
type Instruments struct {
	// ConnectionsAttempted counts attempts at a session, when they have ended
	// well or badly; those that were given up for another are neither
	// (webrtc_connections_attempted_total).
	ConnectionsAttempted metric.Int64Counter
	// ConnectionsEstablished counts sessions whose hellos were verified
	// (webrtc_connections_established_total).
	ConnectionsEstablished metric.Int64Counter
	// ConnectionsFailed counts sessions that never were established
	// (webrtc_connections_failed_total).
	ConnectionsFailed metric.Int64Counter
	// ConnectionsDropped counts established sessions that broke without being
	// closed (webrtc_connections_dropped_total).
	ConnectionsDropped metric.Int64Counter
	// Connections is the number of peers by [State]: connected while messages
	// travel, failed while a peer is unreachable (webrtc_connections).
	Connections metric.Int64UpDownCounter
	// AgentConnected is the number of agents in this process that have at
	// least one connected peer (webrtc_agent_connected).
	AgentConnected metric.Int64UpDownCounter
	// Establishment is the time from the first offer to the verified hello, in
	// seconds (webrtc_connection_establishment_seconds).
	Establishment metric.Float64Histogram

	// TURNFallback counts the established sessions that run over a relay because
	// no direct path was found; where policy wants the relay they do not count
	// (webrtc_turn_fallback_total).
	TURNFallback metric.Int64Counter

	// RTT is a session's round-trip time by [ConnectionType], in milliseconds
	// (webrtc_rtt_milliseconds).
	RTT metric.Float64Histogram
	// MessageDelivery is the time from Send until the other application had
	// the message, in milliseconds (webrtc_message_delivery_milliseconds).
	MessageDelivery metric.Float64Histogram

	// MessagesSent counts messages accepted for sending
	// (webrtc_messages_sent_total).
	MessagesSent metric.Int64Counter
	// MessagesReceived counts verified messages handed to the application
	// (webrtc_messages_received_total).
	MessagesReceived metric.Int64Counter
	// MessageErrors counts messages that were refused, by [ErrorType]
	// (webrtc_message_errors_total).
	MessageErrors metric.Int64Counter
	// MessagesLost counts messages reported as not delivered or as of unknown
	// outcome (webrtc_messages_lost_total).
	MessagesLost metric.Int64Counter
	// SendQueue is the number of messages accepted and not yet delivered
	// (webrtc_send_queue_messages).
	SendQueue metric.Int64UpDownCounter

	// DTLSValidationSuccess counts certificates that matched their signed
	// fingerprint and dates (webrtc_dtls_validation_success_total).
	DTLSValidationSuccess metric.Int64Counter
	// DTLSValidationFailures counts those that did not
	// (webrtc_dtls_validation_failures_total).
	DTLSValidationFailures metric.Int64Counter
	// SignatureSuccess counts signatures that verified
	// (webrtc_signature_verification_success_total).
	SignatureSuccess metric.Int64Counter
	// SignatureFailures counts signatures that did not
	// (webrtc_signature_verification_failures_total).
	SignatureFailures metric.Int64Counter
	// SecurityEvents counts security events by [EventType]
	// (webrtc_security_events_total).
	SecurityEvents metric.Int64Counter

	// KeyRotations counts sessions that took over from another, and with new keys,
	// by [Reason] (webrtc_srtp_key_rotations_total).
	KeyRotations metric.Int64Counter

	// SignalingConnected is the number of open registrations of this process
	// by [Server]: 0 means that the server is not reached
	// (webrtc_signaling_connected).
	SignalingConnected metric.Int64UpDownCounter
	// SignalingErrors counts connections to signaling servers that failed or
	// were lost, and messages that were refused: at the server those of clients,
	// at an agent envelopes that a server should not have delivered
	// (webrtc_signaling_errors_total).
	SignalingErrors metric.Int64Counter
	// SignalingAgents is the number of registrations at this server
	// (webrtc_signaling_agents).
	SignalingAgents metric.Int64UpDownCounter
	// SignalingRelayed counts envelopes that the server passed on, by [Type]
	// (webrtc_signaling_relayed_total).
	SignalingRelayed metric.Int64Counter

	// TURNServerHealthy is the number of agents in this process that find a TURN
	// server healthy, by [Server]: 0 means that it is not
	// (webrtc_turn_server_healthy).
	TURNServerHealthy metric.Int64UpDownCounter
	// TURNProbe is the time of an echo through a TURN server, by [Server], in
	// milliseconds (webrtc_turn_probe_milliseconds).
	TURNProbe metric.Float64Histogram
}

// Bucket boundaries. They contain every threshold that alerts use: 50, 100,
// 150, 500 and 2000 ms round trip, 5 s establishment.
var (
	establishmentSeconds = []float64{.05, .1, .2, .3, .5, .75, 1, 1.5, 2, 3, 5, 10, 20, 30}
	latencyMilliseconds  = []float64{.5, 1, 2, 5, 10, 20, 30, 50, 75, 100, 150, 200, 300, 500, 750, 1000, 2000, 5000, 10000}
)

// New creates every instrument with the meter provider mp. A nil mp means
// instruments that measure nothing; the global provider is never used. The
// error is the provider's.
func New(mp metric.MeterProvider) (*Instruments, error) {
	if mp == nil {
		mp = noop.NewMeterProvider()
	}
	b := builder{meter: mp.Meter(scope)}
	ins := &Instruments{
		ConnectionsAttempted:   b.counter("webrtc_connections_attempted_total", "Attempts at a session that have ended."),
		ConnectionsEstablished: b.counter("webrtc_connections_established_total", "Sessions established."),
		ConnectionsFailed:      b.counter("webrtc_connections_failed_total", "Sessions never established."),
		ConnectionsDropped:     b.counter("webrtc_connections_dropped_total", "Established sessions that broke."),
		Connections:            b.upDown("webrtc_connections", "Peers by state."),
		AgentConnected:         b.upDown("webrtc_agent_connected", "Agents of this process with a connected peer."),
		Establishment: b.histogram("webrtc_connection_establishment_seconds", "s",
			"Time from the first offer to the verified hello.", establishmentSeconds),
		TURNFallback: b.counter("webrtc_turn_fallback_total", "Sessions over a relay for want of a direct path."),
		RTT: b.histogram("webrtc_rtt_milliseconds", "ms",
			"Round-trip time of sessions.", latencyMilliseconds),
		MessageDelivery: b.histogram("webrtc_message_delivery_milliseconds", "ms",
			"Time from Send until the message was delivered.", latencyMilliseconds),
		MessagesSent:           b.counter("webrtc_messages_sent_total", "Messages accepted for sending."),
		MessagesReceived:       b.counter("webrtc_messages_received_total", "Verified messages delivered."),
		MessageErrors:          b.counter("webrtc_message_errors_total", "Messages refused."),
		MessagesLost:           b.counter("webrtc_messages_lost_total", "Messages not delivered or of unknown outcome."),
		SendQueue:              b.upDown("webrtc_send_queue_messages", "Messages accepted and not yet delivered."),
		DTLSValidationSuccess:  b.counter("webrtc_dtls_validation_success_total", "DTLS certificates that matched."),
		DTLSValidationFailures: b.counter("webrtc_dtls_validation_failures_total", "DTLS certificates that did not match."),
		SignatureSuccess:       b.counter("webrtc_signature_verification_success_total", "Signatures that verified."),
		SignatureFailures:      b.counter("webrtc_signature_verification_failures_total", "Signatures that did not verify."),
		SecurityEvents:         b.counter("webrtc_security_events_total", "Security events."),
		KeyRotations:           b.counter("webrtc_srtp_key_rotations_total", "Sessions replaced by one with new keys."),
		SignalingConnected:     b.upDown("webrtc_signaling_connected", "Open registrations at a signaling server."),
		SignalingErrors:        b.counter("webrtc_signaling_errors_total", "Signaling connections failed or lost, messages refused."),
		SignalingAgents:        b.upDown("webrtc_signaling_agents", "Registrations at this signaling server."),
		SignalingRelayed:       b.counter("webrtc_signaling_relayed_total", "Envelopes relayed by this signaling server."),
		TURNServerHealthy:      b.upDown("webrtc_turn_server_healthy", "Agents that find a TURN server healthy."),
		TURNProbe: b.histogram("webrtc_turn_probe_milliseconds", "ms",
			"Time of an echo through a TURN server.", latencyMilliseconds),
	}
	if b.errs != nil {
		return nil, fmt.Errorf("metrics: %w", errors.Join(b.errs...))
	}
	return ins, nil
}

// builder creates instruments and collects the errors. None has a unit that
// its name does not end with: exporters would append it to the name.
type builder struct {
	meter metric.Meter
	errs  []error
}

func (b *builder) check(err error) {
	if err != nil {
		b.errs = append(b.errs, err)
	}
}

func (b *builder) counter(name, help string) metric.Int64Counter {
	c, err := b.meter.Int64Counter(name, metric.WithDescription(help))
	b.check(err)
	return c
}

func (b *builder) upDown(name, help string) metric.Int64UpDownCounter {
	c, err := b.meter.Int64UpDownCounter(name, metric.WithDescription(help))
	b.check(err)
	return c
}

func (b *builder) histogram(name, unit, help string, bounds []float64) metric.Float64Histogram {
	h, err := b.meter.Float64Histogram(name, metric.WithDescription(help), metric.WithUnit(unit),
		metric.WithExplicitBucketBoundaries(bounds...))
	b.check(err)
	return h
}
