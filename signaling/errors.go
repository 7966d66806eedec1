package signaling

import (
	"errors"
	"fmt"
)

var (
	// ErrTooLarge means that an envelope or a message is beyond its limit.
	ErrTooLarge = errors.New("too large")
	// ErrNoServer means that no signaling server is connected now.
	ErrNoServer = errors.New("no signaling server connected")
	// ErrReplaced means that another process with the same agent and key took
	// this one's place at the server.
	ErrReplaced = errors.New("replaced by another process with the same key")
	// ErrDuplicate means that this client is registered with the same server by
	// another of its URLs.
	ErrDuplicate = errors.New("registered with the same server by another URL")
	// ErrUnavailable means that the server cannot say now whether it admits the
	// agent.
	ErrUnavailable = errors.New("signaling server cannot decide now")
	// ErrRefused means that the server does not admit this agent.
	ErrRefused = errors.New("refused by the signaling server")
	// ErrDraining means that the server is shutting down.
	ErrDraining = errors.New("signaling server is draining")
	// ErrPingTimeout means that the server did not answer in time.
	ErrPingTimeout = errors.New("signaling server does not answer")
	// ErrMessageType means that a WebSocket message was text, not binary.
	ErrMessageType = errors.New("not a binary message")
)

// ConfigError says which field of a configuration is invalid, and why. It shows no
// secrets: of a URL no user information and no query.
type ConfigError struct {
	Config string // the type, such as "ClientConfig"
	Field  string // such as "URLs[1]"
	Reason string
	Err    error // the cause, if it is another error
}

func (e *ConfigError) Error() string {
	return fmt.Sprintf("%s.%s: %s", e.Config, e.Field, e.Reason)
}

// Unwrap returns the cause.
func (e *ConfigError) Unwrap() error { return e.Err }

// FormatError says why bytes are not what they should be.
type FormatError struct {
	What   string // "envelope", "message", or a field of an Envelope
	Reason string
	Err    error // the cause, if it is another error
}

func (e *FormatError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("malformed %s: %s: %v", e.What, e.Reason, e.Err)
	}
	return fmt.Sprintf("malformed %s: %s", e.What, e.Reason)
}

// Unwrap returns the cause.
func (e *FormatError) Unwrap() error { return e.Err }

// VersionError means that the two sides do not speak the same version of the
// protocol: the other side's version, or a type that this version lacks, is
// unknown here.
type VersionError struct {
	Ours, Theirs uint64
	// Type is the message type or envelope kind when the versions agree but
	// the type is unknown; otherwise 0.
	Type uint64
}

func (e *VersionError) Error() string {
	if e.Ours == e.Theirs {
		return fmt.Sprintf("unknown type %d: both sides say version %d, theirs has a type that ours lacks",
			e.Type, e.Ours)
	}
	return fmt.Sprintf("version %d of the protocol: this side speaks version %d", e.Theirs, e.Ours)
}
