package mesh

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/transport/v5"

	"github.com/infrafabric/agentmesh/internal/pipenet"
	"github.com/infrafabric/agentmesh/signaling"
	"github.com/infrafabric/agentmesh/turn"
)

// Networks that block UDP, on the loopback interface: virtual ones have no streams.

// noUDP is the loopback interface without UDP.
type noUDP struct{ transport.Net }

var errNoUDP = errors.New("UDP is blocked")

func (noUDP) ListenUDP(string, *net.UDPAddr) (transport.UDPConn, error) { return nil, errNoUDP }
func (noUDP) ListenPacket(string, string) (net.PacketConn, error)       { return nil, errNoUDP }
func (noUDP) DialUDP(string, *net.UDPAddr, *net.UDPAddr) (transport.UDPConn, error) {
	return nil, errNoUDP
}

func blockedNet(t *testing.T) transport.Net {
	t.Helper()
	n, err := LoopbackNet()
	if err != nil {
		t.Fatal(err)
	}
	return noUDP{n}
}

// realServer is a signaling server over TLS, and a client that trusts it.
func realServer(t *testing.T) (string, *http.Client) {
	t.Helper()
	s, err := signaling.NewServer(signaling.ServerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewTLSServer(s)
	client := web.Client()
	t.Cleanup(func() {
		client.CloseIdleConnections()
		web.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return strings.Replace(web.URL, "https", "wss", 1), client
}

func listenReal(t *testing.T, cfg Config) *Node {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	n, err := Listen(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		var lost *UndeliveredError
		if err := n.Close(); err != nil && !errors.As(err, &lost) {
			t.Error(err)
		}
	})
	return n
}

// TestTCPPath: where there is no UDP, agents meet by TCP if one of them listens and
// the other dials, and not otherwise.
func TestTCPPath(t *testing.T) {
	url, client := realServer(t)
	a, b, c := newIdentity(t, "agent-a"), newIdentity(t, "agent-b"), newIdentity(t, "agent-c")
	trust := newBook(a, b, c)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Trust: trust, Signaling: []string{url}, HTTPClient: client, Net: blockedNet(t)}
	cfgA, cfgB, cfgC := cfg, cfg, cfg
	cfgA.Identity, cfgA.TCP = a, true
	cfgB.Identity, cfgB.TCPListener = b, l
	cfgC.Identity = c
	nodeA, nodeB, nodeC := listenReal(t, cfgA), listenReal(t, cfgB), listenReal(t, cfgC)
	p, q := meet(t, nodeA, nodeB)
	tell(t, p, "by TCP")
	hear(t, q, "by TCP")
	if path := p.Status().Path; path.Relayed() || path.Local == "" {
		t.Errorf("path %v", path)
	}
	for _, x := range []*Peer{p, q} {
		if err := x.Replace(t.Context()); err != nil {
			t.Error(err)
		}
	}
	tell(t, q, "by another stream")
	hear(t, p, "by another stream")
	if _, err := dialFor(nodeC, "agent-b", time.Second); err == nil {
		t.Error("an agent that uses neither UDP nor TCP gets through")
	}
	// The listener is the Node's.
	if err := nodeB.Close(); err != nil {
		var lost *UndeliveredError
		if !errors.As(err, &lost) {
			t.Error(err)
		}
	}
	if conn, err := net.Dial("tcp4", l.Addr().String()); err == nil {
		conn.Close()
		t.Error("the listener is open after Close")
	}
}

// TestTCPListenerLimit: connections beyond the limit are closed at once, and those
// that end make room.
func TestTCPListenerLimit(t *testing.T) {
	inner, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := newLimitedListener(inner, 1)
	defer l.Close()
	accepted := make(chan net.Conn)
	over := make(chan struct{})
	go func() {
		defer close(over)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	dial := func() net.Conn {
		c, err := net.Dial("tcp4", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	one := dial()
	defer one.Close()
	first := <-accepted
	two := dial()
	defer two.Close()
	if _, err := two.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the second of one connection: %v", err)
	}
	if err := errors.Join(first.Close()); err != nil {
		t.Error(err)
	}
	three := dial()
	defer three.Close()
	(<-accepted).Close()
	l.Close()
	<-over
}

// shortListener has no descriptors for a while.
type shortListener struct {
	net.Listener
	left int
}

func (l *shortListener) Accept() (net.Conn, error) {
	if l.left--; l.left >= 0 {
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return l.Listener.Accept()
}

// TestTCPListenerOutlivesShortage: errors that pass do not end accepting, which does not
// spin meanwhile, and ends at once when it is closed.
func TestTCPListenerOutlivesShortage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := pipenet.New()
		inner, err := network.Listen("agent:1")
		if err != nil {
			t.Fatal(err)
		}
		short := &shortListener{inner, 12}
		l := newLimitedListener(short, 1)
		began := time.Now()
		go func() {
			if c, err := network.DialContext(t.Context(), "tcp", "agent:1"); err == nil {
				defer c.Close()
				<-t.Context().Done()
			}
		}()
		c, err := l.Accept()
		if took := time.Since(began); err != nil || took < time.Second || took > 5*time.Second {
			t.Fatalf("%v after %v", err, took)
		}
		c.Close()
		short.left = math.MaxInt
		time.AfterFunc(time.Minute, func() { l.Close() })
		began = time.Now()
		if _, err := l.Accept(); err == nil || time.Since(began) != time.Minute {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// TestSignalingThroughProxy: signaling goes through an HTTP proxy (RFC 9110 §9.3.6)
// and by no other way.
func TestSignalingThroughProxy(t *testing.T) {
	server, client := realServer(t)
	var tunnels atomic.Int32
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			http.Error(w, "only CONNECT", http.StatusMethodNotAllowed)
			return
		}
		to, err := net.Dial("tcp", r.Host)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer to.Close()
		from, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer from.Close()
		tunnels.Add(1)
		io.WriteString(from, "HTTP/1.1 200 OK\r\n\r\n")
		done := make(chan struct{}, 2)
		for _, way := range [][2]net.Conn{{from, to}, {to, from}} {
			go func() { io.Copy(way[0], way[1]); way[0].Close(); done <- struct{}{} }()
		}
		<-done
		<-done
	}))
	defer proxy.Close()
	at, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	direct := &net.Dialer{}
	through := &http.Client{Transport: &http.Transport{
		Proxy:           http.ProxyURL(at),
		TLSClientConfig: client.Transport.(*http.Transport).TLSClientConfig.Clone(),
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if addr != at.Host {
				return nil, errors.New("only the proxy can be reached")
			}
			return direct.DialContext(ctx, network, addr)
		},
		TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{},
	}}
	a, b := newIdentity(t, "agent-a"), newIdentity(t, "agent-b")
	loopback, err := LoopbackNet()
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Trust: newBook(a, b), Signaling: []string{server}, HTTPClient: through, Net: loopback}
	cfgA, cfgB := cfg, cfg
	cfgA.Identity, cfgB.Identity = a, b
	nodeA, nodeB := listenReal(t, cfgA), listenReal(t, cfgB)
	p, q := meet(t, nodeA, nodeB)
	tell(t, p, "introduced through a proxy")
	hear(t, q, "introduced through a proxy")
	if n := tunnels.Load(); n != 2 {
		t.Errorf("%d tunnels", n)
	}
	nodeA.Close()
	nodeB.Close()
	through.CloseIdleConnections()
}

// relayServer is a turn.Server at a loopback address by TCP and TLS, with the
// configuration of the TLS of its clients.
func relayServer(t *testing.T, ip string) (plain, secure turn.Relay) {
	t.Helper()
	var listeners []net.Listener
	for range 2 {
		l, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
		if err != nil {
			t.Fatal(err)
		}
		listeners = append(listeners, l)
	}
	// The certificate of httptest is for 127.0.0.1 and ::1.
	web := httptest.NewTLSServer(nil)
	client := web.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	plain = turn.Relay{URL: "turn:" + listeners[0].Addr().String() + "?transport=tcp", Username: "agent", Password: "long enough"}
	secure = plain
	secure.URL = "turns:" + listeners[1].Addr().String() + "?transport=tcp"
	secure.TLS = &tls.Config{RootCAs: client.RootCAs}
	listeners[1] = tls.NewListener(listeners[1], web.TLS.Clone())
	web.Close()
	loopback := netip.MustParseAddr(ip)
	s, err := turn.NewServer(turn.ServerConfig{
		Listeners: listeners, Users: map[string]string{plain.Username: plain.Password},
		RelayIPs: []turn.RelayIP{{Public: loopback}}, AllowPeers: []netip.Prefix{netip.PrefixFrom(loopback, loopback.BitLen())},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return plain, secure
}

// TestRelayByStream: where there is no UDP, agents meet by a relay over TCP and over TLS
// with an authority of their own; without that authority they do not.
func TestRelayByStream(t *testing.T) {
	url, client := realServer(t)
	plain, secure := relayServer(t, "127.0.0.1")
	plain6, secure6 := relayServer(t, "::1")
	stranger := secure
	stranger.TLS = nil
	for name, relay := range map[string]turn.Relay{"TCP": plain, "TLS": secure, "TCP over IPv6": plain6, "TLS over IPv6": secure6, "TLS of a stranger": stranger} {
		a, b := newIdentity(t, "agent-a"), newIdentity(t, "agent-b")
		cfg := Config{Trust: newBook(a, b), Signaling: []string{url}, HTTPClient: client, Net: blockedNet(t),
			TURN: fixedRelays{relay}, Paths: Paths{RelayAfter: AtOnce}}
		cfgA, cfgB := cfg, cfg
		cfgA.Identity, cfgB.Identity = a, b
		nodeA, nodeB := listenReal(t, cfgA), listenReal(t, cfgB)
		if name == "TLS of a stranger" {
			if _, err := dialFor(nodeA, "agent-b", time.Second); err == nil {
				t.Errorf("%s: connected", name)
			}
			continue
		}
		p, q := meet(t, nodeA, nodeB)
		tell(t, p, name)
		hear(t, q, name)
		if path := p.Status().Path; path.Relay != relay.Server() {
			t.Errorf("%s: path %v", name, path)
		}
		if err := q.Replace(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		tell(t, q, "again")
		hear(t, p, "again")
	}
}

// TestRelayOnlyByTCP: an agent that hides its addresses dials nobody's TCP candidate,
// which would show them.
func TestRelayOnlyByTCP(t *testing.T) {
	url, client := realServer(t)
	plain, _ := relayServer(t, "127.0.0.1")
	a, b := newIdentity(t, "agent-a"), newIdentity(t, "agent-b")
	inner, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &countedListener{Listener: inner}
	loopback, err := LoopbackNet()
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Trust: newBook(a, b), Signaling: []string{url}, HTTPClient: client, Net: loopback,
		TURN: fixedRelays{plain}, Paths: Paths{RelayAfter: AtOnce}}
	cfgA, cfgB := cfg, cfg
	cfgA.Identity, cfgA.TCP, cfgA.Paths.RelayOnly = a, true, true
	cfgB.Identity, cfgB.TCPListener = b, l
	nodeA, nodeB := listenReal(t, cfgA), listenReal(t, cfgB)
	p, q := meet(t, nodeA, nodeB)
	tell(t, p, "hidden")
	hear(t, q, "hidden")
	if path := p.Status().Path; !path.Relayed() {
		t.Errorf("path %v", path)
	}
	for _, x := range []*Peer{p, q} {
		if err := x.Replace(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if n := l.accepted.Load(); n != 0 {
		t.Errorf("%d connections to the listener", n)
	}
}

// countedListener counts what it accepts.
type countedListener struct {
	net.Listener
	accepted atomic.Int32
}

func (l *countedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.accepted.Add(1)
	}
	return c, err
}

// TestRelayConnGivesUp: a stream to a relay that takes nothing more is closed, instead of
// holding up whoever writes.
func TestRelayConnGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe() // nobody reads
		defer far.Close()
		c := &relayConn{near}
		began := time.Now()
		if _, err := c.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != relayWriteWait {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		if _, err := c.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("after that: %v", err)
		}
	})
}

// TestRelayDialerStops: closing a connection ends its dialing at once, and what was
// dialled after a moment.
func TestRelayDialerStops(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0") // it accepts and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	loopback, err := LoopbackNet()
	if err != nil {
		t.Fatal(err)
	}
	w, err := newRelayWay(loopback, &turn.Relay{URL: "turns:" + l.Addr().String()}, netip.MustParseAddrPort(l.Addr().String()))
	if err != nil {
		t.Fatal(err)
	}
	d := w.dial
	failed := make(chan error)
	go func() {
		_, err := d.Dial("tcp4", l.Addr().String()) // hangs in the handshake
		failed <- err
	}()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	end := d.stop()
	if err := <-failed; err == nil {
		t.Error("dialled")
	}
	end()
	if _, err := d.Dial("tcp4", l.Addr().String()); err == nil {
		t.Error("dialled after the end")
	}
	at := netip.MustParseAddrPort("192.0.2.7:99")
	if w, err := newRelayWay(loopback, nil, at); w != nil || err != nil {
		t.Errorf("no relay: %v, %v", w, err)
	}
	if w, err := newRelayWay(loopback, &turn.Relay{URL: "turn:127.0.0.1"}, at); err != nil || w.dial != nil || w.url != "turn:192.0.2.7:99?transport=udp" {
		t.Errorf("by UDP: %+v, %v", w, err)
	}
	if w, err := newRelayWay(loopback, &turn.Relay{URL: "stun:127.0.0.1"}, at); w != nil || err == nil || !strings.Contains(err.Error(), "is a STUN URL") {
		t.Errorf("a STUN server: %v, %v", w, err)
	}
	(*relayDialer)(nil).stop()()
}
