package signaling

import (
	"fmt"

	"github.com/infrafabric/agentmesh/keys"
)

// EventKind says what a [Client] reports.
type EventKind uint8

// The kinds of events.
const (
	EventEnvelope EventKind = iota + 1 // an envelope arrived: Envelope
	EventJoined                        // an agent of this mesh registered: Agent, Key
	EventLeft                          // an agent of this mesh left the server: Agent, Key
	EventNotice                        // the server has something to say: Notice
	EventUp                            // a server accepted the registration
	EventDown                          // an open connection ended: Err
)

// String returns the kind in a word, such as "envelope".
func (k EventKind) String() string {
	switch k {
	case EventEnvelope:
		return "envelope"
	case EventJoined:
		return "joined"
	case EventLeft:
		return "left"
	case EventNotice:
		return "notice"
	case EventUp:
		return "up"
	case EventDown:
		return "down"
	}
	return fmt.Sprintf("event_%d", uint8(k))
}

// Event is something that a [Client] reports. Nothing in it is verified but
// that it came from the server: an envelope is to be parsed, verified and
// trusted, presence and notices are hints.
type Event struct {
	Kind EventKind
	// Server is the URL of the server, as ServerStatus.URL.
	Server string
	// Envelope is a sealed envelope, not yet parsed. The receiver owns it.
	Envelope []byte
	// Agent and Key are who joined or left.
	Agent string
	Key   keys.PublicKey
	// Notice is what the server said.
	Notice Notice
	// Err says why a connection ended. It matches ErrReplaced when another process
	// with the same agent and key has taken this one's place, which whoever is only
	// ever dialled learns nowhere else.
	Err error
	// Clock compares the clocks when a server accepted the registration.
	Clock Clock
}

// State is the state of a client's connection to one server:
//
//	spare ⇄ connecting ──▶ open ──▶ replaced (RetryReplaced, then connecting)
//	          ▲  │ │         │ └──▶ duplicate (until another server is lost, then connecting)
//	          │  │ └─▶ refused (RetryRefused, then connecting)
//	          │  ▼           │
//	        waiting ◀────────┘ lost
//
// Only servers beyond ClientConfig.MaxServers are ever spare; an open one
// becomes spare again when it is no longer needed. A connection that is open
// can also be refused, when the server's trust policy changes. A client that was
// replaced comes back only where the other process is gone: from connecting it
// becomes replaced again.
type State uint8

// The states of a connection.
const (
	StateConnecting State = iota + 1 // connecting and registering
	StateOpen                        // registered
	StateWaiting                     // until the next attempt
	StateRefused                     // the server refused the agent; tried again only every five minutes
	StateReplaced                    // another process with the same key is registered; tried again every RetryReplaced
	StateSpare                       // not needed while other servers are open
	StateDuplicate                   // registered with the same server by another URL
)

// String returns the state in a word, such as "open".
func (s State) String() string {
	switch s {
	case StateConnecting:
		return "connecting"
	case StateOpen:
		return "open"
	case StateWaiting:
		return "waiting"
	case StateRefused:
		return "refused"
	case StateReplaced:
		return "replaced"
	case StateSpare:
		return "spare"
	case StateDuplicate:
		return "duplicate"
	}
	return fmt.Sprintf("state_%d", uint8(s))
}

// ServerStatus is the state of a client's connection to one server.
type ServerStatus struct {
	// URL is the server's URL without user information and query, its host in
	// ASCII.
	URL   string
	State State
	// Err is why the last attempt or connection ended; nil after success.
	Err error
	// Clock compares the clocks at the last registration, or refusal; not known
	// before the first, and after this machine's clock was set or slept.
	Clock Clock
}
