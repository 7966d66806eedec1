package turn

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/infrafabric/agentmesh/internal/resolve"
)

// Relay is a way to a TURN server, with the credential to use there now.
type Relay struct {
	// URL is where and how the server is reached (RFC 7065): "turn:host:port"
	// or "turns:host:port" for TLS, with "?transport=udp" or "?transport=tcp".
	// UDP is the default of turn, TCP that of turns, the ports are 3478 and 5349.
	URL string
	// Username and Password are a long-term credential (RFC 8489 §9.2). The
	// password never shows in a log, an error or JSON.
	Username string
	Password string `json:"-"`
	// Expires is when the credential ends, zero for never. An allocation that was
	// made with it may outlive it, or not be refreshed: it is the server's choice.
	Expires time.Time
	// Address is where the last probe that passed reached the server: one of those
	// that the host of the URL stands for. The zero Addr means that this is not known.
	Address netip.Addr
	// Down says that the last probes failed. Such relays are ranked last.
	Down bool
	// TLS is for "turns" URLs. Nil means the system's authorities and the host of
	// the URL as the server's name.
	TLS *tls.Config `json:"-"`
}

// Server returns the host of the URL in lower case and ASCII: what tells one server
// from another, by whatever protocol and port it is reached. It is "" for an invalid
// URL.
func (r Relay) Server() string {
	s, err := resolve.ParseTURN(r.URL)
	if err != nil {
		return ""
	}
	return s.Host
}

// Transport returns how the server is reached: "udp", "tcp" or "tls"; "" for an invalid
// URL. A Pool's ranking is by latency; where a network harms one of them, take the first
// of the ranking that has another.
func (r Relay) Transport() string {
	s, err := resolve.ParseTURN(r.URL)
	switch {
	case err != nil:
		return ""
	case s.UDP:
		return "udp"
	case s.TLS:
		return "tls"
	}
	return "tcp"
}

// String returns the URL alone.
func (r Relay) String() string { return r.URL }

// GoString returns the URL alone: %#v shows no password either.
func (r Relay) GoString() string { return fmt.Sprintf("turn.Relay{URL: %q}", r.URL) }

// LogValue returns the URL alone.
func (r Relay) LogValue() slog.Value { return slog.StringValue(r.URL) }
