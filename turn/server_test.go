package turn

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pion/stun/v4"
	pion "github.com/pion/turn/v5"
)

func tcp(t testing.TB, at netip.Addr) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", netip.AddrPortFrom(at, 0).String())
	check(t, err)
	return l
}

// selfSigned is a certificate, and a client's configuration that trusts it.
func selfSigned(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	check(t, err)
	cert, err := x509.ParseCertificate(der)
	check(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}},
		&tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}
}

// TestServerRelays: a client reaches an echo by every transport and family.
func TestServerRelays(t *testing.T) {
	serverTLS, clientTLS := selfSigned(t)
	udp4, udp6, plain, plain6 := udp(t, loopback4), udp(t, loopback6), tcp(t, loopback4), tcp(t, loopback6)
	secure := tls.NewListener(tcp(t, loopback4), serverTLS)
	s := serve(t, func(c *ServerConfig) {
		c.PacketConns = []net.PacketConn{udp4, udp6}
		c.Listeners = []net.Listener{plain, plain6, secure}
		c.RelayIPs = []RelayIP{{Public: loopback4}, {Public: loopback6}}
		c.AllowPeers = loopbacks
	})
	stream := func(c net.Conn, err error) net.PacketConn {
		check(t, err)
		return pion.NewSTUNConn(c)
	}
	for _, c := range []struct {
		name   string
		conn   net.PacketConn
		server net.Addr
		peer   netip.Addr
	}{
		{"udp", udp(t, loopback4), udp4.LocalAddr(), loopback4},
		{"udp6", udp(t, loopback6), udp6.LocalAddr(), loopback6},
		{"tcp", stream(net.Dial("tcp", plain.Addr().String())), plain.Addr(), loopback4},
		{"tcp6", stream(net.Dial("tcp", plain6.Addr().String())), plain6.Addr(), loopback6},
		{"tls", stream(tls.Dial("tcp", secure.Addr().String(), clientTLS)), secure.Addr(), loopback4},
	} {
		name, password := rest(t, testSecret, "agent-"+c.name, time.Minute)
		client := dialServer(t, c.conn, c.server, name, password)
		relay, err := client.Allocate()
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		peer := echo(t, c.peer).LocalAddr()
		roundTrip(t, relay, peer, "hello over "+c.name)
		check(t, relay.Close())
		client.Close()
		c.conn.Close()
	}
	until(t, "all is given back", func() bool { st := s.Stats(); return st.Allocations == 0 && st.Connections == 0 })
	st := s.Stats()
	if st.Allocated != 5 || st.ToPeers.Datagrams < 5 || st.ToClients.Datagrams < 5 || st.AuthFailures != 0 {
		t.Errorf("counted %+v", st)
	}
}

// TestServerFamilies: a client of either family may ask for an address of either, and
// one that asks for none gets IPv4 (RFC 8656 §7.2).
func TestServerFamilies(t *testing.T) {
	udp4, udp6 := udp(t, loopback4), udp(t, loopback6)
	serve(t, func(c *ServerConfig) {
		c.PacketConns = []net.PacketConn{udp4, udp6}
		c.RelayIPs = []RelayIP{{Public: loopback4}, {Public: loopback6}}
	})
	for _, conn := range []net.PacketConn{udp4, udp6} {
		for family, want := range map[byte]netip.Addr{0: loopback4, 1: loopback4, 2: loopback6} {
			var more []stun.Setter
			if family != 0 {
				more = append(more, attr(stun.AttrRequestedAddressFamily, family, 0, 0, 0))
			}
			relayed, code := call(t, conn.LocalAddr(), "u", serverPassword).allocate(more...)
			if code != 0 || relayed.Addr() != want {
				t.Errorf("at %v, family %d: %v, %d", conn.LocalAddr(), family, relayed, code)
			}
		}
	}
}

func TestServerCredentials(t *testing.T) {
	const second = "fedcba9876543210"
	s := serve(t, func(c *ServerConfig) { c.Secrets = append(c.Secrets, second) })
	good, goodPassword := rest(t, testSecret, "a", time.Minute)
	other, otherPassword := rest(t, second, "a", time.Minute)
	expired, expiredPassword := rest(t, testSecret, "a", -2*time.Second)
	_, strangePassword := rest(t, testSecret, "b", time.Minute)
	bare, barePassword, err := pion.GenerateLongTermCredentials(testSecret, time.Minute)
	check(t, err)
	long, longPassword := rest(t, testSecret, strings.Repeat("a", 500), time.Minute) // 511 bytes
	for _, c := range []struct {
		what, user, password string
		want                 stun.ErrorCode
	}{
		{"REST", good, goodPassword, 0},
		{"REST, the second secret", other, otherPassword, 0},
		{"REST without a user", bare, barePassword, 0},
		{"static", "u", serverPassword, 0},
		{"expired", expired, expiredPassword, 401},
		{"another's password", good, strangePassword, 401},
		{"a wrong password", "u", "wrong", 401},
		{"no time", "a", goodPassword, 401},
		{"a signed time", "+" + good, goodPassword, 401},
		{"no user", "", "", 401},
		{"too long", long, longPassword, 401},
	} {
		before := s.Stats().AuthFailures
		caller := call(t, s.addr(), c.user, c.password)
		_, code := caller.allocate()
		if code != c.want || (s.Stats().AuthFailures-before == 1) != (code != 0) {
			t.Errorf("%s: %d instead of %d; %+v", c.what, code, c.want, s.Stats())
		}
	}
	// A realm that the client makes up is part of the key, and no way around.
	c := call(t, s.addr(), "u", serverPassword)
	c.challenge()
	c.realm = stun.NewRealm("elsewhere")
	c.key = stun.NewLongTermIntegrity("u", "elsewhere", serverPassword)
	if _, code := c.do(stun.MethodAllocate, transportUDP); code != 401 {
		t.Errorf("another realm: %d", code)
	}
}

// TestServerWithoutSecrets: no secret is not the empty one.
func TestServerWithoutSecrets(t *testing.T) {
	s := serve(t, func(c *ServerConfig) { c.Secrets = nil })
	name, password := rest(t, "", "a", time.Minute)
	if _, code := call(t, s.addr(), name, password).allocate(); code != 401 {
		t.Errorf("the empty secret: %d", code)
	}
	c := call(t, s.addr(), name, "")
	c.challenge()
	c.key = stun.MessageIntegrity{}
	if _, code := c.do(stun.MethodAllocate, transportUDP); code != 401 {
		t.Errorf("the empty key: %d", code)
	}
}

// TestServerMismatch: requests about an allocation that is not there, or of
// somebody else, get an answer.
func TestServerMismatch(t *testing.T) {
	s := serve(t, nil)
	c := call(t, s.addr(), "u", serverPassword)
	for _, m := range []stun.Method{stun.MethodRefresh, stun.MethodCreatePermission, stun.MethodChannelBind} {
		if _, code := c.do(m); code != stun.CodeAllocMismatch {
			t.Errorf("%v without an allocation: %d", m, code)
		}
	}
	c.mustAllocate()
	name, password := rest(t, testSecret, "a", time.Minute)
	thief := callOn(t, c.conn, s.addr(), name, password)
	if code := thief.free(); code != stun.CodeWrongCredentials {
		t.Errorf("another user's allocation: %d", code)
	}
	if code := c.free(); code != 0 {
		t.Errorf("the own allocation: %d", code)
	}
}

// TestServerRefusesTCPAllocations: RFC 6062 would make it a proxy.
func TestServerRefusesTCPAllocations(t *testing.T) {
	s := serve(t, func(c *ServerConfig) { c.AllowPeers = loopbacks })
	c := call(t, s.addr(), "u", serverPassword)
	if _, code := c.do(stun.MethodAllocate, transportTCP); code != stun.CodeUnsupportedTransProto {
		t.Errorf("allocate TCP: %d", code)
	}
	l := tcp(t, loopback4)
	defer l.Close()
	c.mustAllocate()
	if _, code := c.do(stun.MethodConnect, peerAddr(addrPort(l.Addr()))); code != stun.CodeConnTimeoutOrFailure {
		t.Errorf("connect: %d", code)
	}
	if st := s.Stats(); st.Allocations != 1 {
		t.Errorf("counted %+v", st)
	}
}

func TestServerRefusesPortPairs(t *testing.T) {
	s := serve(t, nil)
	c := call(t, s.addr(), "u", serverPassword)
	if _, code := c.allocate(attr(stun.AttrEvenPort, 0x80)); code != stun.CodeInsufficientCapacity {
		t.Errorf("EVEN-PORT: %d", code)
	}
	if _, code := c.allocate(attr(stun.AttrReservationToken, make([]byte, 8)...)); code != stun.CodeInsufficientCapacity {
		t.Errorf("RESERVATION-TOKEN: %d", code)
	}
	if _, code := c.allocate(attr(stun.AttrRequestedAddressFamily, 2, 0, 0, 0)); code != stun.CodeAddrFamilyNotSupported {
		t.Errorf("a family without an address: %d", code)
	}
	c.settle()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.accounts) != 0 {
		t.Error("refused requests keep places")
	}
}

// TestServerShutdown: what is there goes on, what is new is refused.
func TestServerShutdown(t *testing.T) {
	s := serve(t, nil)
	old, late := call(t, s.addr(), "u", serverPassword), call(t, s.addr(), "u", serverPassword)
	old.mustAllocate()
	done := make(chan error)
	go func() { done <- s.Shutdown(context.Background()) }()
	until(t, "draining", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.draining })
	if _, code := late.allocate(); code != stun.CodeInsufficientCapacity {
		t.Errorf("a new allocation: %d", code)
	}
	if _, code := old.do(stun.MethodRefresh); code != 0 {
		t.Errorf("refresh: %d", code)
	}
	select {
	case err := <-done:
		t.Fatalf("shut down in spite of an allocation: %v", err)
	default:
	}
	old.send(old.sign(stun.MethodRefresh, attr(stun.AttrLifetime, 0, 0, 0, 0))...) // the answer may be lost
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := s.Shutdown(context.Background()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}

// TestServerFreesPorts: with allocations and connections open, by Close and by a
// Shutdown whose context ends.
func TestServerFreesPorts(t *testing.T) {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for name, end := range map[string]func(*Server) error{
		"Close": (*Server).Close,
		"Shutdown": func(s *Server) error {
			err := s.Shutdown(ended)
			if !errors.Is(err, context.Canceled) {
				t.Errorf("Shutdown: %v", err)
			}
			return nil
		},
	} {
		l := tcp(t, loopback4)
		s := serve(t, func(c *ServerConfig) {
			c.PacketConns, c.Listeners = []net.PacketConn{udp(t, loopback4)}, []net.Listener{l}
		})
		at := []string{call(t, s.addr(), "u", serverPassword).mustAllocate().String(), s.addr().String()}
		conn, err := net.Dial("tcp", l.Addr().String())
		check(t, err)
		defer conn.Close()
		streamed := callOn(t, pion.NewSTUNConn(conn), l.Addr(), "u", serverPassword)
		at = append(at, streamed.mustAllocate().String())
		if err := end(s); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, addr := range at {
			c, err := net.ListenPacket("udp", addr)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			c.Close()
		}
		again, err := net.Listen("tcp", l.Addr().String())
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else {
			again.Close()
		}
		if _, err := streamed.tryReceive(5 * time.Second); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: the connection is still open: %v", name, err)
		}
		if st := s.Stats(); st.Allocations != 0 || st.Connections != 0 || len(s.relays) != 0 {
			t.Errorf("%s: left %+v", name, st)
		}
		if err := s.Close(); err != nil {
			t.Errorf("%s, again: %v", name, err)
		}
	}
}
