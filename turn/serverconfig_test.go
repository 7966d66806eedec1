package turn

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pion/stun/v4"
)

func TestServerConfigErrors(t *testing.T) {
	good := func() ServerConfig {
		return ServerConfig{PacketConns: []net.PacketConn{udp(t, loopback4)}, RelayIPs: []RelayIP{{Public: loopback4}}, Secrets: []string{testSecret}}
	}
	addr := netip.MustParseAddr
	for field, change := range map[string]func(*ServerConfig){
		"PacketConns":           func(c *ServerConfig) { c.PacketConns = nil },
		"Listeners":             func(c *ServerConfig) { c.Listeners = []net.Listener{nil} },
		"RelayIPs":              func(c *ServerConfig) { c.RelayIPs = nil },
		"RelayIPs[0].Public":    func(c *ServerConfig) { c.RelayIPs[0].Public = addr("0.0.0.0") },
		"RelayIPs[0].Bind":      func(c *ServerConfig) { c.RelayIPs[0].Bind = loopback6 },
		"RelayIPs[1]":           func(c *ServerConfig) { c.RelayIPs = append(c.RelayIPs, RelayIP{Public: addr("1.1.1.1")}) },
		"RelayIPs[1].Public":    func(c *ServerConfig) { c.RelayIPs = append(c.RelayIPs, RelayIP{Public: addr("::ffff:1.1.1.1")}) },
		"PortMax":               func(c *ServerConfig) { c.PortMin, c.PortMax = 2, 1 },
		"Realm":                 func(c *ServerConfig) { c.Realm = "a realm that is too long" },
		"Secrets":               func(c *ServerConfig) { c.Secrets = nil }, // no default credentials
		"Secrets[0]":            func(c *ServerConfig) { c.Secrets[0] = testSecret[1:] },
		"Users":                 func(c *ServerConfig) { c.Users = map[string]string{"u": serverPassword[:7]} },
		"AllowPeers[0]":         func(c *ServerConfig) { c.AllowPeers = []netip.Prefix{{}} },
		"DenyPeers[0]":          func(c *ServerConfig) { c.DenyPeers = []netip.Prefix{netip.MustParsePrefix("::ffff:1.1.1.1/128")} },
		"MaxAllocations":        func(c *ServerConfig) { c.MaxAllocations = -1 },
		"MaxAllocationsPerUser": func(c *ServerConfig) { c.MaxAllocationsPerUser = 1e7 },
		"BytesPerSecond":        func(c *ServerConfig) { c.BytesPerSecond = 1000 },
		"MaxConnections":        func(c *ServerConfig) { c.MaxConnections = -1 },
		"AnswersPerSecond":      func(c *ServerConfig) { c.AnswersPerSecond = -1 },
		"Lifetime":              func(c *ServerConfig) { c.Lifetime = 2 * time.Hour },
	} {
		cfg := good()
		change(&cfg)
		_, err := NewServer(cfg)
		var invalid *ConfigError
		if !errors.As(err, &invalid) || invalid.Field != "ServerConfig."+field {
			t.Errorf("%s: %v", field, err)
		}
		if err != nil && (hasSecret(err.Error()) || strings.Contains(err.Error(), testSecret[1:]) || strings.Contains(err.Error(), serverPassword[:7])) {
			t.Errorf("%s: the error shows a secret: %v", field, err)
		}
	}
	cfg := good()
	cfg.Users = map[string]string{"a:b": serverPassword}
	if _, err := NewServer(cfg); err == nil {
		t.Error("a user name with a colon is accepted")
	}
	// After an error the sockets are the caller's.
	if err := cfg.PacketConns[0].Close(); err != nil {
		t.Error(err)
	}
}

// TestServerHidesSecrets: in no form of its configuration, and in no log of what
// clients do.
func TestServerHidesSecrets(t *testing.T) {
	var logs bytes.Buffer
	var shown ServerConfig
	s := serve(t, func(c *ServerConfig) {
		c.Logger = slog.New(slog.NewTextHandler(&logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
		shown = *c
	})
	c := call(t, s.addr(), "u", serverPassword)
	c.mustAllocate()
	c.permit(loopback4)
	call(t, s.addr(), "u", "wrong password").allocate()
	c.do(stun.MethodRefresh, attr(stun.AttrLifetime, 0, 0, 0, 0))
	check(t, s.Close())
	if s.cfg.Secrets != nil || s.cfg.Users != nil {
		t.Error("the server keeps passwords")
	}
	shown.PacketConns, shown.Logger = nil, nil // JSON cannot show these
	text, err := json.Marshal(shown)
	check(t, err)
	for _, s := range []string{
		fmt.Sprint(shown), fmt.Sprintf("%+v %#v %s", shown, shown, &shown), shown.LogValue().String(), string(text),
		fmt.Sprintf("%+v", s.cfg), logs.String(),
	} {
		if hasSecret(s) {
			t.Errorf("a secret is shown: %s", s)
		}
	}
	for _, want := range []string{"TURN server started", "allocated", "peer refused", "allocation ended", "TURN server closed"} {
		if !strings.Contains(logs.String(), want) {
			t.Errorf("the log says nothing of %q:\n%s", want, logs.String())
		}
	}
}

// TestServerPorts: allocations are at ports of the range only, at each that no other
// program has.
func TestServerPorts(t *testing.T) {
	// Below the ports that the kernel gives to others (32768 on Linux).
	first := uint16(20000 + rand.IntN(12000))
	var held []net.PacketConn
	for len(held) < 3 {
		c, err := net.ListenPacket("udp", netip.AddrPortFrom(loopback4, first+uint16(len(held))).String())
		if err == nil {
			held = append(held, c)
			continue
		}
		first += uint16(len(held)) + 1
		for _, c := range held {
			c.Close()
		}
		held = nil
	}
	defer held[1].Close()
	held[0].Close()
	held[2].Close()
	s := serve(t, func(c *ServerConfig) { c.PortMin, c.PortMax = first, first+2 })
	got := map[uint16]bool{}
	for range 2 {
		got[call(t, s.addr(), "u", serverPassword).mustAllocate().Port()] = true
	}
	if !got[first] || !got[first+2] {
		t.Errorf("relayed at %v, not at %d and %d", got, first, first+2)
	}
	if _, code := call(t, s.addr(), "u", serverPassword).allocate(); code != 508 {
		t.Errorf("a third: %d", code)
	}
}
