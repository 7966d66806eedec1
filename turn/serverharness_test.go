package turn

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pion/stun/v4"
	pion "github.com/pion/turn/v5"
)

const (
	testSecret     = "0123456789abcdef"
	serverPassword = "correct horse"
)

var (
	loopback4 = netip.MustParseAddr("127.0.0.1")
	loopback6 = netip.MustParseAddr("::1")
	loopbacks = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// udp returns a socket on loopback.
func udp(t testing.TB, at netip.Addr) net.PacketConn {
	t.Helper()
	c, err := net.ListenPacket("udp", netip.AddrPortFrom(at, 0).String())
	check(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// serve starts a server that relays at 127.0.0.1, on one UDP socket there unless
// change says otherwise, for user "u" and everybody with testSecret.
func serve(t testing.TB, change func(*ServerConfig)) *Server {
	t.Helper()
	cfg := ServerConfig{
		RelayIPs: []RelayIP{{Public: loopback4}},
		Secrets:  []string{testSecret},
		Users:    map[string]string{"u": serverPassword},
	}
	if change != nil {
		change(&cfg)
	}
	if len(cfg.PacketConns)+len(cfg.Listeners) == 0 {
		cfg.PacketConns = []net.PacketConn{udp(t, loopback4)}
	}
	s, err := NewServer(cfg)
	check(t, err)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// addr is the first UDP socket of a server.
func (s *Server) addr() net.Addr { return s.cfg.PacketConns[0].LocalAddr() }

// caller is a client that sends what a test wants and shows the answer as it is.
type caller struct {
	t          testing.TB
	conn       net.PacketConn
	server     net.Addr
	user       string
	realm      stun.Realm
	nonce      stun.Nonce
	key        stun.MessageIntegrity
	password   string
	last       []byte // what came last
	indication int    // of what came meanwhile
}

func call(t testing.TB, server net.Addr, user, password string) *caller {
	t.Helper()
	at := loopback4
	if a := addrPort(server).Addr(); a.Is6() {
		at = loopback6
	}
	return callOn(t, udp(t, at), server, user, password)
}

func callOn(t testing.TB, conn net.PacketConn, server net.Addr, user, password string) *caller {
	return &caller{t: t, conn: conn, server: server, user: user, password: password}
}

// send builds a message and sends it.
func (c *caller) send(setters ...stun.Setter) *stun.Message {
	c.t.Helper()
	m, err := stun.Build(append([]stun.Setter{stun.TransactionID}, setters...)...)
	check(c.t, err)
	c.sendRaw(m.Raw)
	return m
}

func (c *caller) sendRaw(p []byte) {
	c.t.Helper()
	_, err := c.conn.WriteTo(p, c.server)
	check(c.t, err)
}

// receive returns the next response.
func (c *caller) receive() *stun.Message {
	c.t.Helper()
	m, err := c.tryReceive(5 * time.Second)
	check(c.t, err)
	return m
}

func (c *caller) tryReceive(limit time.Duration) (*stun.Message, error) {
	if err := c.conn.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return nil, err
	}
	buf := make([]byte, 2048)
	for {
		n, _, err := c.conn.ReadFrom(buf)
		if err != nil {
			return nil, err
		}
		c.last = buf[:n]
		m := &stun.Message{Raw: append([]byte(nil), buf[:n]...)}
		if err := m.Decode(); err != nil || m.Type.Class == stun.ClassIndication {
			c.indication++
			continue
		}
		return m, nil
	}
}

// ask sends a request without authentication and returns the answer.
func (c *caller) ask(setters ...stun.Setter) *stun.Message {
	c.t.Helper()
	m := c.send(setters...)
	for {
		if a := c.receive(); a.TransactionID == m.TransactionID {
			return a
		}
	}
}

// challenge gets realm and nonce.
func (c *caller) challenge() {
	c.t.Helper()
	a := c.ask(stun.NewType(stun.MethodAllocate, stun.ClassRequest), transportUDP)
	check(c.t, c.realm.GetFrom(a))
	check(c.t, c.nonce.GetFrom(a))
	c.key = stun.NewLongTermIntegrity(c.user, c.realm.String(), c.password)
}

// sign adds what makes a request an authenticated one.
func (c *caller) sign(method stun.Method, setters ...stun.Setter) []stun.Setter {
	all := append([]stun.Setter{stun.NewType(method, stun.ClassRequest)}, setters...)
	return append(all, stun.NewUsername(c.user), c.realm, c.nonce, c.key)
}

// do is ask with authentication. It returns 0 for success, otherwise the error
// code; a signed answer must verify.
func (c *caller) do(method stun.Method, setters ...stun.Setter) (*stun.Message, stun.ErrorCode) {
	c.t.Helper()
	if c.key == nil {
		c.challenge()
	}
	a := c.ask(c.sign(method, setters...)...)
	if a.Contains(stun.AttrMessageIntegrity) {
		check(c.t, c.key.Check(a))
	}
	if a.Type.Class == stun.ClassSuccessResponse {
		return a, 0
	}
	var code stun.ErrorCodeAttribute
	check(c.t, code.GetFrom(a))
	return a, code.Code
}

// allocate returns the relayed address, and an error code or 0.
func (c *caller) allocate(more ...stun.Setter) (netip.AddrPort, stun.ErrorCode) {
	c.t.Helper()
	a, code := c.do(stun.MethodAllocate, append([]stun.Setter{transportUDP}, more...)...)
	if code != 0 {
		return netip.AddrPort{}, code
	}
	var relayed stun.XORMappedAddress
	check(c.t, relayed.GetFromAs(a, stun.AttrXORRelayedAddress))
	ip, _ := netip.AddrFromSlice(relayed.IP)
	return netip.AddrPortFrom(ip, uint16(relayed.Port)), 0
}

func (c *caller) mustAllocate() netip.AddrPort {
	c.t.Helper()
	relayed, code := c.allocate()
	if code != 0 {
		c.t.Fatalf("allocate: %d", code)
	}
	return relayed
}

// permit asks for a permission, bind for a channel.
func (c *caller) permit(peer netip.Addr) stun.ErrorCode {
	c.t.Helper()
	_, code := c.do(stun.MethodCreatePermission, peerAddr(netip.AddrPortFrom(peer, 9)))
	return code
}

func (c *caller) bind(channel uint16, peer netip.AddrPort) stun.ErrorCode {
	c.t.Helper()
	_, code := c.do(stun.MethodChannelBind, channelNumber(channel), peerAddr(peer))
	return code
}

func (c *caller) free() stun.ErrorCode {
	c.t.Helper()
	_, code := c.do(stun.MethodRefresh, attr(stun.AttrLifetime, 0, 0, 0, 0))
	return code
}

// sendTo is a Send indication.
func (c *caller) sendTo(peer netip.AddrPort, data string) {
	c.t.Helper()
	c.send(stun.NewType(stun.MethodSend, stun.ClassIndication), peerAddr(peer), attr(stun.AttrData, []byte(data)...))
}

// settle returns when the server has dealt with what this caller sent before, and
// fails when something else than the answer to that comes.
func (c *caller) settle() {
	c.t.Helper()
	before := c.indication
	m := c.send(stun.BindingRequest)
	if a := c.receive(); a.TransactionID != m.TransactionID || c.indication != before {
		c.t.Fatalf("an unexpected message: %x", c.last)
	}
}

func attr(t stun.AttrType, value ...byte) stun.Setter {
	return stun.RawAttribute{Type: t, Value: value}
}

var (
	transportUDP = attr(stun.AttrRequestedTransport, 17, 0, 0, 0)
	transportTCP = attr(stun.AttrRequestedTransport, 6, 0, 0, 0)
)

func channelNumber(n uint16) stun.Setter {
	return attr(stun.AttrChannelNumber, byte(n>>8), byte(n), 0, 0)
}

// peerAddr is an XOR-PEER-ADDRESS; a mapped address stays one of IPv6.
type peerAddr netip.AddrPort

func (p peerAddr) AddTo(m *stun.Message) error {
	ap := netip.AddrPort(p)
	b := ap.Addr().AsSlice()
	family := byte(1)
	if len(b) == 16 {
		family = 2
	}
	mask := append([]byte{0x21, 0x12, 0xa4, 0x42}, m.TransactionID[:]...)
	for i := range b {
		b[i] ^= mask[i]
	}
	port := ap.Port() ^ 0x2112
	m.Add(stun.AttrXORPeerAddress, append([]byte{0, family, byte(port >> 8), byte(port)}, b...))
	return nil
}

// rest is a credential of the TURN REST API.
func rest(t testing.TB, secret, user string, ttl time.Duration) (name, password string) {
	t.Helper()
	name, password, err := pion.GenerateLongTermTURNRESTCredentials(secret, user, ttl)
	check(t, err)
	return name, password
}

// dial is a client of pion/turn on conn.
func dialServer(t testing.TB, conn net.PacketConn, server net.Addr, user, password string) *pion.Client {
	t.Helper()
	c, err := pion.NewClient(&pion.ClientConfig{
		Conn: conn, TURNServerAddr: server.String(), Username: user, Password: password, LoggerFactory: silence{},
	})
	check(t, err)
	check(t, c.Listen())
	t.Cleanup(func() {
		c.Close()
		conn.Close()
	})
	return c
}

// echo sends back what it gets, until the test ends.
func echo(t testing.TB, at netip.Addr) net.PacketConn {
	t.Helper()
	c := udp(t, at)
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 2048)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(buf[:n], from)
		}
	}()
	t.Cleanup(func() {
		c.Close()
		<-done
	})
	return c
}

// roundTrip sends through an allocation and waits for the echo.
func roundTrip(t testing.TB, relay net.PacketConn, peer net.Addr, text string) {
	t.Helper()
	_, err := relay.WriteTo([]byte(text), peer)
	check(t, err)
	check(t, relay.SetReadDeadline(time.Now().Add(5*time.Second)))
	buf := make([]byte, 2048)
	n, from, err := relay.ReadFrom(buf)
	check(t, err)
	if string(buf[:n]) != text || from.String() != peer.String() {
		t.Errorf("%q from %v instead of %q from %v", buf[:n], from, text, peer)
	}
}

// until looks at a condition again whenever the runtime lets others run; it is
// for what follows from something that is already done.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 10 s", what)
		}
		<-tick.C
	}
}

func hasSecret(text string) bool {
	return strings.Contains(text, testSecret) || strings.Contains(text, serverPassword)
}
