package signaling

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/metrics"
	"github.com/infrafabric/agentmesh/witness"
)

// ClientConfig configures a [Client]. Zero fields mean the defaults that they
// document. NewClient copies it.
type ClientConfig struct {
	// Identity is who registers. Required.
	Identity *keys.Identity
	// Mesh is the mesh to register in. Required.
	Mesh string
	// Instance is the running node. Zero means a new random one.
	Instance Instance
	// URLs are the servers in order of priority, most wanted first: ws or wss,
	// or http and https, which mean the same. At least one, at most MaxURLs,
	// each once. User information and query are sent to the server and never
	// logged. With ws everybody on the way can see who talks to whom.
	URLs []string
	// MaxServers is how many servers to be registered with at once; further
	// URLs are spares, used while a server before them is missing. Zero means
	// 3.
	MaxServers int
	// HTTPClient dials: proxies, TLS roots and client certificates are its
	// transport's. Redirects are not followed. A transport of net/http goes on
	// dialling after a connection attempt was given up, so its dialer needs a
	// timeout. Nil means a client that takes proxies from the environment.
	HTTPClient *http.Client
	// ConnectTimeout bounds connecting and registering together. Zero means 5 s.
	ConnectTimeout time.Duration
	// MinBackoff and MaxBackoff bound the pause between attempts, which doubles
	// from one to the other, give or take 20 %. Zero means 250 ms and 30 s.
	MinBackoff, MaxBackoff time.Duration
	// RetryRefused is the pause after a server refused the agent. Zero means
	// five minutes, give or take 20 %.
	RetryRefused time.Duration
	// PingInterval is how often an open connection is probed, PingTimeout how
	// long the answer may take before the connection is given up. Zero means
	// 20 s and 10 s.
	PingInterval, PingTimeout time.Duration
	// Logger gets what happens to connections. Nil means silence.
	Logger *slog.Logger
	// Recorder gets events. Nil means witness.Discard.
	Recorder witness.Recorder
	// Metrics gets measurements. Nil means none.
	Metrics *metrics.Instruments
}

// withDefaults validates c and returns a copy in which nothing is zero.
func (c ClientConfig) withDefaults() (ClientConfig, error) {
	bad := func(field, reason string) (ClientConfig, error) {
		return c, fmt.Errorf("ClientConfig.%s: %s", field, reason)
	}
	if c.Identity == nil || c.Identity.PublicKey().IsZero() {
		return bad("Identity", "missing")
	}
	if err := keys.CheckMesh(c.Mesh); err != nil {
		return c, fmt.Errorf("ClientConfig.Mesh: %w", err)
	}
	if c.Instance.IsZero() {
		c.Instance = NewInstance()
	}
	switch {
	case len(c.URLs) == 0:
		return bad("URLs", "empty")
	case len(c.URLs) > MaxURLs:
		return bad("URLs", fmt.Sprintf("%d servers, more than %d", len(c.URLs), MaxURLs))
	case c.MaxServers < 0:
		return bad("MaxServers", "negative")
	case c.MaxServers == 0:
		c.MaxServers = 3
	}
	for _, d := range []struct {
		field     string
		value     *time.Duration
		otherwise time.Duration
	}{
		{"ConnectTimeout", &c.ConnectTimeout, 5 * time.Second},
		{"MinBackoff", &c.MinBackoff, 250 * time.Millisecond},
		{"MaxBackoff", &c.MaxBackoff, 30 * time.Second},
		{"RetryRefused", &c.RetryRefused, 5 * time.Minute},
		{"PingInterval", &c.PingInterval, 20 * time.Second},
		{"PingTimeout", &c.PingTimeout, 10 * time.Second},
	} {
		if *d.value < 0 {
			return bad(d.field, "negative")
		}
		if *d.value == 0 {
			*d.value = d.otherwise
		}
	}
	if c.MaxBackoff < c.MinBackoff {
		return bad("MaxBackoff", "smaller than MinBackoff")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Recorder == nil {
		c.Recorder = witness.Discard
	}
	if c.Metrics == nil {
		none, err := metrics.New(nil)
		if err != nil {
			return c, err
		}
		c.Metrics = none
	}
	return c, nil
}

// target is one server to connect to.
type target struct {
	url   string // to dial; may hold secrets
	label string // for people
	name  string // what the registration is signed for
}

// parseTargets reads ClientConfig.URLs.
func parseTargets(urls []string) ([]target, error) {
	var out []target
	seen := make(map[string]bool)
	for i, s := range urls {
		bad := func(reason string) ([]target, error) {
			// Never the URL itself: it may hold a password.
			return nil, fmt.Errorf("ClientConfig.URLs[%d]: %s", i, reason)
		}
		u, err := url.Parse(s)
		if err != nil {
			var ue *url.Error
			if errors.As(err, &ue) {
				err = ue.Err
			}
			return bad("not a URL: " + err.Error())
		}
		switch u.Scheme {
		case "ws", "wss":
		case "http":
			u.Scheme = "ws"
		case "https":
			u.Scheme = "wss"
		default:
			return bad("the scheme is not ws or wss")
		}
		if u.Host == "" || len(u.Host) > MaxServerName {
			return bad("no host, or one that is too long")
		}
		if u.Fragment != "" {
			return bad("a fragment")
		}
		label := (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
		if seen[label] {
			return bad("a server that is listed before")
		}
		seen[label] = true
		out = append(out, target{url: u.String(), label: label, name: serverName(u.Host)})
	}
	return out, nil
}
