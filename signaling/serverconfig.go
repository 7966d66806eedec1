package signaling

import (
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/metrics"
	"github.com/infrafabric/agentmesh/witness"
)

// ServerConfig configures a [Server]. The zero value is complete: it admits
// every agent that proves its key, under the name by which it was dialled.
// NewServer copies it.
type ServerConfig struct {
	// Names are the names under which agents dial this server: hosts, with the
	// port unless it is 80 or 443; internationalised ones may be written either way. A registration is signed for one of them,
	// which stops a hostile server that forwards this server's challenges. What
	// the Host header says counts for nothing: whoever forwards chooses it.
	// Empty means that the server is for this machine alone: it is the loopback
	// address and port at which a request arrived, or localhost with that port, and
	// refuses registrations for anything else.
	Names []string
	// Trust decides who may register: only a yes admits. It is asked again
	// every RecheckInterval, and at once when it announces a change and when this
	// machine slept or its clock was set. Check must end with its context; one that
	// cannot answer, because its context has ended or the machine is short of
	// something, is asked again: newcomers are told to come back, and who is
	// registered stays for up to five minutes. Nil admits every agent that proves
	// its key; envelopes are verified by their recipients in any case.
	Trust keys.Trust
	// Tokens maps bearer tokens to meshes. When there are any, /stats and
	// /agents need one and show its mesh only. A token has at least 16 bytes.
	Tokens map[string]string
	// Broker connects this server with others. Nil means none.
	Broker Broker
	// AllowedOrigins are the origins, such as "https://app.example", from
	// which browsers may connect. Agents are no browsers and send no Origin;
	// any other request with one is refused, so that a page somebody visits
	// cannot use a server that only his network reaches.
	AllowedOrigins []string
	// MetricsHandler serves /metrics, to whoever asks. Nil means not found.
	MetricsHandler http.Handler
	// Limits bound what agents can use.
	Limits ServerLimits
	// RecheckInterval is how often Trust is asked about the agents that are
	// registered. Zero means 30 s.
	RecheckInterval time.Duration
	// Time is the wall clock, which clients are told and Trust is asked with; it
	// must be safe for concurrent use. Limits do not go by it. Nil means time.Now.
	Time func() time.Time
	// Logger gets what happens to connections. Nil means silence.
	Logger *slog.Logger
	// Recorder gets events. Nil means witness.Discard.
	Recorder witness.Recorder
	// Metrics gets measurements. Nil means none.
	Metrics *metrics.Instruments
}

// ServerLimits bound what agents can use. Zero fields mean their defaults.
type ServerLimits struct {
	// Connections is how many WebSockets may be open, registered or not.
	// Further ones get status 503. Zero means 10,000.
	Connections int
	// Envelope is the greatest size of an envelope in bytes, from 1024 to
	// MaxEnvelope. Zero means MaxEnvelope.
	Envelope int
	// Rate is how many envelopes a second one connection may send, after Burst
	// envelopes at once; both at most 1,000,000. A client is told and keeps to
	// it; one that does not is read only as fast as that. Zero means 50 and
	// 200.
	Rate, Burst int
	// Queue is how many messages, at least 16, may wait for one client. It is
	// bounded by 1 MiB as well. Presence and notices beyond it close the
	// connection. Envelopes may take a quarter of it per author and half in
	// all; beyond that their author is not read for up to a second, then the
	// envelope is dropped and the author told. Zero means 256.
	Queue int
	// Handshake bounds the time from the connection to the registration. Zero
	// means 5 s.
	Handshake time.Duration
	// Idle is how long a connection may be silent, at most a day. Clients ping
	// every 20 s. Zero means 60 s.
	Idle time.Duration
	// Write bounds the time that one message takes to be written; a client
	// that is slower is disconnected. Zero means 10 s.
	Write time.Duration
}

// withDefaults validates c and returns a copy in which nothing is zero that
// has a default.
func (c ServerConfig) withDefaults() (ServerConfig, error) {
	bad := func(field, format string, args ...any) (ServerConfig, error) {
		return c, &ConfigError{Config: "ServerConfig", Field: field, Reason: fmt.Sprintf(format, args...)}
	}
	c.Names = slices.Clone(c.Names)
	for i, n := range c.Names {
		name, err := canonicalHost(n)
		if err == nil && len(name) > MaxServerName {
			err = fmt.Errorf("%d bytes, more than %d", len(name), MaxServerName)
		}
		if err != nil {
			return bad(fmt.Sprintf("Names[%d]", i), "%q is not a host with an optional port: %v", cut(n, MaxServerName), err)
		}
		c.Names[i] = name
	}
	c.Tokens = maps.Clone(c.Tokens)
	for token, mesh := range c.Tokens { // never the token itself in an error
		if len(token) < 16 {
			return bad("Tokens", "the token of mesh %q is shorter than 16 bytes", mesh)
		}
		if err := keys.CheckMesh(mesh); err != nil {
			return c, &ConfigError{Config: "ServerConfig", Field: "Tokens", Reason: err.Error(), Err: err}
		}
	}
	c.AllowedOrigins = slices.Clone(c.AllowedOrigins)
	for i, o := range c.AllowedOrigins {
		if u, err := url.Parse(o); err != nil || u.Scheme == "" || u.Host == "" || o != u.Scheme+"://"+u.Host {
			return bad(fmt.Sprintf("AllowedOrigins[%d]", i), "not SCHEME://HOST")
		}
	}
	var err error
	if c.Limits, err = c.Limits.withDefaults(); err != nil {
		return c, err
	}
	if c.RecheckInterval < 0 {
		return bad("RecheckInterval", "%v is negative", c.RecheckInterval)
	}
	if c.RecheckInterval == 0 {
		c.RecheckInterval = 30 * time.Second
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
		c.Metrics, err = metrics.New(nil)
	}
	return c, err
}

func (l ServerLimits) withDefaults() (ServerLimits, error) {
	for _, f := range []struct {
		name                       string
		value                      *int
		otherwise, lowest, highest int
	}{
		{"Connections", &l.Connections, 10_000, 1, 10_000_000},
		{"Envelope", &l.Envelope, MaxEnvelope, 1024, MaxEnvelope},
		{"Rate", &l.Rate, 50, 1, maxRate},
		{"Burst", &l.Burst, 200, 1, maxRate},
		{"Queue", &l.Queue, 256, 16, 1_000_000},
	} {
		if *f.value == 0 {
			*f.value = f.otherwise
		}
		if *f.value < f.lowest || *f.value > f.highest {
			return l, &ConfigError{Config: "ServerConfig", Field: "Limits." + f.name,
				Reason: fmt.Sprintf("%d is not from %d to %d", *f.value, f.lowest, f.highest)}
		}
	}
	for _, f := range []struct {
		name      string
		value     *time.Duration
		otherwise time.Duration
	}{
		{"Handshake", &l.Handshake, 5 * time.Second},
		{"Idle", &l.Idle, time.Minute},
		{"Write", &l.Write, 10 * time.Second},
	} {
		if *f.value == 0 {
			*f.value = f.otherwise
		}
		if *f.value < time.Millisecond || *f.value > 24*time.Hour {
			return l, &ConfigError{Config: "ServerConfig", Field: "Limits." + f.name,
				Reason: fmt.Sprintf("%v is not from 1ms to 24h", *f.value)}
		}
	}
	return l, nil
}
