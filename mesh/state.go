package mesh

import "fmt"

// State is where a Peer stands:
//
//	connecting ──► connected ◄──► suspect ──► recovering ──► unreachable
//	    │           ▲     ▲          ▲             │              │
//	    │           │     ▼          │             └► connected ◄─┤
//	    ▼           │  replacing ────┘                            ▼
//	  failed        └─────────────────────────────────────── connecting
//
// Every state but failed leads to closed, when a side closes the Peer. Messages
// travel in connected, suspect and replacing; in the others they wait. The
// zero State is none.
type State uint8

const (
	// StateConnecting: the first session is being made, or, after unreachable,
	// the next one.
	StateConnecting State = iota + 1
	// StateConnected: there is a session and the other side answers on it.
	StateConnected
	// StateReplacing: as connected, while a session that will take over is
	// being made.
	StateReplacing
	// StateSuspect: the other side has not answered for a while. A new session
	// is being made; the present one may still come back.
	StateSuspect
	// StateRecovering: the session is lost, or silent beyond
	// Recovery.PartitionAfter. New ones are tried again and again.
	StateRecovering
	// StateUnreachable: all of Recovery.Attempts failed. What Send accepted is
	// kept; a sign of the other side makes the Peer connect again, and without
	// one it tries every ten minutes.
	StateUnreachable
	// StateFailed: the Peer ended before it was ever connected.
	StateFailed
	// StateClosed: the Peer ended.
	StateClosed
)

// String returns the state in a word, such as "connected".
func (s State) String() string {
	switch s {
	case StateConnecting:
		return "connecting"
	case StateConnected:
		return "connected"
	case StateReplacing:
		return "replacing"
	case StateSuspect:
		return "suspect"
	case StateRecovering:
		return "recovering"
	case StateUnreachable:
		return "unreachable"
	case StateFailed:
		return "failed"
	case StateClosed:
		return "closed"
	}
	return fmt.Sprintf("state_%d", uint8(s))
}

// carries reports whether messages travel in this state.
func (s State) carries() bool {
	return s == StateConnected || s == StateReplacing || s == StateSuspect
}

// Reason says why a Peer is in its State, and why a session is made. The
// values travel in offers and asks.
type Reason uint8

const (
	// ReasonDial: an application asked for the Peer.
	ReasonDial Reason = iota
	// ReasonSilence: the other side answered nothing for Recovery.SuspectAfter.
	ReasonSilence
	// ReasonUnacknowledged: what was sent was not acknowledged in time.
	ReasonUnacknowledged
	// ReasonLost: the session ended without a goodbye.
	ReasonLost
	// ReasonNetwork: the network of one side has changed.
	ReasonNetwork
	// ReasonRequested: Peer.Replace was called.
	ReasonRequested
	// ReasonDirectPath: the Peer is on a relay and a direct path is tried.
	ReasonDirectPath
	// ReasonPartition: nothing came for Recovery.PartitionAfter.
	ReasonPartition
	// ReasonExhausted: all of Recovery.Attempts failed.
	ReasonExhausted
	// ReasonReturned: the other side, or the way to it, seems to be back.
	ReasonReturned
	// ReasonAnswers: the session that was in doubt works again.
	ReasonAnswers
	// ReasonFailed: the attempt failed, and the session before it still works.
	ReasonFailed
	// ReasonStandby: the standby session on a second relay is made, and, for a
	// session in use, has taken over.
	ReasonStandby
	// ReasonRelay: the relay in use is no longer offered, or its credential ends.
	ReasonRelay
	// ReasonEnded: a side closed the Peer; the error tells more.
	ReasonEnded

	reasonEnd // one past the last
)

// String returns the reason in a word or two, such as "network changed".
func (r Reason) String() string {
	names := [...]string{"dial", "silence", "unacknowledged", "session lost", "network changed", "requested",
		"direct path", "partition", "attempts exhausted", "returned", "answers again", "attempt failed", "standby", "relay changed", "ended"}
	if int(r) < len(names) {
		return names[r]
	}
	return fmt.Sprintf("reason_%d", uint8(r))
}

// Path is how a session runs: the types of its two candidates (RFC 8445 §5.1.1)
// as this side sees them, "host", "srflx", "prflx" or "relay", and the TURN server
// that carries it. The zero Path is none.
type Path struct {
	Local, Remote string
	// Relay is the host of the TURN server, in the words of the side that uses it;
	// "" for a direct path.
	Relay string
	// Narrow tells that the path does not carry full packets, as far as this side
	// knows, and that smaller ones are sent, which costs throughput.
	Narrow bool
}

// Relayed reports whether a TURN server carries the path.
func (p Path) Relayed() bool { return p.Relay != "" }

// String returns "host to srflx", "host to relay by turn1.example", "host to host in
// small packets" and the like.
func (p Path) String() string {
	switch {
	case p == (Path{}):
		return "none"
	}
	s := p.Local + " to " + p.Remote
	if p.Relay != "" {
		s += " by " + p.Relay
	}
	if p.Narrow {
		s += " in small packets"
	}
	return s
}
