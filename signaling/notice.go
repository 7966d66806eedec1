package signaling

import (
	"fmt"
	"time"
	"unicode/utf8"
)

// Code is the reason of a notice.
type Code uint8

// The codes of notices. Clients accept codes they do not know.
const (
	CodeNotRegistered Code = 1  // nobody is registered under the envelope's recipient
	CodeBadSender     Code = 2  // the envelope's mesh, author, key or instance is not the connection's
	CodeRateLimited   Code = 3  // too much of this sender already waits for the recipient
	CodeTooLarge      Code = 4  // the envelope is beyond the server's limit
	CodeReplaced      Code = 5  // a newer connection of the same agent and key is registered
	CodeRefused       Code = 6  // the registration's signature or the server's trust policy forbids it
	CodeDraining      Code = 7  // the server is shutting down
	CodeVersion       Code = 8  // the client speaks another version
	CodeProtocol      Code = 9  // what the client sent is not in the protocol
	CodeWrongServer   Code = 10 // the client registered with another server's name
	CodeDuplicate     Code = 11 // another connection of the same instance is registered: two URLs lead to one server
	CodeUnavailable   Code = 12 // the server cannot say now whether it admits the agent
)

// String returns the code in words, such as "not_registered".
func (c Code) String() string {
	switch c {
	case CodeNotRegistered:
		return "not_registered"
	case CodeBadSender:
		return "bad_sender"
	case CodeRateLimited:
		return "rate_limited"
	case CodeTooLarge:
		return "too_large"
	case CodeReplaced:
		return "replaced"
	case CodeRefused:
		return "refused"
	case CodeDraining:
		return "draining"
	case CodeVersion:
		return "version"
	case CodeProtocol:
		return "protocol"
	case CodeWrongServer:
		return "wrong_server"
	case CodeDuplicate:
		return "duplicate"
	case CodeUnavailable:
		return "unavailable"
	}
	return fmt.Sprintf("code_%d", uint8(c))
}

// Notice is what a server says about an envelope or a connection. It is not
// signed: a hint from a server that may lie.
type Notice struct {
	Code Code
	// Text explains the code to people. It is the server's, up to 512 bytes.
	Text string
	// Ref is the hash of the envelope that the notice is about; zero when it
	// is about the connection.
	Ref Hash
	// Time is what the server's clock showed; zero when it did not say.
	Time time.Time
}

// NoticeError is a notice that ended a connection. It matches [ErrReplaced],
// [ErrDuplicate], [ErrRefused] (also for a wrong server name, version or protocol),
// [ErrDraining], [ErrUnavailable] or [ErrTooLarge] by its code.
type NoticeError struct{ Notice Notice }

func (e *NoticeError) Error() string {
	return fmt.Sprintf("signaling server says %s: %q", e.Notice.Code, e.Notice.Text)
}

// Is implements the matching that the type's comment describes.
func (e *NoticeError) Is(target error) bool {
	switch e.Notice.Code {
	case CodeReplaced:
		return target == ErrReplaced
	case CodeDuplicate:
		return target == ErrDuplicate
	case CodeUnavailable:
		return target == ErrUnavailable
	case CodeRefused, CodeWrongServer, CodeVersion, CodeProtocol:
		return target == ErrRefused
	case CodeDraining:
		return target == ErrDraining
	case CodeTooLarge:
		return target == ErrTooLarge
	}
	return false
}

// encode returns the notice as a message. The text is cut to its limit.
func (n Notice) encode() []byte {
	m := noticeMsg{
		Version: version, Type: typeNotice, Code: uint64(n.Code), Text: cut(n.Text, MaxNoticeText), Time: wireTime(n.Time),
	}
	if !n.Ref.IsZero() {
		m.Ref = n.Ref[:]
	}
	return encode(&m)
}

func (m *noticeMsg) notice() Notice {
	n := Notice{Code: Code(m.Code), Text: m.Text, Time: timeOf(m.Time)}
	copy(n.Ref[:], m.Ref)
	return n
}

// cut shortens s to at most n bytes without splitting a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
