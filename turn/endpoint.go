package turn

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"

	"github.com/pion/stun/v4"
)

// Endpoint is one way to a TURN server. A server that is reached over UDP, TCP
// and TLS, or by several addresses, is as many endpoints.
type Endpoint struct {
	// URL is where and how, as in [Relay]. "turns" with UDP (DTLS) is not
	// supported.
	URL string
	// Credentials are asked for what to authenticate with. Required.
	Credentials Credentials
	// TLS is for "turns" URLs, as in [Relay].
	TLS *tls.Config
}

// String returns the URL alone.
func (e Endpoint) String() string { return e.URL }

// GoString returns the URL alone.
func (e Endpoint) GoString() string { return fmt.Sprintf("turn.Endpoint{URL: %q}", e.URL) }

// LogValue returns the URL alone.
func (e Endpoint) LogValue() slog.Value { return slog.StringValue(e.URL) }

// validate returns a *ConfigError that names a field of an Endpoint.
func (e Endpoint) validate() (address, error) {
	a, err := parseAddress(e.URL)
	if err != nil {
		return a, &ConfigError{"Endpoint.URL", err.Error()}
	}
	if e.Credentials == nil {
		return a, &ConfigError{"Endpoint.Credentials", "missing"}
	}
	return a, nil
}

// address is what a URL means.
type address struct {
	url      string // as RFC 7065 writes it in full: what tells endpoints apart
	host     string // name or IP, for TLS
	hostPort string // to dial
	tls      bool
	datagram bool
}

// parseAddress reads a URL of RFC 7065. Its errors do not contain the URL, which
// may hold what its writer took for a place for a password.
func parseAddress(url string) (address, error) {
	if len(url) > maxURL {
		return address{}, fmt.Errorf("longer than %d bytes", maxURL)
	}
	u, err := stun.ParseURI(url)
	switch {
	case err != nil:
		return address{}, errNotTURN
	case u.Scheme != stun.SchemeTypeTURN && u.Scheme != stun.SchemeTypeTURNS:
		return address{}, errNotTURN
	case strings.ContainsAny(u.Host, "@/?# "):
		return address{}, errNotTURN
	case u.Port < 1 || u.Port > 65535:
		return address{}, errPort
	case u.Scheme == stun.SchemeTypeTURNS && u.Proto == stun.ProtoTypeUDP:
		return address{}, errDTLS
	}
	u.Host = strings.ToLower(u.Host)
	return address{
		url:      u.String(),
		host:     u.Host,
		hostPort: net.JoinHostPort(u.Host, strconv.Itoa(u.Port)),
		tls:      u.Scheme == stun.SchemeTypeTURNS,
		datagram: u.Proto == stun.ProtoTypeUDP,
	}, nil
}

// urlError is why a URL is refused.
type urlError string

func (e urlError) Error() string { return string(e) }

const (
	errNotTURN urlError = "not a turn or turns URL"
	errPort    urlError = "the port is not between 1 and 65535"
	errDTLS    urlError = "turns over UDP is not supported"
)
