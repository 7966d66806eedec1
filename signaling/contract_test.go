package signaling

import (
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/keys"
)

// TestContract: the figures that the documentation names, and that other
// implementations of the protocol go by, are what they were.
func TestContract(t *testing.T) {
	id, err := keys.Generate("agent-a")
	if err != nil {
		t.Fatal(err)
	}
	s, err := ServerConfig{}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	c, err := ClientConfig{Identity: id, Mesh: "m", URLs: []string{"ws://s1/"}}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []struct {
		name      string
		got, want int64
	}{
		{"MaxEnvelope", MaxEnvelope, 65536},
		{"MaxBody", MaxBody, 63488},
		{"MaxMessage", MaxMessage, 65552},
		{"MaxServerName", MaxServerName, 260},
		{"MaxNoticeText", MaxNoticeText, 512},
		{"MaxPresenceBatch", MaxPresenceBatch, 128},
		{"maxTime", maxTime, time.Date(9999, 12, 31, 23, 59, 59, 999e6, time.UTC).UnixMilli()},
		{"maxRate", maxRate, 1_000_000},
		{"MaxPresenceSnapshot", MaxPresenceSnapshot, 1024},
		{"MaxRecipients", MaxRecipients, 4},
		{"MaxOffences", MaxOffences, 8},
		{"MaxListed", MaxListed, 10_000},
		{"MaxRemote", MaxRemote, 1_000_000},
		{"MaxURLs", MaxURLs, 32},
		{"Limits.Connections", int64(s.Limits.Connections), 10_000},
		{"Limits.Envelope", int64(s.Limits.Envelope), MaxEnvelope},
		{"Limits.Rate", int64(s.Limits.Rate), 50},
		{"Limits.Burst", int64(s.Limits.Burst), 200},
		{"Limits.Queue", int64(s.Limits.Queue), 256},
		{"MaxServers", int64(c.MaxServers), 3},
	} {
		if n.got != n.want {
			t.Errorf("%s is %d, and %d is documented", n.name, n.got, n.want)
		}
	}
	for _, d := range []struct {
		name      string
		got, want time.Duration
	}{
		{"Limits.Handshake", s.Limits.Handshake, 5 * time.Second},
		{"Limits.Idle", s.Limits.Idle, time.Minute},
		{"Limits.Write", s.Limits.Write, 10 * time.Second},
		{"RecheckInterval", s.RecheckInterval, 30 * time.Second},
		{"trustGrace", trustGrace, 5 * time.Minute},
		{"relayWait", relayWait, time.Second},
		{"ConnectTimeout", c.ConnectTimeout, 5 * time.Second},
		{"MinBackoff", c.MinBackoff, 250 * time.Millisecond},
		{"MaxBackoff", c.MaxBackoff, 30 * time.Second},
		{"RetryRefused", c.RetryRefused, 5 * time.Minute},
		{"RetryReplaced", c.RetryReplaced, time.Minute},
		{"PingInterval", c.PingInterval, 20 * time.Second},
		{"PingTimeout", c.PingTimeout, 10 * time.Second},
	} {
		if d.got != d.want {
			t.Errorf("%s is %v, and %v is documented", d.name, d.got, d.want)
		}
	}
}

// TestConfigIsKept: what a configuration gives is not replaced by a default, and the
// limits of its fields are themselves good.
func TestConfigIsKept(t *testing.T) {
	low := ServerLimits{Connections: 1, Envelope: 1024, Rate: 1, Burst: 1, Queue: 16,
		Handshake: time.Millisecond, Idle: time.Millisecond, Write: time.Millisecond}
	high := ServerLimits{Connections: 10_000_000, Envelope: MaxEnvelope, Rate: maxRate, Burst: maxRate, Queue: 1_000_000,
		Handshake: 24 * time.Hour, Idle: 24 * time.Hour, Write: 24 * time.Hour}
	for _, l := range []ServerLimits{low, high} {
		if got, err := l.withDefaults(); err != nil || got != l {
			t.Errorf("%+v\nbecame %+v, %v", l, got, err)
		}
	}
	if s, err := (ServerConfig{RecheckInterval: 7 * time.Second}).withDefaults(); err != nil || s.RecheckInterval != 7*time.Second {
		t.Errorf("RecheckInterval %v, %v", s.RecheckInterval, err)
	}
	id, err := keys.Generate("agent-a")
	if err != nil {
		t.Fatal(err)
	}
	in := ClientConfig{Identity: id, Mesh: "m", URLs: []string{"ws://s1/"}, Instance: NewInstance(), MaxServers: 1,
		ConnectTimeout: 1, MinBackoff: 2, MaxBackoff: 2, RetryRefused: 4, RetryReplaced: 5, PingInterval: 6, PingTimeout: 7}
	c, err := in.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	if c.Instance != in.Instance || c.MaxServers != 1 || c.ConnectTimeout != 1 || c.MinBackoff != 2 || c.MaxBackoff != 2 ||
		c.RetryRefused != 4 || c.RetryReplaced != 5 || c.PingInterval != 6 || c.PingTimeout != 7 {
		t.Errorf("%+v\nbecame %+v", in, c)
	}
}

// TestWireTime: what is no time on the wire is none, and 0 is none.
func TestWireTime(t *testing.T) {
	last := time.UnixMilli(maxTime).UTC()
	for _, at := range []time.Time{time.UnixMilli(1).UTC(), last, {}} {
		if got := timeOf(wireTime(at)); !got.Equal(at) || got.Location() != time.UTC {
			t.Errorf("%v became %v", at, got)
		}
	}
	for _, at := range []time.Time{time.UnixMilli(0), time.UnixMilli(-1), last.Add(time.Millisecond)} {
		if got := wireTime(at); got != 0 {
			t.Errorf("%v is %d", at, got)
		}
	}
}

// TestFigures: what was chosen by measuring, or against one another, is what it was. Whoever
// changes one changes it here as well, and says why.
func TestFigures(t *testing.T) {
	for _, n := range []struct {
		name      string
		got, want int64
	}{
		{"maxArray", maxArray, 128},
		{"maxString", maxString, 65_552},
		{"maxCertFile", maxCertFile, 1_048_576},
		{"outboxBytes", outboxBytes, 1_048_576},
		{"senderShare", senderShare, 4},
		{"sendQueue", sendQueue, 64},
		{"eventQueue", eventQueue, 64},
		{"maxProxyAnswer", maxProxyAnswer, 65_536},
		{"maxRefusal", maxRefusal, 200},
	} {
		if n.got != n.want {
			t.Errorf("%s is %d, and was %d", n.name, n.got, n.want)
		}
	}
	for _, d := range []struct {
		name      string
		got, want time.Duration
	}{
		{"clockTick", clockTick, time.Second},
		{"closeTimeout", closeTimeout, time.Second},
		{"stableTime", stableTime, 5 * time.Second},
		{"probeTimeout", probeTimeout, 3 * time.Second},
		{"spareDelay", spareDelay, 2 * time.Second},
	} {
		if d.got != d.want {
			t.Errorf("%s is %v, and was %v", d.name, d.got, d.want)
		}
	}
}
