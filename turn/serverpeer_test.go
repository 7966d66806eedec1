package turn

import (
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/stun/v4"
	"github.com/pion/transport/v5/stdnet"

	"github.com/infrafabric/agentmesh/internal/virtual"
)

// closedAddrs are addresses that are no peers by default, with the reason.
var closedAddrs = map[string]string{
	"0.0.0.0":                 "unspecified",
	"0.1.2.3":                 "this network",
	"10.0.0.1":                "private",
	"10.255.255.255":          "private",
	"100.64.0.1":              "carrier's NAT",
	"100.127.255.255":         "carrier's NAT",
	"100.100.100.200":         "metadata, Alibaba",
	"127.0.0.1":               "loopback",
	"127.255.255.254":         "loopback",
	"168.63.129.16":           "metadata, Azure",
	"169.254.0.1":             "link-local",
	"169.254.169.254":         "metadata",
	"169.254.170.2":           "metadata, ECS",
	"172.16.0.1":              "private",
	"172.31.255.255":          "private",
	"192.0.0.1":               "protocol assignments",
	"192.0.0.192":             "metadata, Oracle",
	"192.0.2.1":               "documentation",
	"192.88.99.1":             "6to4",
	"192.168.0.1":             "private",
	"198.18.0.1":              "benchmark",
	"198.19.255.255":          "benchmark",
	"198.51.100.1":            "documentation",
	"203.0.113.1":             "documentation",
	"224.0.0.1":               "multicast",
	"239.255.255.250":         "multicast",
	"240.0.0.1":               "reserved",
	"255.255.255.255":         "broadcast",
	"::":                      "unspecified",
	"::1":                     "loopback",
	"::127.0.0.1":             "compatible",
	"::8.8.8.8":               "compatible",
	"::ffff:127.0.0.1":        "mapped",
	"::ffff:8.8.8.8":          "mapped",
	"::ffff:0:8.8.8.8":        "translated, RFC 2765",
	"64:ff9b::7f00:1":         "NAT64",
	"64:ff9b::a9fe:a9fe":      "NAT64",
	"64:ff9b:1::a00:1":        "NAT64, RFC 8215",
	"100::1":                  "discard",
	"2001::1":                 "Teredo",
	"2001:0:a00:1::f5ff:fffe": "Teredo",
	"2001:2::1":               "benchmark",
	"2001:10::1":              "ORCHID",
	"2001:20::1":              "ORCHID",
	"2001:db8::1":             "documentation",
	"2002:7f00:1::1":          "6to4",
	"2002:808:808::1":         "6to4",
	"3fff::1":                 "documentation",
	"4000::1":                 "not unicast of the internet",
	"5f00::1":                 "segment routing",
	"fc00::1":                 "unique local",
	"fd00:ec2::254":           "metadata, AWS",
	"fe80::1":                 "link-local",
	"fec0::1":                 "site-local",
	"ff02::1":                 "multicast",
	"ff0e::1":                 "multicast",
}

// openAddrs are peers by default, among them the neighbours of closed ones.
var openAddrs = []string{
	"1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.1",
	"168.63.129.15", "168.63.129.17", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0",
	"192.0.1.0", "192.0.3.0", "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0", "223.255.255.255",
	"2000::1", "2001:200::1", "2001:4860:4860::8888", "2001:db7:ffff::1", "2001:db9::1", "2003::1", "2a00::1", "3ffe::1",
}

func TestPeerPolicy(t *testing.T) {
	own := netip.MustParseAddr("9.9.9.9")
	p := &peerPolicy{own: map[netip.Addr]bool{own: true, loopback4: true}}
	for a, why := range closedAddrs {
		if p.judge(netip.MustParseAddr(a)) != refused {
			t.Errorf("%s is allowed: %s", a, why)
		}
	}
	for _, a := range openAddrs {
		if p.judge(netip.MustParseAddr(a)) != granted {
			t.Errorf("%s is refused", a)
		}
	}
	if p.judge(netip.Addr{}) != refused || p.judge(netip.MustParseAddr("2a00::1%eth0")) != refused {
		t.Error("no address, or one with a zone, is allowed")
	}
	if p.judge(own) != relaysOnly {
		t.Error("the own address is not for relays only")
	}
}

func TestPeerPolicyConfigured(t *testing.T) {
	p := &peerPolicy{
		allow: prefixes("10.1.0.0/16", "127.0.0.1/32", "9.9.9.9/32", "64:ff9b::/96", "2002::/16", "2001::/32", "::/0"),
		deny:  prefixes("10.1.2.0/24", "8.8.8.0/24"),
		own:   map[netip.Addr]bool{netip.MustParseAddr("9.9.9.9"): true},
	}
	for a, want := range map[string]grant{
		"10.1.0.1":                  granted,
		"10.2.0.1":                  refused,
		"10.1.2.1":                  refused, // denied
		"8.8.8.8":                   refused, // denied
		"9.9.9.9":                   granted, // the own host, by name
		"127.0.0.1":                 granted,
		"127.0.0.2":                 refused,
		"fd00::1":                   granted,
		"::ffff:127.0.0.1":          refused, // whatever is allowed
		"64:ff9b::1.1.1.1":          granted,
		"64:ff9b::10.1.0.1":         granted,
		"64:ff9b::10.1.2.1":         refused,
		"64:ff9b::192.168.0.1":      refused,
		"64:ff9b::169.254.169.254":  refused,
		"2002:c0a8:1::1":            refused, // 192.168.0.1
		"2002:101:101::1":           granted,
		"2001:0:101:101::fefe:fefe": granted, // 1.1.1.1 by 1.1.1.1
		"2001:0:101:101::f5ff:fffe": refused, // 10.0.0.1
		"2001:0:a00:1::fefe:fefe":   refused,
	} {
		if got := p.judge(netip.MustParseAddr(a)); got != want {
			t.Errorf("%s: %d instead of %d", a, got, want)
		}
	}
}

// TestPeerPolicyBroadcast: the broadcast address of a network of this host is no
// peer, though the network is allowed; loopback is one.
func TestPeerPolicyBroadcast(t *testing.T) {
	n, err := stdnet.NewNet()
	check(t, err)
	p, err := newPeerPolicy(ServerConfig{Net: n, AllowPeers: loopbacks})
	check(t, err)
	if p.judge(netip.MustParseAddr("127.255.255.255")) != refused || p.judge(loopback4) != granted {
		t.Error("127.255.255.255 is allowed, or loopback is not")
	}
}

// spyNet is the system's network, except that what allocations send is counted and
// goes nowhere.
type spyNet struct {
	*stdnet.Net
	sent atomic.Int64
}

func newSpyNet(t *testing.T) *spyNet {
	t.Helper()
	n, err := stdnet.NewNet()
	check(t, err)
	return &spyNet{Net: n}
}

func (n *spyNet) ListenPacket(network, address string) (net.PacketConn, error) {
	c, err := n.Net.ListenPacket(network, address)
	return &spyConn{c, n}, err
}

type spyConn struct {
	net.PacketConn
	net *spyNet
}

func (c *spyConn) WriteTo(p []byte, _ net.Addr) (int, error) {
	c.net.sent.Add(1)
	return len(p), nil
}

// TestServerRefusesPeers: the real server refuses each closed address, in each way
// in which a client can name it, and sends nothing there.
func TestServerRefusesPeers(t *testing.T) {
	udp4, udp6 := udp(t, loopback4), udp(t, loopback6)
	spy := newSpyNet(t)
	s := serve(t, func(c *ServerConfig) {
		c.PacketConns = append(c.PacketConns, udp4, udp6)
		c.RelayIPs = []RelayIP{{Public: loopback4}, {Public: loopback6}}
		c.Net = spy
	})
	four := call(t, udp4.LocalAddr(), "u", serverPassword)
	six := call(t, udp6.LocalAddr(), "u", serverPassword)
	four.mustAllocate()
	if relayed, code := six.allocate(attr(stun.AttrRequestedAddressFamily, 2, 0, 0, 0)); code != 0 || !relayed.Addr().Is6() {
		t.Fatal(relayed, code)
	}
	channel := uint16(0x4000)
	for text, why := range closedAddrs {
		a := netip.MustParseAddr(text)
		c := six
		if a.Is4() || a.Is4In6() { // pion/turn takes a mapped address for one of IPv4
			c = four
		}
		to := netip.AddrPortFrom(a, 9)
		before := s.Stats().PeersRefused
		permission, bound := c.permit(a), c.bind(channel, to)
		if permission != 403 || bound != 403 {
			t.Errorf("%s, %s: CreatePermission %d, ChannelBind %d", a, why, permission, bound)
		}
		c.sendTo(to, "x")
		c.sendRaw([]byte{byte(channel >> 8), byte(channel), 0, 1, 'x', 0, 0, 0})
		c.settle()
		if got := s.Stats().PeersRefused - before; got != 2 {
			t.Errorf("%s: counted %d refusals", a, got)
		}
		channel++
	}
	// One closed address among open ones spoils the request.
	if _, code := four.do(stun.MethodCreatePermission, peerAddr(netip.MustParseAddrPort("1.1.1.1:9")), peerAddr(netip.MustParseAddrPort("10.0.0.1:9"))); code != 403 {
		t.Errorf("a mixed request: %d", code)
	}
	if sent := spy.sent.Load(); sent != 0 || s.Stats().ToPeers.Datagrams != 0 {
		t.Errorf("%d datagrams were sent", sent)
	}
	// The test can see what is sent.
	if code := four.permit(netip.MustParseAddr("1.1.1.1")); code != 0 {
		t.Errorf("an open address: %d", code)
	}
	four.sendTo(netip.MustParseAddrPort("1.1.1.1:9"), "x")
	four.settle()
	if sent := spy.sent.Load(); sent != 1 {
		t.Errorf("%d datagrams were sent to an open address", sent)
	}
}

// TestServerNeedsPermission: what a peer sends reaches the client only with a
// permission for its address.
func TestServerNeedsPermission(t *testing.T) {
	s := serve(t, func(c *ServerConfig) { c.AllowPeers = loopbacks })
	c := call(t, s.addr(), "u", serverPassword)
	relayed := c.mustAllocate()
	stranger, err := net.ListenPacket("udp", "127.0.0.2:0")
	check(t, err)
	defer stranger.Close()
	if code := c.permit(netip.MustParseAddr("127.0.0.3")); code != 0 {
		t.Fatal(code)
	}
	at := net.UDPAddrFromAddrPort(relayed)
	for range 100 {
		_, err = stranger.WriteTo([]byte("stranger"), at)
		check(t, err)
	}
	friend, err := net.ListenPacket("udp", "127.0.0.3:0")
	check(t, err)
	defer friend.Close()
	_, err = friend.WriteTo([]byte("friend"), at)
	check(t, err)
	until(t, "the friend's datagram", func() bool { return s.Stats().ToClients.Datagrams > 0 })
	if got := s.Stats().ToClients; got != (Traffic{1, uint64(len("friend"))}) { // the stranger's came first
		t.Errorf("%+v were relayed", got)
	}
}

// TestServerMeets: two agents meet on one public server, which nobody allowed,
// while its host stays closed.
func TestServerMeets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := virtual.New(t, virtual.Config{RTT: 20 * time.Millisecond})
		host, err := n.Host(virtual.Open)
		check(t, err)
		listen := func(h *virtual.Host, port int) net.PacketConn {
			c, err := h.ListenPacket("udp4", fmt.Sprintf("%s:%d", h.Addr(), port))
			check(t, err)
			t.Cleanup(func() { c.Close() })
			return c
		}
		public := netip.MustParseAddr(host.Addr())
		s := serve(t, func(c *ServerConfig) {
			c.PacketConns = []net.PacketConn{listen(host, 3478)}
			c.RelayIPs = []RelayIP{{Public: public}}
			c.Net = host
		})
		meet(t, s, func() net.PacketConn {
			h, err := n.Host(virtual.Open)
			check(t, err)
			return listen(h, 5000)
		}, listen(host, 53))
	})
}

// TestServerMeetsBehindNAT: the same where the host does not know its public
// address, and nothing sent there comes back.
func TestServerMeetsBehindNAT(t *testing.T) {
	s := serve(t, func(c *ServerConfig) {
		c.RelayIPs = []RelayIP{{Public: netip.MustParseAddr("9.9.9.9"), Bind: loopback4}}
	})
	meet(t, s, func() net.PacketConn { return udp(t, loopback4) }, udp(t, loopback4))
}

// meet has two clients talk through their relayed addresses, and one of them fail
// to talk to a service on the server's host and to the server.
func meet(t *testing.T, s *Server, socket func() net.PacketConn, service net.PacketConn) {
	t.Helper()
	a, b := callOn(t, socket(), s.addr(), "u", serverPassword), callOn(t, socket(), s.addr(), "u", serverPassword)
	atA, atB := a.mustAllocate(), b.mustAllocate()
	for _, c := range []*caller{a, b} {
		if code := c.permit(atA.Addr()); code != 0 {
			t.Fatal(code)
		}
	}
	if code := b.bind(0x4001, atA); code != 0 {
		t.Fatal(code)
	}
	a.sendTo(atB, "to b")
	check(t, b.conn.SetReadDeadline(time.Now().Add(5*time.Second)))
	buf := make([]byte, 100)
	n, _, err := b.conn.ReadFrom(buf)
	check(t, err)
	if got := string(buf[:n]); got != "\x40\x01\x00\x04to b" { // so it came from A's relayed address
		t.Errorf("b got %q", got)
	}
	a.settle() // it counts behind the delivery
	before := s.Stats()
	for _, port := range []uint16{addrPort(service.LocalAddr()).Port(), addrPort(s.addr()).Port()} {
		a.sendTo(netip.AddrPortFrom(atA.Addr(), port), "to the host")
	}
	a.settle()
	after := s.Stats()
	if after.PeersRefused-before.PeersRefused != 2 || after.ToPeers != before.ToPeers {
		t.Errorf("the host itself: %+v, then %+v", before, after)
	}
}

// TestServerBoundsGrants: permissions and channels of one allocation, which
// pion/turn keeps as many of as are asked for.
func TestServerBoundsGrants(t *testing.T) {
	s := serve(t, nil)
	c := call(t, s.addr(), "u", serverPassword)
	c.mustAllocate()
	peer := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{9, 1, byte(i >> 8), byte(i)}) }
	for i := range maxPermissions {
		if code := c.bind(uint16(0x4000+i), netip.AddrPortFrom(peer(i), 9)); code != 0 {
			t.Fatalf("channel %d: %d", i, code)
		}
	}
	if code := c.permit(peer(maxPermissions)); code != 508 {
		t.Errorf("a permission too many: %d", code)
	}
	if code := c.bind(0x4000+maxChannels, netip.AddrPortFrom(peer(0), 10)); code != 508 {
		t.Errorf("a channel too many: %d", code)
	}
	if code := c.permit(peer(0)); code != 0 {
		t.Errorf("renew a permission: %d", code)
	}
	if code := c.bind(0x4000, netip.AddrPortFrom(peer(0), 9)); code != 0 {
		t.Errorf("renew a channel: %d", code)
	}
}
