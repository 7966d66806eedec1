package witness

import (
	"encoding/json"
	"fmt"
	"time"
)

// timestampFormat is RFC 3339 with exactly three fractional digits.
const timestampFormat = "2006-01-02T15:04:05.000Z07:00"

// Event is one entry of the audit trail. Zero optional fields are left out of
// the JSON form. An Event must not be changed once it was recorded.
type Event struct {
	// Name says what happened. Required.
	Name Name
	// Time is when it happened; JSON keeps it in UTC with milliseconds.
	Time time.Time
	// AgentID is the agent that reports the event.
	AgentID string
	// PeerID is the other agent, if there is one.
	PeerID string
	// TraceID is the W3C trace ID in hexadecimal that the event belongs to.
	TraceID string
	// Severity is how much attention the event asks for; empty means Info.
	Severity Severity
	// SDPHash is the hexadecimal SHA-256 of the signed envelope with the SDP.
	SDPHash string
	// ICECandidate describes a candidate, such as "srflx udp".
	ICECandidate string
	// IncidentID names the operator's incident.
	IncidentID string
	// DeploymentID names the deployment that the process belongs to.
	DeploymentID string
	// FailoverID joins the events of one failover.
	FailoverID string
	// Metadata holds further JSON values. It must never hold secrets.
	Metadata map[string]any
}

// eventJSON is the JSON form of an Event, in the order it is written.
type eventJSON struct {
	Event        Name           `json:"event"`
	Timestamp    string         `json:"timestamp"`
	AgentID      string         `json:"agent_id"`
	PeerID       string         `json:"peer_id,omitempty"`
	TraceID      string         `json:"trace_id,omitempty"`
	Severity     Severity       `json:"severity"`
	SDPHash      string         `json:"sdp_hash,omitempty"`
	ICECandidate string         `json:"ice_candidate,omitempty"`
	IncidentID   string         `json:"incident_id,omitempty"`
	DeploymentID string         `json:"deployment_id,omitempty"`
	FailoverID   string         `json:"failover_id,omitempty"`
	Metadata     map[string]any `json:"metadata,omitempty"`
}

// MarshalJSON returns the form that the package comment describes.
func (e Event) MarshalJSON() ([]byte, error) {
	severity := e.Severity
	if severity == "" {
		severity = Info
	}
	return json.Marshal(eventJSON{
		e.Name, e.Time.UTC().Format(timestampFormat), e.AgentID, e.PeerID, e.TraceID, severity,
		e.SDPHash, e.ICECandidate, e.IncidentID, e.DeploymentID, e.FailoverID, e.Metadata,
	})
}

// UnmarshalJSON reads the form that the package comment describes. The
// timestamp may have any RFC 3339 offset and precision; it is converted to UTC
// and keeps its precision. Unknown fields are ignored.
func (e *Event) UnmarshalJSON(b []byte) error {
	var j eventJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return fmt.Errorf("witness: event: %w", err)
	}
	t, err := time.Parse(time.RFC3339Nano, j.Timestamp)
	if err != nil {
		return fmt.Errorf("witness: event: timestamp: %w", err)
	}
	*e = Event{
		j.Event, t.UTC(), j.AgentID, j.PeerID, j.TraceID, j.Severity,
		j.SDPHash, j.ICECandidate, j.IncidentID, j.DeploymentID, j.FailoverID, j.Metadata,
	}
	return nil
}

// Severity is how much attention an event asks for.
type Severity string

// The severities, least first.
const (
	Info     Severity = "info"     // the normal course of things
	Warning  Severity = "warning"  // worth a look when it repeats
	Critical Severity = "critical" // somebody must act
)
