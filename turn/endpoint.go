package turn

import (
	"crypto/tls"
	"fmt"
	"log/slog"

	"github.com/infrafabric/agentmesh/internal/resolve"
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
	port     uint16
	tls      bool
	datagram bool
}

// parseAddress reads a URL of RFC 7065. Its errors show of it what cannot be a
// password.
func parseAddress(url string) (address, error) {
	if len(url) > maxURL {
		return address{}, fmt.Errorf("%s is longer than %d bytes", resolve.Shown(url), maxURL)
	}
	s, err := resolve.ParseTURN(url)
	if err != nil {
		return address{}, fmt.Errorf("%s %w", resolve.Shown(url), err)
	}
	return address{url: s.String(), host: s.Host, port: s.Port, tls: s.TLS, datagram: s.UDP}, nil
}
