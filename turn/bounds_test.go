package turn

import (
	"container/list"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/stun/v4"
	"github.com/pion/transport/v5"
	pion "github.com/pion/turn/v5"
	"golang.org/x/time/rate"
)

// TestAnswerRateOverTime: so many at once, and again as many a second, whatever the clock does; unused ones
// are not saved up.
func TestAnswerRateOverTime(t *testing.T) {
	r := newAnswerRate(10)
	a := netip.MustParseAddr("192.0.2.1")
	for i, c := range []struct {
		at    time.Duration
		asked int
		want  int
	}{
		{0, 12, 10}, {100 * time.Millisecond, 3, 1}, {150 * time.Millisecond, 3, 0}, {200 * time.Millisecond, 3, 1},
		{100 * time.Millisecond, 3, 0}, // the clock is not taken back
		{700 * time.Millisecond, 9, 5}, {time.Hour, 99, 10}, {time.Hour + 99*time.Millisecond, 3, 0}, {time.Hour + 101*time.Millisecond, 3, 1},
	} {
		got := 0
		for range c.asked {
			if r.allow(a, r.start.Add(c.at)) {
				got++
			}
		}
		if got != c.want {
			t.Errorf("%d, after %v: %d answers, want %d", i, c.at, got, c.want)
		}
	}
}

// stillServer is a Server that serves nothing.
func stillServer(change func(c *ServerConfig)) *Server {
	s := &Server{
		cfg: ServerConfig{MaxAllocations: 3, MaxAllocationsPerUser: 2, MaxConnections: 2, BytesPerSecond: 1 << 20, PortMin: 5000, PortMax: 5009,
			Logger: slog.New(slog.DiscardHandler), RelayIPs: []RelayIP{{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("10.0.0.1")}}},
		stop: make(chan struct{}), drained: make(chan struct{}), accounts: map[string]*account{}, relays: map[netip.AddrPort]*allocation{},
		streams: map[*stream]struct{}{}, idle: list.New(),
	}
	if change != nil {
		change(&s.cfg)
	}
	return s
}

// TestAccounts: a user has so many places, and an account is kept while anything is known of it.
func TestAccounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := stillServer(nil)
		a, b := s.reserve("u"), s.reserve("u")
		if a == nil || a != b || a.allocations != 2 || s.reserve("u") != nil || s.reserve("v") == nil {
			t.Fatalf("%+v", a)
		}
		if burst := a.limit.Burst(); burst != 1<<20/burstPart || a.limit.Limit() != rate.Limit(1<<20) {
			t.Errorf("burst %d, limit %v", burst, a.limit.Limit())
		}
		s.release(a)
		if s.reserve("u") != a || a.allocations != 2 {
			t.Errorf("%+v", a)
		}
		s.release(a)
		s.release(a)
		if s.accounts["u"] != nil || len(s.accounts) != 1 {
			t.Errorf("%d accounts", len(s.accounts))
		}
		a = s.reserve("u")
		a.take(a.limit.Burst())
		s.release(a)
		if s.accounts["u"] != a || a.idle() {
			t.Error("what it has used is forgotten")
		}
		time.Sleep(time.Second)
		if again := s.reserve("u"); again != a || !a.idle() {
			t.Error("another account")
		}
		s.release(a)
		if s.accounts["u"] != nil {
			t.Error("an account as good as new is kept")
		}
		slow := stillServer(func(c *ServerConfig) { c.BytesPerSecond = 100 })
		if burst := slow.reserve("u").limit.Burst(); burst != minBurst {
			t.Errorf("burst %d", burst)
		}
	})
}

// TestPlaces: there are so many allocations, none while the server drains, and it is drained with the last.
func TestPlaces(t *testing.T) {
	s := stillServer(nil)
	drained := func() bool {
		select {
		case <-s.drained:
			return true
		default:
			return false
		}
	}
	for range 3 {
		if err := s.occupy(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.occupy(); !errors.Is(err, errCapacity) || s.total != 3 {
		t.Errorf("%v, %d", err, s.total)
	}
	s.vacate()
	if err := s.occupy(); err != nil || drained() {
		t.Errorf("%v, drained %v", err, drained())
	}
	s.draining = true
	for i := range 3 {
		if drained() {
			t.Errorf("drained with %d left", 3-i)
		}
		s.vacate()
		if err := s.occupy(); !errors.Is(err, errCapacity) {
			t.Errorf("while it drains: %v", err)
		}
	}
	if !drained() || s.total != 0 {
		t.Errorf("%d left", s.total)
	}
	s.checkDrained() // again
}

// ports is a network in which some ports are free.
type ports struct {
	transport.Net
	free  map[int]bool
	tried []string
	err   error
}

func (p *ports) ListenPacket(network, address string) (net.PacketConn, error) {
	p.tried = append(p.tried, network+" "+address)
	_, port, _ := strings.Cut(address, ":")
	if n, err := strconv.Atoi(port); err == nil && p.free[n] {
		return nopSocket{}, nil
	}
	return nil, p.err
}

type nopSocket struct{ net.PacketConn }

func (nopSocket) Close() error { return nil }

// TestPortsOfAllocations: every port of the range is tried, once, those that are in use here not at all, and
// no more than is reasonable.
func TestPortsOfAllocations(t *testing.T) {
	ip := RelayIP{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("10.0.0.1")}
	for port := 5000; port < 5010; port++ {
		s := stillServer(nil)
		n := &ports{free: map[int]bool{port: true}, err: syscall.EADDRINUSE}
		s.cfg.Net = n
		a := &allocation{}
		if err := s.bind(a, "udp4", ip); err != nil || int(a.relayed.Port()) != port || a.relayed.Addr() != ip.Public || s.relay(a.relayed) != a ||
			n.tried[len(n.tried)-1] != "udp4 10.0.0.1:"+strconv.Itoa(port) || len(n.tried) > 10 {
			t.Errorf("%v, %v, tried %q", err, a.relayed, n.tried)
		}
		n.tried = nil
		if err := s.bind(&allocation{}, "udp4", ip); !errors.Is(err, syscall.EADDRINUSE) || len(n.tried) != 9 || !strings.Contains(err.Error(), "no port from 5000 to 5009") {
			t.Errorf("%v, tried %q", err, n.tried)
		}
	}
	s := stillServer(func(c *ServerConfig) { c.PortMin, c.PortMax = 1000, 60000 })
	n := &ports{err: syscall.EACCES}
	s.cfg.Net = n
	if err := s.bind(&allocation{}, "udp4", ip); !errors.Is(err, syscall.EACCES) || len(n.tried) != maxPortTries {
		t.Errorf("%v after %d", err, len(n.tried))
	}
}

// TestWhatIsAllocated: an allocation needs a place of its user's quota, one of all, an address of the family and a
// port; what fails takes none of them.
func TestWhatIsAllocated(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(s *Server, i *inlet, n *ports)
		cfg     pion.AllocateListenerConfig
		err     error // nil is an allocation
		code    stun.ErrorCode
		refused uint64 // counted as for want of room
	}{
		"all is there":        {cfg: pion.AllocateListenerConfig{Network: "udp4"}},
		"no place":            {change: func(_ *Server, i *inlet, _ *ports) { i.now.place = nil }, cfg: pion.AllocateListenerConfig{Network: "udp4"}, err: errCapacity},
		"a port of one's own": {cfg: pion.AllocateListenerConfig{Network: "udp4", RequestedPort: 5001}, err: errCapacity},
		"another family":      {cfg: pion.AllocateListenerConfig{Network: "udp6"}, err: errCapacity, code: stun.CodeAddrFamilyNotSupported},
		"the server is full":  {change: func(s *Server, _ *inlet, _ *ports) { s.total = 3 }, cfg: pion.AllocateListenerConfig{Network: "udp4"}, err: errCapacity, refused: 1},
		"no port":             {change: func(_ *Server, _ *inlet, n *ports) { clear(n.free) }, cfg: pion.AllocateListenerConfig{Network: "udp4"}, err: io.ErrNoProgress, refused: 1},
	} {
		s := stillServer(nil)
		n := &ports{free: map[int]bool{5003: true}, err: io.ErrNoProgress}
		s.cfg.Net = n
		i := &inlet{server: s, allocations: map[netip.AddrPort]*allocation{}}
		place := s.reserve("u")
		i.now = serving{client: netip.MustParseAddrPort("192.0.2.9:9"), place: place}
		if c.change != nil {
			c.change(s, i, n)
		}
		total := s.total
		conn, at, err := i.AllocatePacketConn(c.cfg)
		if !errors.Is(err, c.err) || (conn != nil) != (c.err == nil) || i.now.code != c.code || s.counters.capacityRefused.Load() != c.refused {
			t.Errorf("%s: %v, code %d, %d refused", name, err, i.now.code, s.counters.capacityRefused.Load())
		}
		if c.err != nil {
			if s.total != total || len(i.allocations) != 0 || s.counters.allocated.Load() != 0 {
				t.Errorf("%s: %d places are taken", name, s.total-total)
			}
			continue
		}
		a := i.find(i.now.client)
		if at.String() != "192.0.2.1:5003" || a == nil || a.account != place || i.now.place != nil || s.total != total+1 || s.counters.allocated.Load() != 1 {
			t.Errorf("%s: %v, %+v", name, at, a)
		}
		check(t, errors.Join(conn.Close(), conn.Close()))
		a.end.Do(s.wg.Done)
		s.wg.Wait()
		if s.total != total || i.find(i.now.client) != nil || s.relay(netip.MustParseAddrPort("192.0.2.1:5003")) != nil || place.allocations != 0 {
			t.Errorf("%s: it has left something: %d allocations, %d of the user", name, s.total, place.allocations)
		}
	}
	i := &inlet{}
	if _, _, err := i.AllocateListener(pion.AllocateListenerConfig{}); !errors.Is(err, errCapacity) || i.now.code != stun.CodeUnsupportedTransProto {
		t.Errorf("TCP: %v, code %d", err, i.now.code)
	}
	if _, err := i.AllocateConn(pion.AllocateConnConfig{}); !errors.Is(err, errCapacity) || i.Validate() != nil {
		t.Errorf("a connection: %v", err)
	}
}

// deadlined is a connection that keeps its deadline.
type deadlined struct {
	net.Conn
	read   time.Time
	closed bool
}

func (d *deadlined) SetReadDeadline(t time.Time) error { d.read = t; return nil }
func (d *deadlined) Close() error                      { d.closed = true; return nil }

// TestConnectionsHavePlaces: a connection without an allocation ends in time and gives way to newer ones; one
// that has an allocation does neither.
func TestConnectionsHavePlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := stillServer(nil)
		var conns []*deadlined
		var all []*stream
		for range 4 {
			d := &deadlined{}
			conns = append(conns, d)
			all = append(all, &stream{Conn: d, server: s})
		}
		enlist := func(i int, oldest *stream, ok bool) {
			t.Helper()
			if o, k := s.enlist(all[i]); o != oldest || k != ok {
				t.Errorf("%d: instead of %v, %v", i, o != nil, k)
			}
		}
		enlist(0, nil, true)
		enlist(1, nil, true)
		s.occupied(all[0], true)
		if !conns[0].read.IsZero() || s.idle.Len() != 1 {
			t.Errorf("%v, %d idle", conns[0].read, s.idle.Len())
		}
		s.occupied(all[0], true) // again
		enlist(2, all[1], true)
		s.occupied(all[1], true) // it has gone
		if len(s.streams) != 2 || s.idle.Len() != 1 {
			t.Errorf("%d connections, %d idle", len(s.streams), s.idle.Len())
		}
		s.occupied(all[2], true)
		enlist(3, nil, false)
		if n := s.counters.connectionsRefused.Load(); n != 2 {
			t.Errorf("%d refused", n)
		}
		s.occupied(all[0], false)
		if want := time.Now().Add(connIdle); !conns[0].read.Equal(want) || s.idle.Len() != 1 {
			t.Errorf("%v, %d idle", conns[0].read, s.idle.Len())
		}
		s.occupied(all[0], false) // again
		enlist(3, all[0], true)
		s.forget(all[3])
		s.forget(all[3])
		if len(s.streams) != 1 || s.idle.Len() != 0 {
			t.Errorf("%d connections, %d idle", len(s.streams), s.idle.Len())
		}
		s.closed = true
		enlist(3, nil, false)
	})
}
