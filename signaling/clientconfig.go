package signaling

import (
	"fmt"
	"log/slog"
	"net/http"
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
	// shown, the path is. Hosts may be internationalised names and, with a zone
	// (RFC 6874: [fe80::1%25eth0]), link-local addresses. With ws everybody on
	// the way can see who talks to whom. Two URLs may lead to one server: the
	// client is then registered by one of them.
	URLs []string
	// MaxServers is how many servers to be registered with at once; further
	// URLs are spares, used while a server before them is missing. Zero means
	// 3.
	MaxServers int
	// HTTPClient dials: proxies, TLS roots and client certificates are its
	// transport's. Of an http.Transport only the settings are used: each attempt
	// has a transport of its own, which keeps no connection and ends with the
	// attempt. Through an HTTP proxy both ws and wss use CONNECT. Redirects are
	// not followed. Nil means a client that takes proxies from the environment,
	// as http.ProxyFromEnvironment does.
	HTTPClient *http.Client
	// ConnectTimeout bounds connecting and registering together. Zero means 5 s.
	ConnectTimeout time.Duration
	// MinBackoff and MaxBackoff bound the pause between attempts, which doubles
	// from one to the other, give or take 20 %. Zero means 250 ms and 30 s.
	MinBackoff, MaxBackoff time.Duration
	// RetryRefused is the pause after a server refused the agent. Zero means
	// five minutes, give or take 20 %.
	RetryRefused time.Duration
	// RetryReplaced is the pause before this client asks whether the process that
	// took its place is gone, which happens in StateReplaced. It does not take the
	// place back from one that is there. Zero means one minute, give or take 20 %.
	RetryReplaced time.Duration
	// PingInterval is how often an open connection is probed, PingTimeout how
	// long the answer may take before the connection is given up. Zero means
	// 20 s and 10 s.
	PingInterval, PingTimeout time.Duration
	// Time is the wall clock, and must be safe for concurrent use. Liveness and
	// pauses do not go by it. When it leaves the monotonic clock, because the
	// machine slept or the clock was set, the client probes its servers. Nil means
	// time.Now.
	Time func() time.Time
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
		return c, &ConfigError{Config: "ClientConfig", Field: field, Reason: reason}
	}
	if c.Identity == nil || c.Identity.PublicKey().IsZero() {
		return bad("Identity", "missing")
	}
	if err := keys.CheckMesh(c.Mesh); err != nil {
		return c, &ConfigError{Config: "ClientConfig", Field: "Mesh", Reason: err.Error(), Err: err}
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
		return bad("MaxServers", fmt.Sprintf("%d is negative", c.MaxServers))
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
		{"RetryReplaced", &c.RetryReplaced, time.Minute},
		{"PingInterval", &c.PingInterval, 20 * time.Second},
		{"PingTimeout", &c.PingTimeout, 10 * time.Second},
	} {
		if *d.value < 0 {
			return bad(d.field, fmt.Sprintf("%v is negative", *d.value))
		}
		if *d.value == 0 {
			*d.value = d.otherwise
		}
	}
	if c.MaxBackoff < c.MinBackoff {
		return bad("MaxBackoff", fmt.Sprintf("%v is less than MinBackoff, %v", c.MaxBackoff, c.MinBackoff))
	}
	if c.Time == nil {
		c.Time = time.Now
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
