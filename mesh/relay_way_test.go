package mesh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/turn"
)

// dualRelay serves UDP and TCP at one port of both loopback addresses, and relays at
// both.
func dualRelay(t *testing.T) (port uint16, stats func() turn.ServerStats) {
	t.Helper()
	cfg := turn.ServerConfig{Users: map[string]string{"u": "open sesame"}}
	for tries := 0; ; tries++ {
		var err error
		if cfg.PacketConns, cfg.Listeners, err = dualSockets(); err == nil {
			break
		}
		if tries > 20 {
			t.Fatal(err)
		}
	}
	for _, a := range []string{"127.0.0.1", "::1"} {
		ip := netip.MustParseAddr(a)
		cfg.RelayIPs = append(cfg.RelayIPs, turn.RelayIP{Public: ip})
		cfg.AllowPeers = append(cfg.AllowPeers, netip.PrefixFrom(ip, ip.BitLen()))
	}
	s, err := turn.NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return uint16(cfg.PacketConns[0].LocalAddr().(*net.UDPAddr).Port), s.Stats
}

// dualSockets opens one port four times, or fails.
func dualSockets() (p []net.PacketConn, l []net.Listener, err error) {
	defer func() {
		if err != nil {
			for _, c := range p {
				c.Close()
			}
			for _, c := range l {
				c.Close()
			}
		}
	}()
	port := 0
	for _, host := range []string{"127.0.0.1", "::1"} {
		c, err := net.ListenPacket("udp", net.JoinHostPort(host, fmt.Sprint(port)))
		if err != nil {
			return p, l, err
		}
		p = append(p, c)
		port = c.LocalAddr().(*net.UDPAddr).Port
		s, err := net.Listen("tcp", net.JoinHostPort(host, fmt.Sprint(port)))
		if err != nil {
			return p, l, err
		}
		l = append(l, s)
	}
	return p, l, nil
}

// TestFamiliesMeet: an agent that has IPv4 only and one that has IPv6 only meet at a
// relay that has both, by whichever is dialled and however they reach it; and where it
// is not needed no second allocation is made.
func TestFamiliesMeet(t *testing.T) {
	loopback, err := LoopbackNet()
	if err != nil {
		t.Fatal(err)
	}
	for _, transport := range []string{"udp", "tcp"} {
		for _, only := range []bool{false, true} {
			t.Run(fmt.Sprint(transport, ", relays only ", only), func(t *testing.T) {
				t.Parallel()
				port, stats := dualRelay(t)
				h := newHub(0)
				start := func(name string, four bool) *Node {
					n := &names{Net: loopback, of: map[string][]string{"relay.example": {"127.0.0.1", "::1"}}}
					filtered, err := FilterNet(n, NetFilter{Address: func(a netip.Addr) bool { return a.Is4() == four }})
					if err != nil {
						t.Fatal(err)
					}
					node := startNode(t, h, nil, Config{Identity: newIdentity(t, name), Trust: keys.TrustAny, Net: filtered,
						TURN: fixedRelays{{URL: fmt.Sprintf("turn:relay.example:%d?transport=%s", port, transport),
							Username: "u", Password: "open sesame"}},
						Paths: Paths{RelayOnly: only, RelayAfter: AtOnce, StandbyAfter: Never, DirectEvery: Never}})
					t.Cleanup(func() {
						if err := node.Close(); err != nil {
							t.Error(err)
						}
						n.check(t)
					})
					return node
				}
				four, six, other := start("four", true), start("six", false), start("other", true)
				for _, ends := range [][2]*Node{{four, six}, {six, other}} {
					p, err := dialFor(ends[0], ends[1].ID(), 5*time.Second)
					if err != nil {
						t.Fatalf("%s to %s: %v", ends[0].ID(), ends[1].ID(), err)
					}
					if path := p.Status().Path; !path.Relayed() {
						t.Errorf("path %v", path)
					}
				}
				before := stats().Allocated
				if _, err := dialFor(four, "other", 5*time.Second); err != nil {
					t.Error(err)
				}
				if n := stats().Allocated - before; n > 2 {
					t.Errorf("%d allocations for two agents of one family", n)
				}
			})
		}
	}
}

// TestOtherFamilyIsAskedFor: when there is a candidate of it and none of the relay's
// own, or no path for long; and not once there is one.
func TestOtherFamilyIsAskedFor(t *testing.T) {
	const (
		four = "candidate:1 1 udp 1 192.0.2.1 1 typ host"
		six  = "candidate:1 1 udp 1 2001:db8::1 1 typ host"
		tcp  = "candidate:1 1 tcp 1 2001:db8::1 9 typ host tcptype active"
	)
	for _, c := range []struct {
		name  string
		heard []string
		want  time.Duration // negative means never
	}{
		{"the other family only", []string{six}, familyWait},
		{"in a description", []string{"v=0\r\na=" + six + "\r\n"}, familyWait},
		{"both", []string{six, four}, familyLast},
		{"its own", []string{four}, -1},
		{"nothing", nil, -1},
		{"what is no candidate for UDP", []string{tcp, "candidate:1 1 udp", "a=candidate:1 1 udp 1 x.local 1 typ host"}, -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, err := newRelayWay(nil, &turn.Relay{URL: "turn:relay.example"}, netip.MustParseAddrPort("192.0.2.9:3478"))
				if err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				for _, text := range c.heard {
					w.heard(text)
				}
				time.AfterFunc(time.Minute, w.settle)
				a, err := w.ResolveUDPAddr("udp6", "192.0.2.9:3478")
				switch took := time.Since(began); {
				case c.want < 0 && (!errors.Is(err, errSettled) || took != time.Minute):
					t.Errorf("%v, %v after %v", a, err, took)
				case c.want >= 0 && (err != nil || took != c.want || a.AddrPort() != netip.MustParseAddrPort("[100::8]:3478")):
					t.Errorf("%v, %v after %v", a, err, took)
				}
				w.settle()
				if _, err := w.Dial("tcp6", "192.0.2.9:3478"); !errors.Is(err, errSettled) {
					t.Errorf("afterwards: %v", err)
				}
			})
		})
	}
	var none *relayWay
	none.heard(six)
	none.settle()
	none.stop()()
}

// TestRelayWayURL: pion is given an address, and the certificate is for the name.
func TestRelayWayURL(t *testing.T) {
	for url, want := range map[string]string{
		"turn:relay.example":                 "turn:[2001:db8::9]:3478?transport=udp",
		"turns:Relay.example.":               "turns:[2001:db8::9]:5349?transport=tcp",
		"turn:[2001:db8::9]:5?transport=tcp": "turn:[2001:db8::9]:5?transport=tcp",
	} {
		n := &Node{}
		at, err := n.relayAt(context.Background(), &turn.Relay{URL: url, Address: netip.MustParseAddr("2001:db8::9")})
		if err != nil {
			t.Fatal(err)
		}
		w, err := newRelayWay(nil, &turn.Relay{URL: url}, at)
		if err != nil || w.url != want {
			t.Errorf("%s: %v, %v", url, w, err)
		}
		if w.dial != nil && w.dial.tls != nil && !strings.EqualFold(w.dial.tls.ServerName, "relay.example.") {
			t.Errorf("%s: the certificate is to be for %s", url, w.dial.tls.ServerName)
		}
		w.stop()()
	}
}
