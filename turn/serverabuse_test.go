package turn

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/stun/v4"

	"github.com/infrafabric/agentmesh/internal/virtual"
)

// answerTo returns what comes back to a message, nil for nothing.
func (c *caller) answerTo(p []byte) []byte {
	c.t.Helper()
	c.sendRaw(p)
	probe := c.send(stun.BindingRequest)
	c.indication = 0
	var answer []byte
	for {
		m := c.receive()
		if m.TransactionID == probe.TransactionID {
			return answer
		}
		answer = c.last
	}
}

func build(t testing.TB, setters ...stun.Setter) []byte {
	t.Helper()
	m, err := stun.Build(append([]stun.Setter{stun.TransactionID}, setters...)...)
	check(t, err)
	return m.Raw
}

// TestServerAmplification: what the server answers to those who have not
// authenticated, in proportion to what they sent. The realm is of the greatest
// length.
func TestServerAmplification(t *testing.T) {
	udp6 := udp(t, loopback6)
	s := serve(t, func(c *ServerConfig) {
		c.PacketConns = []net.PacketConn{udp(t, loopback4), udp6}
		c.Realm = "realm.of.20.bytes.ok"
		c.AnswersPerSecond = 1_000_000
	})
	request := func(m stun.Method, setters ...stun.Setter) []byte {
		return build(t, append([]stun.Setter{stun.NewType(m, stun.ClassRequest)}, setters...)...)
	}
	peer := peerAddr(netip.MustParseAddrPort("1.1.1.1:9"))
	unknown := make([]stun.Setter, 100)
	for i := range unknown {
		unknown[i] = attr(stun.AttrType(0x7000 + i))
	}
	junk := make([]byte, 500)
	for i := range junk {
		junk[i] = byte(rand.IntN(256))
	}
	junk[0] |= 0x80 // neither STUN nor a channel
	wrong := request(stun.MethodBinding)
	wrong[0] |= 0x80
	bad := []stun.Setter{stun.NewUsername("u"), stun.NewRealm("realm.of.20.bytes.ok"), stun.NewNonce("x"),
		stun.NewLongTermIntegrity("u", "realm.of.20.bytes.ok", "wrong")}
	for _, c := range []struct {
		what     string
		p        []byte
		answered bool
	}{
		{"Allocate, minimal", request(stun.MethodAllocate, transportUDP), true},
		{"Allocate, a stale nonce", request(stun.MethodAllocate, append([]stun.Setter{transportUDP}, bad...)...), true},
		{"Allocate, empty", request(stun.MethodAllocate), false},
		{"Binding", request(stun.MethodBinding), true},
		{"Binding, 100 unknown attributes", request(stun.MethodBinding, unknown...), true},
		{"Refresh", request(stun.MethodRefresh, attr(stun.AttrLifetime, 0, 0, 0, 0)), true},
		{"Refresh, empty", request(stun.MethodRefresh), false},
		{"CreatePermission", request(stun.MethodCreatePermission, peer), true},
		{"ChannelBind", request(stun.MethodChannelBind, channelNumber(0x4000), peer), true},
		{"Connect", request(stun.MethodConnect, peer), true},
		{"ConnectionBind, empty", request(stun.MethodConnectionBind), false},
		{"an unknown method", request(stun.Method(0x0ff)), false},
		{"a response", build(t, stun.BindingSuccess), false},
		{"Send", build(t, stun.NewType(stun.MethodSend, stun.ClassIndication), peer, attr(stun.AttrData, 1)), false},
		{"a channel's data", []byte{0x40, 0, 0, 4, 1, 2, 3, 4}, false},
		{"junk", junk, false},
		{"Binding with a wrong first bit", wrong, false},
		{"no byte", nil, false},
		{"a STUN header that lies", append(request(stun.MethodAllocate)[:20], 1, 2, 3), false},
	} {
		for _, server := range []net.Addr{s.addr(), udp6.LocalAddr()} {
			answer := call(t, server, "u", serverPassword).answerTo(c.p)
			ratio := float64(len(answer)) / max(1, float64(len(c.p)))
			t.Logf("%-32s %-12v %3d → %3d bytes, %.2f", c.what, server, len(c.p), len(answer), ratio)
			if ratio > amplification || (answer != nil) != c.answered {
				t.Errorf("%s to %v: %d bytes in answer to %d", c.what, server, len(answer), len(c.p))
			}
		}
	}
	// Unanswered are the four requests that are too short for the answer they ask for.
	if st := s.Stats(); st.Unanswered != 8 || st.Junk != 6 {
		t.Errorf("counted %+v", st)
	}
}

// TestServerAnswerRate: what one address gets, in virtual time, while another is
// not touched, and one with a credential neither.
func TestServerAnswerRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := virtual.New(t, virtual.Config{})
		socket := func(h *virtual.Host, port string) net.PacketConn {
			c, err := h.ListenPacket("udp4", h.Addr()+":"+port)
			check(t, err)
			t.Cleanup(func() { c.Close() })
			return c
		}
		var hosts []*virtual.Host
		for range 3 {
			h, err := n.Host(virtual.Open)
			check(t, err)
			hosts = append(hosts, h)
		}
		s := serve(t, func(c *ServerConfig) {
			c.PacketConns = []net.PacketConn{socket(hosts[0], "3478")}
			c.RelayIPs = []RelayIP{{Public: netip.MustParseAddr(hosts[0].Addr())}}
			c.Net = hosts[0]
			c.AnswersPerSecond = 20
		})
		flooder, other := socket(hosts[1], "1000"), callOn(t, socket(hosts[2], "1000"), s.addr(), "u", serverPassword)
		known := callOn(t, socket(hosts[1], "1001"), s.addr(), "u", serverPassword)
		known.mustAllocate()
		const seconds = 10
		sent, received, answers := 0, 0, 0
		buf := make([]byte, 2048)
		for range seconds * 100 {
			p := build(t, stun.NewType(stun.MethodAllocate, stun.ClassRequest), transportUDP)
			_, err := flooder.WriteTo(p, s.addr())
			check(t, err)
			sent += len(p)
			check(t, flooder.SetReadDeadline(time.Now().Add(10*time.Millisecond)))
			for {
				n, _, err := flooder.ReadFrom(buf)
				if err != nil {
					break
				}
				received += n
				answers++
			}
		}
		t.Logf("%d requests of %d bytes, %d answers of %d", seconds*100, sent, answers, received)
		if answers < 20*seconds || answers > 20+20*seconds {
			t.Errorf("%d answers in %d s", answers, seconds)
		}
		if _, code := known.do(stun.MethodRefresh); code != 0 {
			t.Errorf("a client that has authenticated, at the same address: %d", code)
		}
		if code := known.permit(netip.MustParseAddr(hosts[2].Addr())); code != 0 {
			t.Errorf("its permission: %d", code)
		}
		known.sendTo(netip.MustParseAddrPort(hosts[2].Addr()+":9"), "an indication, which nobody signs")
		if known.do(stun.MethodRefresh); s.Stats().ToPeers.Datagrams != 1 {
			t.Error("its datagram is not relayed")
		}
		other.mustAllocate()
	})
}

func TestAnswerRatePrefix(t *testing.T) {
	r := newAnswerRate(2)
	now := r.start
	for _, c := range []struct {
		addr string
		want bool
	}{
		{"2a00:1:2:3::1", true}, {"2a00:1:2:3:ffff::9", true}, {"2a00:1:2:3::1", false},
		{"2a00:1:2:4::1", true}, {"1.2.3.4", true}, {"1.2.3.4", true}, {"1.2.3.4", false}, {"1.2.3.5", true},
	} {
		if got := r.allow(netip.MustParseAddr(c.addr), now); got != c.want {
			t.Errorf("%s: %v", c.addr, got)
		}
	}
	if !r.allow(netip.MustParseAddr("1.2.3.4"), now.Add(time.Second/2)) {
		t.Error("nothing after half a second")
	}
}

// TestServerNonce: a nonce is the server's own, and for an hour.
func TestServerNonce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := virtual.New(t, virtual.Config{})
		server := func() *Server {
			h, err := n.Host(virtual.Open)
			check(t, err)
			conn, err := h.ListenPacket("udp4", h.Addr()+":3478")
			check(t, err)
			return serve(t, func(c *ServerConfig) {
				c.PacketConns = []net.PacketConn{conn}
				c.RelayIPs = []RelayIP{{Public: netip.MustParseAddr(h.Addr())}}
				c.Net = h
			})
		}
		h, err := n.Host(virtual.Open)
		check(t, err)
		conn, err := h.ListenPacket("udp4", h.Addr()+":1000")
		check(t, err)
		defer conn.Close()
		one, two := server(), server()
		c := callOn(t, conn, one.addr(), "u", serverPassword)
		c.challenge()
		c.server = two.addr()
		if _, code := c.allocate(); code != stun.CodeStaleNonce {
			t.Errorf("another server's nonce: %d", code)
		}
		c.server = one.addr()
		if _, code := c.allocate(); code != 0 {
			t.Errorf("the server's own nonce: %d", code)
		}
		time.Sleep(62 * time.Minute)
		if _, code := c.allocate(); code != stun.CodeStaleNonce {
			t.Errorf("a nonce of an hour ago: %d", code)
		}
	})
}

// TestServerMalformed: every truncation and many changes of good requests leave
// the server as it was.
func TestServerMalformed(t *testing.T) {
	s := serve(t, func(c *ServerConfig) { c.AnswersPerSecond = 1_000_000 })
	c := call(t, s.addr(), "u", serverPassword)
	c.mustAllocate()
	good := [][]byte{
		build(t, c.sign(stun.MethodAllocate, transportUDP)...),
		build(t, c.sign(stun.MethodChannelBind, channelNumber(0x4000), peerAddr(netip.MustParseAddrPort("1.1.1.1:9")))...),
		build(t, stun.NewType(stun.MethodSend, stun.ClassIndication), peerAddr(netip.MustParseAddrPort("1.1.1.1:9")), attr(stun.AttrData, 1)),
		{0x40, 0, 0, 4, 1, 2, 3, 4},
	}
	evil := call(t, s.addr(), "u", serverPassword)
	sent := 0
	send := func(p []byte) {
		evil.sendRaw(p)
		if sent++; sent%50 == 0 {
			c.settle() // or the socket's buffer overflows
		}
	}
	for _, p := range good {
		for n := range p {
			send(p[:n])
		}
		for range 300 {
			q := append([]byte(nil), p...)
			q[rand.IntN(len(q))] ^= byte(1 + rand.IntN(255))
			send(q)
		}
	}
	if _, code := c.do(stun.MethodRefresh); code != 0 {
		t.Errorf("refresh: %d", code)
	}
	if st := s.Stats(); st.Allocations != 1 {
		t.Errorf("counted %+v", st)
	}
}
