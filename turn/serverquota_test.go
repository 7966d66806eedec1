package turn

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/stun/v4"

	"github.com/infrafabric/agentmesh/internal/virtual"
)

func TestServerQuota(t *testing.T) {
	s := serve(t, func(c *ServerConfig) { c.MaxAllocations, c.MaxAllocationsPerUser = 3, 2 })
	// Two credentials of one user, then those of others.
	early, earlyPassword := rest(t, testSecret, "u", time.Minute)
	var callers []*caller
	for i, c := range []struct {
		user, password string
		want           stun.ErrorCode
	}{
		{"u", serverPassword, 0}, {early, earlyPassword, 0}, {"u", serverPassword, 486}, {early, earlyPassword, 486},
		{user: "a", want: 0}, {user: "b", want: 508},
	} {
		if c.password == "" {
			c.user, c.password = rest(t, testSecret, c.user, time.Minute)
		}
		caller := call(t, s.addr(), c.user, c.password)
		callers = append(callers, caller)
		if _, code := caller.allocate(); code != c.want {
			t.Errorf("allocation %d: %d instead of %d", i, code, c.want)
		}
	}
	if st := s.Stats(); st.Allocations != 3 || st.QuotaRefused != 2 || st.CapacityRefused != 1 {
		t.Errorf("counted %+v", st)
	}
	// A place is free as soon as it is given back, also for who was refused.
	if code := callers[0].free(); code != 0 {
		t.Fatal(code)
	}
	callers[5].mustAllocate()
	if _, code := callers[2].allocate(); code != 508 { // the quota of "u" would allow it
		t.Errorf("beyond all: %d", code)
	}
	callers[2].settle() // gives back what was kept for the one that failed
	if code := callers[4].free(); code != 0 {
		t.Fatal(code)
	}
	callers[2].mustAllocate()
}

// TestServerExpiry: an allocation that nobody refreshes gives its place back.
func TestServerExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newServerWorld(t, func(c *ServerConfig) { c.MaxAllocations, c.Lifetime = 1, time.Minute })
		a, b := w.call("a"), w.call("b")
		a.mustAllocate()
		time.Sleep(59 * time.Second)
		if _, code := b.allocate(); code != 508 {
			t.Errorf("within the lifetime: %d", code)
		}
		time.Sleep(2 * time.Second)
		b.mustAllocate()
	})
}

// serverWorld is a virtual network with a server whose users are "a" and "b".
type serverWorld struct {
	t      *testing.T
	net    *virtual.Net
	host   *virtual.Host // of the clients
	server *Server
	port   int
}

// bubble: its network and its server belong to one.
func newServerWorld(t *testing.T, change func(*ServerConfig)) *serverWorld {
	t.Helper()
	n := virtual.New(t, virtual.Config{})
	var hosts []*virtual.Host
	for range 2 {
		h, err := n.Host(virtual.Open)
		check(t, err)
		hosts = append(hosts, h)
	}
	w := &serverWorld{t: t, net: n, host: hosts[1], port: 1000}
	conn, err := hosts[0].ListenPacket("udp4", hosts[0].Addr()+":3478")
	check(t, err)
	w.server = serve(t, func(c *ServerConfig) {
		c.PacketConns = []net.PacketConn{conn}
		c.RelayIPs = []RelayIP{{Public: netip.MustParseAddr(hosts[0].Addr())}}
		c.Net = hosts[0]
		c.Users = map[string]string{"a": serverPassword, "b": serverPassword}
		change(c)
	})
	return w
}

func (w *serverWorld) socket() net.PacketConn {
	w.t.Helper()
	w.port++
	c, err := w.host.ListenPacket("udp4", fmt.Sprintf("%s:%d", w.host.Addr(), w.port))
	check(w.t, err)
	w.t.Cleanup(func() { c.Close() })
	return c
}

func (w *serverWorld) call(user string) *caller {
	w.t.Helper()
	return callOn(w.t, w.socket(), w.server.addr(), user, serverPassword)
}

// TestServerThousand: a thousand allocations at once, asked for through four
// sockets by more requests than that at the same time; then none, and nothing of
// them left.
func TestServerThousand(t *testing.T) {
	const (
		all, perUser, users, sockets = 1000, 150, 8, 4
	)
	var conns []net.PacketConn
	for range sockets {
		conns = append(conns, udp(t, loopback4))
	}
	s := serve(t, func(c *ServerConfig) {
		c.PacketConns = conns
		c.MaxAllocations, c.MaxAllocationsPerUser = all, perUser
		c.AnswersPerSecond = 1_000_000
		c.Users = map[string]string{}
		for u := range users {
			c.Users[fmt.Sprint("u", u)] = serverPassword
		}
	})
	goroutines, heap := runtime.NumGoroutine(), heapInUse()
	var full, left int64
	for range 3 {
		holders := fill(t, s, all, perUser, users)
		full = heapInUse() - heap
		t.Logf("%d allocations: %d bytes and %.1f goroutines each, the client's included", all,
			full/all, float64(runtime.NumGoroutine()-goroutines)/all)
		for _, c := range holders {
			if code := c.free(); code != 0 {
				t.Errorf("free: %d", code)
			}
			c.conn.Close()
		}
		holders = nil
		until(t, "goroutines end", func() bool { return runtime.NumGoroutine() <= goroutines })
		s.mu.Lock()
		if len(s.relays)+len(s.accounts)+s.total != 0 {
			t.Errorf("left: %d relays, %d accounts, %d", len(s.relays), len(s.accounts), s.total)
		}
		s.mu.Unlock()
		left = heapInUse() - heap
		t.Logf("after their end, %d bytes each are left", left/all)
	}
	// Maps keep what they once needed, and the runtime forgets a stopped timer, with
	// all that hangs on it, when it comes to it. But that is not once a round.
	if left > full {
		t.Errorf("three rounds left %d bytes an allocation, which takes %d", left/all, full/all)
	}
}

// fill makes as many allocations as a server with so many sockets allows, by more
// requests at the same time. It returns those who have one.
func fill(t *testing.T, s *Server, all, perUser, users int) []*caller {
	t.Helper()
	sockets := s.cfg.PacketConns
	var mu sync.Mutex
	var holders []*caller
	codes := map[stun.ErrorCode]int{}
	race := func(user string, tries int) {
		var wg sync.WaitGroup
		for _, socket := range sockets {
			wg.Go(func() {
				for range tries / len(sockets) {
					conn, err := net.ListenPacket("udp", "127.0.0.1:0") // no cleanup, which would count as left
					check(t, err)
					c := callOn(t, conn, socket.LocalAddr(), user, serverPassword)
					_, code := c.allocate()
					mu.Lock()
					codes[code]++
					if code == 0 {
						holders = append(holders, c)
					} else {
						conn.Close()
					}
					mu.Unlock()
				}
			})
		}
		wg.Wait()
	}
	start := time.Now()
	// One user alone races for more than his own; then all the others for more than
	// is left.
	race("u0", perUser+50)
	if codes[0] != perUser || codes[486] != 50 || len(codes) != 2 {
		t.Errorf("one user: %v", codes)
	}
	clear(codes)
	var wg sync.WaitGroup
	for u := 1; u < users; u++ {
		wg.Go(func() { race(fmt.Sprint("u", u), perUser+2) })
	}
	wg.Wait()
	if codes[0] != all-perUser || codes[0]+codes[508]+codes[486] != (perUser+2)*(users-1) {
		t.Errorf("everybody: %v", codes)
	}
	t.Logf("after %v: %v", time.Since(start).Round(time.Millisecond), codes)
	if st := s.Stats(); st.Allocations != all {
		t.Errorf("counted %+v", st)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, a := range s.accounts {
		if a.allocations > perUser {
			t.Errorf("%s has %d", name, a.allocations)
		}
	}
	return holders
}

// heapInUse is what is reachable.
func heapInUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestServerBandwidth: over ten virtual seconds one user sends three times what he
// may, by three allocations and in both directions, another a little.
func TestServerBandwidth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const (
			perSecond, seconds, size = 400_000, 10, 1000
			greedy                   = 3
		)
		w := newServerWorld(t, func(c *ServerConfig) { c.BytesPerSecond = perSecond })
		peer := w.socket()
		to := addrPort(peer.LocalAddr())
		drain(t, peer)
		var callers []*caller
		var relayed []netip.AddrPort
		for n := range greedy + 1 {
			user := "a"
			if n == greedy {
				user = "b"
			}
			c := w.call(user)
			relayed = append(relayed, c.mustAllocate())
			if code := c.bind(0x4000, to); code != 0 {
				t.Fatal(code)
			}
			callers = append(callers, c)
		}
		synctest.Wait()
		before := w.server.Stats()
		data := append([]byte{0x40, 0, size >> 8, size & 0xff}, make([]byte, size)...)
		// Every 5 ms each allocation of "a" gets one datagram in each direction:
		// 1.2 MB/s in all. "b" sends a fifth of that of one.
		for tick := range seconds * 200 {
			for n, c := range callers[:greedy] {
				c.sendRaw(data)
				_, err := peer.WriteTo(data[4:], net.UDPAddrFromAddrPort(relayed[n]))
				check(t, err)
			}
			if tick%5 == 0 {
				callers[greedy].sendRaw(data)
			}
			time.Sleep(5 * time.Millisecond)
		}
		synctest.Wait()
		st := w.server.Stats()
		mine := uint64(seconds * 200 / 5 * size) // of "b"
		got := st.ToPeers.Bytes + st.ToClients.Bytes - before.ToPeers.Bytes - before.ToClients.Bytes - mine
		dropped := st.Throttled.Bytes
		t.Logf("%d bytes a second of %d, %d dropped", got/seconds, perSecond, dropped)
		if want := uint64(perSecond * seconds); got < want*97/100 || got > want*102/100 {
			t.Errorf("%d bytes in %d s, %d are allowed", got, seconds, want)
		}
		if got+dropped != 2*greedy*seconds*200*size {
			t.Errorf("%d relayed and %d dropped are not all: something of \"b\" was dropped", got, dropped)
		}
		// Who gives all back and begins anew has no new burst.
		for _, c := range callers[:greedy] {
			if code := c.free(); code != 0 {
				t.Errorf("free: %d", code)
			}
		}
		callers[0].mustAllocate()
		if a := w.server.accounts["a"]; a.idle() {
			t.Error("a new allocation began with a full burst")
		}
	})
}

// drain reads a socket until it is closed.
//
// bubble: the reader ends with the cleanup of the socket.
func drain(t *testing.T, c net.PacketConn) {
	go func() {
		buf := make([]byte, 2048)
		for {
			if _, _, err := c.ReadFrom(buf); err != nil {
				return
			}
		}
	}()
}
