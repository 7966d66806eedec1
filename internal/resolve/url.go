package resolve

import (
	"errors"
	"fmt"
	"strings"
)

// Server is what a STUN or TURN URL means.
type Server struct {
	Host string // a name in lower case and ASCII, or an address
	Port uint16
	TLS  bool
	UDP  bool
}

// String is the URL of a TURN server in full: what tells one from another.
func (s Server) String() string {
	scheme, transport := "turn:", "tcp"
	if s.TLS {
		scheme = "turns:"
	}
	if s.UDP {
		transport = "udp"
	}
	return scheme + JoinHostPort(s.Host, s.Port) + "?transport=" + transport
}

// ParseSTUN reads a URL of RFC 7064. The error says what is wrong, in words that
// follow the URL.
func ParseSTUN(u string) (Server, error) {
	scheme, rest, query, asked := cut(u)
	switch {
	case u == "":
		return Server{}, errors.New("is empty")
	case scheme == "stuns":
		return Server{}, errors.New(`is for STUN over TLS, which is not supported: candidates are of UDP; use "stun:"`)
	case scheme == "turn" || scheme == "turns":
		return Server{}, errors.New("is the URL of a relay, which belongs to TURN")
	case scheme != "stun":
		return Server{}, errors.New(`does not begin with "stun:"`)
	case asked && query != "": // as of "?transport=udp"
		return Server{}, errors.New("has a query, which STUN URLs do not have: the transport is UDP")
	}
	host, port, err := SplitHostPort(rest, 3478)
	return Server{Host: host, Port: port, UDP: true}, err
}

// ParseTURN reads a URL of RFC 7065. The error says what is wrong, in words that
// follow the URL.
func ParseTURN(u string) (Server, error) {
	scheme, rest, query, _ := cut(u)
	s := Server{TLS: scheme == "turns"}
	port := uint16(3478)
	if s.TLS {
		port = 5349
	}
	switch {
	case u == "":
		return Server{}, errors.New("is empty")
	case scheme == "stun" || scheme == "stuns":
		return Server{}, errors.New("is a STUN URL, which names no relay")
	case scheme != "turn" && scheme != "turns":
		return Server{}, errors.New(`does not begin with "turn:" or "turns:"`)
	}
	switch strings.ToLower(query) {
	case "":
		s.UDP = !s.TLS
	case "transport=tcp":
	case "transport=udp":
		if s.TLS {
			return Server{}, errors.New("is for TLS over UDP, which is not supported")
		}
		s.UDP = true
	default:
		return Server{}, errors.New(`has a query that is neither "transport=udp" nor "transport=tcp"`)
	}
	var err error
	s.Host, s.Port, err = SplitHostPort(rest, port)
	return s, err
}

// cut takes a URL apart.
func cut(u string) (scheme, rest, query string, asked bool) {
	u, query, asked = strings.Cut(u, "?")
	scheme, rest, ok := strings.Cut(u, ":")
	if !ok {
		return "", u, query, asked
	}
	return strings.ToLower(scheme), rest, query, asked
}

// Shown is a URL for an error, in quotes, without what might be a password in it.
func Shown(u string) string {
	u, query, _ := strings.Cut(u, "?")
	if i := strings.LastIndex(u, "@"); i >= 0 {
		scheme, _, ok := strings.Cut(u[:i], ":")
		if !ok || len(scheme) > len("stuns") {
			scheme = ""
		} else {
			scheme += ":"
		}
		u = scheme + "…" + u[i:]
	}
	if query != "" {
		if !strings.HasPrefix(strings.ToLower(query), "transport=") || len(query) > len("transport=sctp") {
			query = "…"
		}
		u += "?" + query
	}
	if len(u) > maxShown {
		u = u[:maxShown] + "…"
	}
	return fmt.Sprintf("%q", u)
}
