package turn

import (
	"crypto/tls"
	"net"
	"net/netip"
	"testing"
	"time"
)

// TestSameRelay: a relay is another when anything of it is that a session depends on.
func TestSameRelay(t *testing.T) {
	one := func() Relay {
		return Relay{URL: "turn:r", Address: netip.MustParseAddr("192.0.2.1"), Username: "u", Password: "p", Expires: time.Unix(1e9, 0)}
	}
	if !sameRelay(one(), one()) {
		t.Error("a relay is not itself")
	}
	elsewhere := one()
	elsewhere.Expires = elsewhere.Expires.In(time.FixedZone("", 3600))
	if !sameRelay(one(), elsewhere) {
		t.Error("one moment in two zones is two")
	}
	for name, change := range map[string]func(r *Relay){
		"URL":      func(r *Relay) { r.URL = "turn:s" },
		"Address":  func(r *Relay) { r.Address = netip.MustParseAddr("192.0.2.2") },
		"Username": func(r *Relay) { r.Username = "v" },
		"Password": func(r *Relay) { r.Password = "q" },
		"Expires":  func(r *Relay) { r.Expires = r.Expires.Add(1) },
		"Down":     func(r *Relay) { r.Down = true },
		"TLS":      func(r *Relay) { r.TLS = new(tls.Config) },
	} {
		r := one()
		if change(&r); sameRelay(one(), r) || sameRelay(r, one()) {
			t.Errorf("another %s makes no difference", name)
		}
	}
}

// TestServerKeepsItsConfiguration: what a caller does to its slices afterwards changes nothing.
func TestServerKeepsItsConfiguration(t *testing.T) {
	allow, deny := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
	relays := []RelayIP{{Public: loopback4}}
	conns := []net.PacketConn{udp(t, loopback4)}
	var kept ServerConfig
	s := serve(t, func(c *ServerConfig) {
		c.AllowPeers, c.DenyPeers, c.RelayIPs, c.PacketConns = allow, deny, relays, conns
		kept = *c
	})
	allow[0], deny[0] = netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("127.0.0.0/8")
	relays[0] = RelayIP{Public: netip.MustParseAddr("198.51.100.1")}
	conns[0] = nil
	if s.cfg.AllowPeers[0] == allow[0] || s.cfg.DenyPeers[0] == deny[0] || s.cfg.RelayIPs[0] == relays[0] || s.cfg.PacketConns[0] == nil {
		t.Errorf("%v", s.cfg)
	}
	if kept.Secrets == nil || kept.Users == nil {
		t.Error("the caller's secrets are gone")
	}
	c := call(t, s.addr(), "u", serverPassword)
	c.mustAllocate()
	if code := c.permit(netip.MustParseAddr("198.51.100.7")); code != 403 {
		t.Errorf("a peer that is denied: %d", code)
	}
}

// TestGrants: permissions and channels of an allocation are noted, given back, and bounded.
func TestGrants(t *testing.T) {
	g := newGrants()
	for i := range maxPermissions {
		at := netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)})
		if !g.room(at, 0) {
			t.Fatalf("no room for permission %d", i)
		}
		g.permission(at.AsSlice(), true)
	}
	first, more := netip.AddrFrom4([4]byte{192, 0, 0, 0}), netip.AddrFrom4([4]byte{198, 51, 100, 1})
	if !g.room(first, 0) || g.room(more, 0) {
		t.Error("the limit is not one of new permissions")
	}
	g.permission(more.AsSlice(), false) // which it never had
	if g.room(more, 0) {
		t.Error("room is made by what was not there")
	}
	g.permission(first.AsSlice(), false)
	if !g.room(more, 0) {
		t.Error("no room although one was given back")
	}
	for i := range uint16(maxChannels) {
		if !g.room(more, 0x4000+i) {
			t.Fatalf("no room for channel %d", i)
		}
		g.channel(0x4000+i, true)
	}
	if !g.room(more, 0x4000) || g.room(more, 0x4000+maxChannels) {
		t.Error("the limit is not one of new channels")
	}
	g.channel(0x4000, false)
	if !g.room(more, 0x4000+maxChannels) {
		t.Error("no room although a channel was given back")
	}
}

// TestProbeIsDue: the next probe of a relay comes after its pause, when what holds it back
// is over, or at once where this credential was never tried.
func TestProbeIsDue(t *testing.T) {
	began := time.Unix(1e9, 0)
	m := func(change func(m *member)) *member {
		m := &member{began: began, probed: 3}
		m.renewal.version = 3
		change(m)
		return m
	}
	every := 10 * time.Second
	pause := m(func(*member) {}).breaker.pause(every, false, false)
	for name, c := range map[string]struct {
		m    *member
		want time.Time
	}{
		"after its pause":       {m(func(*member) {}), began.Add(pause)},
		"held back":             {m(func(m *member) { m.hold = began.Add(time.Hour) }), began.Add(time.Hour)},
		"no longer held back":   {m(func(m *member) { m.hold = began }), began.Add(pause)},
		"never":                 {m(func(m *member) { m.began = time.Time{} }), time.Time{}},
		"with a newer password": {m(func(m *member) { m.renewal.version = 4 }), began},
		"with a later pause":    {m(func(m *member) { m.spread = 1 }), began.Add(spreadBy(pause, 1))},
	} {
		if got := c.m.due(every, false); !got.Equal(c.want) {
			t.Errorf("%s: %v after it began", name, got.Sub(began))
		}
	}
	if pause <= 0 {
		t.Errorf("the pause is %v", pause)
	}
}
