package mesh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// Errors that tell which rule an operation met. Match them with errors.Is.
// After Close every method returns an error that matches net.ErrClosed; why
// something closed is context.Cause of its Context.
var (
	// ErrSelf: an agent dialled its own name.
	ErrSelf = errors.New("an agent cannot dial itself")
	// ErrTooLarge: the message exceeds MaxMessage or the send window. The error
	// is a *TooLargeError.
	ErrTooLarge = errors.New("message too large")
	// ErrUntrusted: the trust policy did not say yes to the other side's key.
	ErrUntrusted = errors.New("not trusted")
	// ErrRefused: the other side's trust policy does not accept this agent's
	// key. The refusal is signed by the other side.
	ErrRefused = errors.New("refused by the other side")
	// ErrAbsent: every signaling server that this agent is connected to says that
	// nobody is registered under the name, and no neighbour knows it.
	ErrAbsent = errors.New("not registered at any signaling server")
	// ErrReplaced: a newer process with this agent's identity has taken over
	// the association. It is final for this Node and that peer. From Accept: another
	// process has this agent's place at every signaling server; when that is gone, this
	// one registers again.
	ErrReplaced = errors.New("replaced by a newer process with the same identity")
	// ErrTooMany: a limit on the number of Peers or waiting connections.
	ErrTooMany = errors.New("too many peers")
	// ErrPeerClosed: the other side has closed its Peer.
	ErrPeerClosed = errors.New("closed by the other side")
	// ErrConnectionLost: a session died. The Peer makes another one; Change.Err
	// tells of it.
	ErrConnectionLost = errors.New("connection lost")
	// ErrNarrowPath: a path does not carry full packets, of about 1,250 bytes with the
	// headers of IP and UDP, and loses them without a word. The Peer takes another
	// kind of path, or else smaller packets; Change.Err and DialError tell of it.
	ErrNarrowPath = errors.New("the path does not carry full packets")
	// ErrProtocol: the other side broke a rule of the wire format or of the
	// flows.
	ErrProtocol = errors.New("protocol error")
	// ErrOutcomeUnknown: the other side has forgotten the association, and with
	// it whether messages were delivered. Close reports their IDs.
	ErrOutcomeUnknown = errors.New("outcome of messages is unknown")
	// ErrHandler: Accept or Receive on a Node whose Config has a Handler.
	ErrHandler = errors.New("messages go to the handler")
	// ErrUnsigned: a message without a signature was to be verified.
	ErrUnsigned = errors.New("message is not signed")
	// ErrWrongMesh: the message was signed for another mesh.
	ErrWrongMesh = errors.New("message of another mesh")
)

// MessageError says what is wrong with a message that was to be sent, or that
// was read from JSON. It holds nothing of the payload but the name of an object's
// member that is there twice.
type MessageError struct {
	Field  string // JSON name of the field; "message" for the whole
	Reason string // for people
	// Offset is the byte, from 0, where it goes wrong: in the text that
	// UnmarshalJSON read, and otherwise in the field's own value. It is 0 as
	// well where no place is meant.
	Offset int
	// Size and Limit say how large the field is and may be, in bytes, levels or
	// entries, if that is what is wrong; otherwise both are 0.
	Size, Limit int
}

func (e *MessageError) Error() string {
	s := "message: " + safeText(e.Field) + " " + e.Reason
	if e.Limit > 0 {
		s += fmt.Sprintf(" (%d, at most %d)", e.Size, e.Limit)
	}
	if e.Offset > 0 {
		s += fmt.Sprintf(" at byte %d", e.Offset)
	}
	return s
}

// TooLargeError says which limit a message exceeds. It matches ErrTooLarge.
type TooLargeError struct {
	What  string // which limit: "MaxMessage", "MaxMessageJSON", or whose window
	Size  uint64 // bytes of the message, counted as the limit counts
	Limit uint64 // bytes
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("%v: %d bytes, more than the %d of %s", ErrTooLarge, e.Size, e.Limit, e.What)
}

// Is makes the error match ErrTooLarge.
func (e *TooLargeError) Is(target error) bool { return target == ErrTooLarge }

// VersionError says that the two sides speak different versions of a format.
type VersionError struct {
	Format       string // "frame", "hello", "record"
	Ours, Theirs string
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("%s version %s is not understood (ours is %s)", e.Format, e.Theirs, e.Ours)
}

// ClockError says that the clocks of two agents are further apart than the five
// minutes for which an envelope counts as fresh, so that they cannot meet. Both times are
// of about one moment; which clock is wrong they do not say. A signaling server's time,
// which the log compares at registration, helps.
type ClockError struct {
	Peer         string
	Theirs, Ours time.Time // UTC
}

func (e *ClockError) Error() string {
	return fmt.Sprintf("the clocks are %v apart: %s here, %s at %s", e.Ours.Sub(e.Theirs).Abs().Round(time.Second),
		e.Ours.Format(time.RFC3339), e.Theirs.Format(time.RFC3339), e.Peer)
}

// DialError says why an agent could not be reached. Err is the context's
// error when time ran out, and otherwise what ended the dial for good.
type DialError struct {
	Peer  string
	Tried []string // one sentence per step that was tried, in order
	Err   error

	refusal error // what the other side last said, nil for nothing
}

func (e *DialError) Error() string {
	s := fmt.Sprintf("dial %s: %v", e.Peer, e.Err)
	if len(e.Tried) > 0 {
		s += " (tried: " + strings.Join(e.Tried, "; ") + ")"
	}
	return s
}

// Unwrap returns Err and, when the other side has said why it did not answer, an error
// for that: it may match ErrRefused, or be a *ClockError.
func (e *DialError) Unwrap() []error {
	if e.refusal == nil {
		return []error{e.Err}
	}
	return []error{e.Err, e.refusal}
}

// UndeliveredError reports messages whose delivery was not acknowledged when
// a Peer ended. Each of them may or may not have reached the other
// application.
type UndeliveredError struct {
	Peer string
	IDs  []string // Message.ID, in the order of sending
	Err  error    // why the Peer ended, nil after Close
}

func (e *UndeliveredError) Error() string {
	s := fmt.Sprintf("%d messages to %s were not acknowledged as delivered", len(e.IDs), e.Peer)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *UndeliveredError) Unwrap() error { return e.Err }

// closedError is what methods return after something closed: it matches
// net.ErrClosed and what caused the closing.
type closedError struct{ cause error }

func (e *closedError) Error() string {
	if e.cause == nil || errors.Is(e.cause, net.ErrClosed) {
		return net.ErrClosed.Error()
	}
	return e.cause.Error()
}

func (e *closedError) Unwrap() []error {
	if e.cause == nil {
		return []error{net.ErrClosed}
	}
	return []error{net.ErrClosed, e.cause}
}

// Is makes the error match ErrProtocol: who speaks another version breaks the rules
// of this one.
func (e *VersionError) Is(target error) bool { return target == ErrProtocol }

// contextError is what a call returns because its context has ended: it matches
// the context's error and its cause.
func contextError(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if cause == nil || errors.Is(cause, err) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}

// protocolErrorf makes an error that matches ErrProtocol.
func protocolErrorf(format string, a ...any) error {
	return fmt.Errorf("%w: %s", ErrProtocol, fmt.Sprintf(format, a...))
}
