package turn

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/pion/transport/v5"
	"github.com/pion/transport/v5/stdnet"
	"go.opentelemetry.io/otel/metric"

	"github.com/infrafabric/agentmesh/witness"
)

// PoolConfig configures a [Pool]. Zero fields mean the defaults that they
// document. NewPool copies it.
type PoolConfig struct {
	// Endpoints are the ways to TURN servers; those that are not probed yet are
	// used in this order. At most MaxEndpoints, each URL once. They may be none:
	// Add can follow.
	Endpoints []Endpoint
	// Net is the network that probes use. Nil means the system's. Sessions must
	// use the same, or the Pool's verdicts are about another. Names are looked up by its
	// method LookupNetIP, if it has one like that of [*net.Resolver], and otherwise by
	// [net.DefaultResolver].
	Net transport.Net
	// Time returns the time of the world, by which credentials end; it must be safe
	// for concurrent use. Nil means time.Now.
	Time func() time.Time
	// ProbeEvery is between two probes of a healthy endpoint, give or take 20 %.
	// Zero means 30 s; at least 1 s.
	ProbeEvery time.Duration
	// ProbeTimeout bounds one probe. Zero means DefaultProbeTimeout; at least
	// 100 ms, at most 30 s.
	ProbeTimeout time.Duration
	// Failures is how many probes in a row must fail until a healthy endpoint is
	// unhealthy, unless a doubt caused the probe. Zero means 3; at most 100.
	Failures int
	// AgentID is the agent in the events.
	AgentID string
	// Logger gets what becomes of endpoints. Nil means silence.
	Logger *slog.Logger
	// MeterProvider makes the instruments of package metrics. Nil means none.
	MeterProvider metric.MeterProvider
	// Recorder gets the events of package witness. Nil means witness.Discard.
	Recorder witness.Recorder
}

// withDefaults validates c and returns a copy in which nothing that is needed is
// zero.
func (c PoolConfig) withDefaults() (PoolConfig, error) {
	for _, d := range []struct {
		field                  string
		value                  *time.Duration
		otherwise, least, most time.Duration
	}{
		{"ProbeEvery", &c.ProbeEvery, 30 * time.Second, time.Second, 24 * time.Hour},
		{"ProbeTimeout", &c.ProbeTimeout, DefaultProbeTimeout, 100 * time.Millisecond, 30 * time.Second},
	} {
		if *d.value == 0 {
			*d.value = d.otherwise
		}
		if *d.value < d.least || *d.value > d.most {
			return c, &ConfigError{"PoolConfig." + d.field, fmt.Sprintf("is not between %v and %v", d.least, d.most)}
		}
	}
	if c.Failures == 0 {
		c.Failures = 3
	}
	if c.Failures < 0 || c.Failures > 100 {
		return c, &ConfigError{"PoolConfig.Failures", "is not between 1 and 100"}
	}
	if c.Net == nil {
		n, err := stdnet.NewNet()
		if err != nil {
			return c, fmt.Errorf("system's network: %w", err)
		}
		c.Net = n
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
	return c, nil
}
