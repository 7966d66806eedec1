package mesh

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/pion/transport/v5"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/turn"
)

// conn is one connection under negotiation or in use, as the rest of the
// package sees it: pion/webrtc implements it in webrtc.go, tests in memory.
//
// One goroutine negotiates, one reads and one writes; Close may come from
// anywhere and ends the others' calls.
type conn interface {
	// Offer starts the negotiation and returns the local description with the
	// candidates known after a short wait.
	Offer(ctx context.Context) (sdp string, err error)
	// Answer takes the other side's offer and returns the local description.
	Answer(ctx context.Context, offer string) (sdp string, err error)
	// Accept takes the other side's answer.
	Accept(answer string) error
	// AddCandidate takes one candidate of the other side.
	AddCandidate(candidate string) error
	// Candidates yields local candidates that the description did not hold.
	// It is closed when gathering is done.
	Candidates() <-chan string

	// Opened is closed when frames can be exchanged.
	Opened() <-chan struct{}
	// Done is closed when the connection has died or was closed.
	Done() <-chan struct{}
	// Quiet is closed when nothing has come from the other side for some seconds.
	Quiet() <-chan struct{}
	// RemoteCertificate is the DER certificate that the other side presented;
	// valid once opened.
	RemoteCertificate() []byte
	// Path names the candidate types in use ("host", "srflx", "prflx",
	// "relay"), empty before a pair was selected.
	Path() (local, remote string)
	// Base is the address of this machine at which the path begins, invalid
	// when that is not known: of a socket that is bound to none.
	Base() netip.Addr

	// Read reads one frame into b. A longer frame is an error. One that matches
	// ErrProtocol says that the other side used more than the one channel of frames.
	Read(b []byte) (int, error)
	// Write queues one frame. It does not block and does not keep b.
	Write(b []byte) error
	// Wait blocks while more is queued than the high-water mark. With a context
	// that has ended it tells whether that is so, beside a goroutine that waits.
	Wait(ctx context.Context) error
	// Queued is how many bytes were written and not yet acknowledged by the
	// other side's transport.
	Queued() uint64
	// Packets counts what was sent and received on the present path.
	Packets() (sent, received uint64)
	// Checks counts the checks of the present path that the other side has answered;
	// rtt is the last one's round trip, 0 before the first.
	Checks() (answered uint64, rtt time.Duration)
	// Drain blocks until nothing is queued or ctx ends.
	Drain(ctx context.Context) error

	// Close ends the connection and waits for everything it started.
	Close() error
}

// connector makes connections.
type connector interface {
	New(cert *keys.Certificate, o connOptions) (conn, error)
	// Close ends what the connector has started, after its connections.
	Close() error
}

// connOptions is what differs from one connection to the next.
type connOptions struct {
	stun      []string       // URLs with addresses, no names
	relay     *turn.Relay    // to gather a candidate from; nil for none
	relayAt   netip.AddrPort // where that is
	relayWait time.Duration  // for a direct path, before the relay is taken
	relayOnly bool           // no other candidates
}

// connectorConfig is what a connector needs of the Config.
type connectorConfig struct {
	net      transport.Net
	tcp      bool         // TCP candidates are used
	listener net.Listener // and accepted here; may be nil
	log      *slog.Logger
}
