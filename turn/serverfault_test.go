package turn

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/stun/v4"
	pion "github.com/pion/turn/v5"
)

// faulty fails to read, or to accept, so many times.
type faulty struct {
	net.PacketConn
	net.Listener
	left atomic.Int64
}

var errFault = errors.New("no buffer space available")

func (f *faulty) ReadFrom(p []byte) (int, net.Addr, error) {
	if f.left.Add(-1) >= 0 {
		return 0, nil, errFault
	}
	return f.PacketConn.ReadFrom(p)
}

func (f *faulty) Accept() (net.Conn, error) {
	if f.left.Add(-1) >= 0 {
		return nil, errFault
	}
	return f.Listener.Accept()
}

// both have these.
func (f *faulty) Close() error   { return errors.Join(f.PacketConn.Close(), f.Listener.Close()) }
func (f *faulty) Addr() net.Addr { return f.Listener.Addr() }

// TestServerOutlivesFaults: of its sockets, which are not the end of them; nor does
// it spin.
func TestServerOutlivesFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		datagrams, accepts := &faulty{}, &faulty{Listener: l}
		datagrams.left.Store(20)
		accepts.left.Store(20)
		w := newServerWorld(t, func(c *ServerConfig) {
			datagrams.PacketConn, accepts.PacketConn = c.PacketConns[0], noConn{}
			datagrams.Listener = noListener{}
			c.PacketConns = []net.PacketConn{datagrams}
			c.Listeners = []net.Listener{accepts}
		})
		start := time.Now()
		w.callPipe(l, "a").mustAllocate()
		if took := time.Since(start); took < 5*time.Second {
			t.Errorf("20 faults took %v: it spins", took)
		}
		w.call("b").mustAllocate()
		// One that does not end does not keep the server from ending.
		datagrams.left.Store(1 << 60)
		w.call("b").send(stun.BindingRequest)
		synctest.Wait()
		check(t, w.server.Close())
	})
}

type (
	noConn     struct{ net.PacketConn }
	noListener struct{ net.Listener }
)

func (noConn) Close() error     { return nil }
func (noListener) Close() error { return nil }

// TestServerDatagramSize: what is cut off is not relayed.
func TestServerDatagramSize(t *testing.T) {
	s := serve(t, func(c *ServerConfig) { c.AllowPeers = loopbacks })
	c := call(t, s.addr(), "u", serverPassword)
	relayed := net.UDPAddrFromAddrPort(c.mustAllocate())
	peer := udp(t, loopback4)
	if code := c.bind(0x4000, addrPort(peer.LocalAddr())); code != 0 {
		t.Fatal(code)
	}
	for _, size := range []int{2000, maxDatagram, maxDatagram - 1, 1200} {
		_, err := peer.WriteTo(make([]byte, size), relayed)
		check(t, err)
	}
	check(t, c.conn.SetReadDeadline(time.Now().Add(5*time.Second)))
	buf := make([]byte, 4000)
	for _, want := range []int{maxDatagram - 1, 1200} {
		n, _, err := c.conn.ReadFrom(buf)
		check(t, err)
		if got, ok := payload(buf[:n]); !ok || got != want {
			t.Errorf("%d bytes instead of %d", got, want)
		}
	}
}

// TestServerCloseInTraffic: while clients allocate, send and are sent to, by UDP and
// TCP, from several goroutines.
func TestServerCloseInTraffic(t *testing.T) {
	for range 3 {
		l := tcp(t, loopback4)
		s := serve(t, func(c *ServerConfig) {
			c.PacketConns = []net.PacketConn{udp(t, loopback4), udp(t, loopback4)}
			c.Listeners = []net.Listener{l}
			c.AllowPeers = loopbacks
			c.AnswersPerSecond = 1_000_000
		})
		peer := echo(t, loopback4).LocalAddr()
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for n := range 8 {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						passBy(t, s, l, n, addrPort(peer))
					}
				}
			})
		}
		until(t, "traffic", func() bool { return s.Stats().ToClients.Datagrams > 200 })
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		close(stop)
		wg.Wait()
		if st := s.Stats(); st.Allocations != 0 || st.Connections != 0 {
			t.Errorf("left %+v", st)
		}
	}
}

// passBy is one client that comes, talks to a peer and goes. It does not mind
// when the server does so first.
func passBy(t *testing.T, s *Server, l net.Listener, n int, peer netip.AddrPort) {
	var conn net.PacketConn
	server := s.cfg.PacketConns[n%2].LocalAddr()
	if n%4 == 3 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			return
		}
		conn, server = pion.NewSTUNConn(c), l.Addr()
	} else {
		var err error
		conn, err = net.ListenPacket("udp", "127.0.0.1:0")
		check(t, err)
	}
	defer conn.Close()
	c := callOn(t, conn, server, "u", serverPassword)
	ask := func(setters ...stun.Setter) *stun.Message {
		m, err := stun.Build(append([]stun.Setter{stun.TransactionID}, setters...)...)
		check(t, err)
		if _, err := conn.WriteTo(m.Raw, server); err != nil {
			return nil
		}
		a, _ := c.tryReceive(100 * time.Millisecond)
		return a
	}
	a := ask(stun.NewType(stun.MethodAllocate, stun.ClassRequest), transportUDP)
	if a == nil || c.realm.GetFrom(a) != nil || c.nonce.GetFrom(a) != nil {
		return
	}
	c.key = stun.NewLongTermIntegrity(c.user, c.realm.String(), c.password)
	if ask(c.sign(stun.MethodAllocate, transportUDP)...) == nil ||
		ask(c.sign(stun.MethodChannelBind, channelNumber(0x4000), peerAddr(peer))...) == nil {
		return
	}
	for range 20 {
		_, _ = conn.WriteTo([]byte{0x40, 0, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8}, server)
	}
	buf := make([]byte, 100)
	_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	for range 10 {
		if _, _, err := conn.ReadFrom(buf); err != nil {
			return
		}
	}
	ask(c.sign(stun.MethodRefresh, attr(stun.AttrLifetime, 0, 0, 0, 0))...)
}
