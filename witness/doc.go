// Package witness defines the events of a mesh's audit trail and the interface
// through which every other package reports them.
//
// An [Event] says what happened, to which agent, when, and under which trace.
// Its JSON form is a contract with dashboards and queries:
//
//	field          type     notes
//	event          string   one of the Name constants, or an application's own
//	timestamp      string   RFC 3339, UTC, always three fractional digits,
//	                        so that text order is time order
//	agent_id       string   the agent that reports the event
//	peer_id        string   the other agent; optional
//	trace_id       string   W3C trace context trace ID, 32 hex digits; optional
//	severity       string   info, warning or critical
//	sdp_hash       string   hex SHA-256 of the signed envelope that carries the
//	                        SDP, never the SDP: it holds the ICE password; optional
//	ice_candidate  string   the kind of candidate and nothing secret; optional
//	incident_id    string   the operator's incident; optional
//	deployment_id  string   the deployment that the process belongs to; optional
//	failover_id    string   joins the events of one failover; optional
//	metadata       object   anything else, as JSON values; optional
//
// Packages take a [Recorder] in their configuration; without one they use
// [Discard].
package witness
