package turn

import (
	"net"
	"net/netip"
	"testing"
	"time"
)

// TestContract: the figures that the documentation names are what they were.
func TestContract(t *testing.T) {
	p, err := PoolConfig{}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	local := netip.MustParseAddr("127.0.0.1")
	in := ServerConfig{Listeners: []net.Listener{l}, RelayIPs: []RelayIP{{Public: local}}, Secrets: []string{"0123456789abcdef"}}
	s, err := in.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []struct {
		name      string
		got, want int
	}{
		{"MaxEndpoints", MaxEndpoints, 64},
		{"MaxUsername", MaxUsername, 508},
		{"MaxPassword", MaxPassword, 1024},
		{"maxURL", maxURL, 320},
		{"maxUsername", maxUsername, 508},
		{"maxRealm", maxRealm, 20},
		{"minSecret", minSecret, 16},
		{"minPassword", minPassword, 8},
		{"maxDatagram", maxDatagram, 1600},
		{"amplification", amplification, 3},
		{"maxPermissions", maxPermissions, 256},
		{"maxChannels", maxChannels, 256},
		{"minBurst", minBurst, 16_384},
		{"Failures", p.Failures, 3},
		{"PortMin", int(s.PortMin), 49152},
		{"PortMax", int(s.PortMax), 65535},
		{"MaxAllocations", s.MaxAllocations, 4096},
		{"MaxAllocationsPerUser", s.MaxAllocationsPerUser, 256},
		{"BytesPerSecond", s.BytesPerSecond, 16_777_216},
		{"MaxConnections", s.MaxConnections, 4096},
		{"AnswersPerSecond", s.AnswersPerSecond, 100},
	} {
		if n.got != n.want {
			t.Errorf("%s is %d, and %d is documented", n.name, n.got, n.want)
		}
	}
	for _, d := range []struct {
		name      string
		got, want time.Duration
	}{
		{"ProbeEvery", p.ProbeEvery, 30 * time.Second},
		{"ProbeTimeout", p.ProbeTimeout, 5 * time.Second},
		{"Lifetime", s.Lifetime, 10 * time.Minute},
		{"connIdle", connIdle, 10 * time.Second},
		{"connWrite", connWrite, 10 * time.Second},
	} {
		if d.got != d.want {
			t.Errorf("%s is %v, and %v is documented", d.name, d.got, d.want)
		}
	}
	if s.Realm != "agentmesh" {
		t.Errorf("the realm is %q", s.Realm)
	}
}

// TestConfigIsKept: what a configuration gives is not replaced by a default, and the
// limits of its fields are themselves good.
func TestConfigIsKept(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	local := netip.MustParseAddr("127.0.0.1")
	for _, in := range []ServerConfig{
		{MaxAllocations: 1, MaxAllocationsPerUser: 1, BytesPerSecond: 1024, MaxConnections: 1, AnswersPerSecond: 1, Lifetime: time.Second, PortMin: 5000, PortMax: 5000, Realm: "a"},
		{MaxAllocations: 1e6, MaxAllocationsPerUser: 1e6, BytesPerSecond: 1 << 30, MaxConnections: 1e6, AnswersPerSecond: 1e6, Lifetime: time.Hour, PortMin: 1, PortMax: 65535, Realm: "twenty bytes, really"},
	} {
		in.Listeners, in.RelayIPs, in.Secrets = []net.Listener{l}, []RelayIP{{Public: local}}, []string{"0123456789abcdef"}
		got, err := in.withDefaults()
		if err != nil {
			t.Error(err)
		}
		if got.MaxAllocations != in.MaxAllocations || got.MaxAllocationsPerUser != in.MaxAllocationsPerUser || got.BytesPerSecond != in.BytesPerSecond ||
			got.MaxConnections != in.MaxConnections || got.AnswersPerSecond != in.AnswersPerSecond || got.Lifetime != in.Lifetime ||
			got.PortMin != in.PortMin || got.PortMax != in.PortMax || got.Realm != in.Realm {
			t.Errorf("%+v\nbecame %+v", in, got)
		}
	}
	for _, in := range []PoolConfig{
		{ProbeEvery: time.Second, ProbeTimeout: 100 * time.Millisecond, Failures: 1},
		{ProbeEvery: 24 * time.Hour, ProbeTimeout: 30 * time.Second, Failures: 100},
	} {
		got, err := in.withDefaults()
		if err != nil || got.ProbeEvery != in.ProbeEvery || got.ProbeTimeout != in.ProbeTimeout || got.Failures != in.Failures {
			t.Errorf("%+v\nbecame %+v, %v", in, got, err)
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
		{"maxMessage", maxMessage, 2048},
		{"maxStray", maxStray, 256},
		{"maxTries", maxTries, 3},
		{"patienceFactor", patienceFactor, 8},
		{"maxEvents", maxEvents, 256},
		{"maxSources", maxSources, 65_536},
		{"maxEarlyAnswers", maxEarlyAnswers, 16},
		{"maxPortTries", maxPortTries, 64},
		{"burstPart", burstPart, 10},
	} {
		if n.got != n.want {
			t.Errorf("%s is %d, and was %d", n.name, n.got, n.want)
		}
	}
	for _, d := range []struct {
		name      string
		got, want time.Duration
	}{
		{"doubtPause", doubtPause, time.Second},
		{"retryPause", retryPause, time.Second},
		{"maxPause", maxPause, 30 * time.Second},
		{"knockPause", knockPause, 750 * time.Millisecond},
		{"firstResend", firstResend, 250 * time.Millisecond},
		{"leastResend", leastResend, 200 * time.Millisecond},
		{"maxResend", maxResend, 800 * time.Millisecond},
		{"doubtResend", doubtResend, 100 * time.Millisecond},
		{"patience", patience, 2 * time.Second},
		{"doubtPatience", doubtPatience, 1200 * time.Millisecond},
		{"streamPatience", streamPatience, 3 * time.Second},
		{"freeWait", freeWait, 500 * time.Millisecond},
		{"nextAddress", nextAddress, 250 * time.Millisecond},
		{"clockTick", clockTick, time.Second},
		{"eventsWait", eventsWait, time.Second},
		{"firstWait", firstWait, 100 * time.Millisecond},
		{"fetchTimeout", fetchTimeout, 10 * time.Second},
		{"fetchAhead", fetchAhead, time.Minute},
		{"rankMargin", rankMargin, 5 * time.Millisecond},
	} {
		if d.got != d.want {
			t.Errorf("%s is %v, and was %v", d.name, d.got, d.want)
		}
	}
	if jitter != 0.2 {
		t.Errorf("jitter is %v, and was 0.2", jitter)
	}
}
