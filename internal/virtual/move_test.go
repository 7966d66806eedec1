package virtual_test

import (
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/infrafabric/agentmesh/internal/virtual"
)

// TestMove: a new address for everybody to see; old sockets are alone, new ones
// work.
func TestMove(t *testing.T) {
	for _, nat := range nats {
		t.Run(nat.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := virtual.New(t, virtual.Config{RTT: 10 * time.Millisecond})
				old, other := newSocket(t, n, nat), newSocket(t, n, virtual.Open)
				h := old.host
				public, private := h.Addr(), old.addr()
				seen := old.seenBy(other)
				if got := seen.(*net.UDPAddr).IP.String(); got != public {
					t.Fatalf("Addr is %s, seen as %s", public, got)
				}
				old.send("under way", other.LocalAddr())
				other.send("under way", seen)

				if err := h.Move(); err != nil {
					t.Fatal(err)
				}
				if h.Addr() == public || old.addr().Equal(private) {
					t.Errorf("still at %s, %v", h.Addr(), old.addr())
				}
				if (nat == virtual.Open) != (old.addr().String() == h.Addr()) {
					t.Errorf("%v host has the address %v and is seen as %s", nat, old.addr(), h.Addr())
				}
				other.expectNothing()
				old.expectNothing()
				if old.reaches(other, other.LocalAddr()) {
					t.Error("an old socket still sends")
				}
				if other.reaches(old, seen) {
					t.Error("an old socket still receives")
				}

				fresh := old.another()
				now := fresh.seenBy(other)
				if got := now.(*net.UDPAddr).IP.String(); got != h.Addr() {
					t.Errorf("Addr is %s, seen as %s", h.Addr(), got)
				}
				if !other.reaches(fresh, now) {
					t.Error("a new socket does not receive")
				}
				// The address it had is no longer one of the host's.
				if _, err := h.ListenUDP("udp4", &net.UDPAddr{IP: private}); err == nil {
					t.Error("a socket was opened at the old address")
				}
			})
		})
	}
}

// TestFaultsMoveAlong: they are the host's.
func TestFaultsMoveAlong(t *testing.T) {
	for _, nat := range kinds {
		t.Run(nat.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := virtual.New(t, virtual.Config{RTT: 10 * time.Millisecond})
				a, b := newSocket(t, n, nat), newSocket(t, n, virtual.Open)
				move := func() {
					t.Helper()
					if err := a.host.Move(); err != nil {
						t.Fatal(err)
					}
					a = a.another()
				}
				a.host.SetDelay(time.Second)
				move()
				took(t, a, b, b.LocalAddr(), time.Second+5*time.Millisecond)
				a.host.SetDelay(0)

				for _, fault := range []struct {
					name       string
					begin, end func()
				}{
					{"block", func() { n.Block(a.host, b.host) }, func() { n.Unblock(a.host, b.host) }},
					{"unplug", a.host.Unplug, a.host.Plug},
					{"narrow path", func() { _ = a.host.SetMTU(1) }, func() { _ = a.host.SetMTU(0) }},
					{"loss one way", func() { _ = n.SetOneWayLoss(a.host, b.host, 100, 1) }, func() { _ = n.SetOneWayLoss(a.host, b.host, 0, 1) }},
					{"loss", func() { _ = a.host.SetLoss(100, 1) }, func() { _ = a.host.SetLoss(0, 1) }},
				} {
					fault.begin()
					move()
					if a.reaches(b, b.LocalAddr()) {
						t.Errorf("a move ended the %s", fault.name)
					}
					fault.end()
					if !a.reaches(b, b.LocalAddr()) {
						t.Errorf("the %s does not end", fault.name)
					}
				}
			})
		})
	}
}

// TestMoveWhileSending: sockets, moves and datagrams at once.
func TestMoveWhileSending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := virtual.New(t, virtual.Config{RTT: 2 * time.Millisecond})
		a, b, _, toA := pair(t, n, virtual.FullCone, virtual.Open)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range 300 {
				a.send("x", b.LocalAddr())
				b.send("x", toA)
				time.Sleep(time.Millisecond)
			}
		}()
		for range 20 {
			time.Sleep(10 * time.Millisecond)
			if err := a.host.Move(); err != nil {
				t.Fatal(err)
			}
		}
		<-done
	})
}

func TestMoveAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := virtual.New(t, virtual.Config{})
		h := newSocket(t, n, virtual.FullCone).host
		if err := h.Move(); err != nil {
			t.Fatal(err)
		}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
		if err := h.Move(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v", err)
		}
	})
}

// TestAddressesRunOut: a move takes an address for good.
func TestAddressesRunOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := virtual.New(t, virtual.Config{})
		h, err := n.Host(virtual.Open)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{h.Addr(): true}
		for range 60000 - 1 {
			if err := h.Move(); err != nil {
				t.Fatalf("move %d: %v", len(seen), err)
			}
			seen[h.Addr()] = true
		}
		if len(seen) != 60000 {
			t.Errorf("%d addresses", len(seen))
		}
		last := h.Addr()
		if err := h.Move(); !errors.Is(err, virtual.ErrNoAddress) || h.Addr() != last {
			t.Errorf("one move too many: %v, now at %s", err, h.Addr())
		}
		if _, err := n.Host(virtual.Symmetric); !errors.Is(err, virtual.ErrNoAddress) {
			t.Errorf("one host too many: %v", err)
		}
	})
}

// TestListenConfig: pion opens sockets through this as well.
func TestListenConfig(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := virtual.New(t, virtual.Config{})
		a := newSocket(t, n, virtual.Open)
		lc := a.host.CreateListenConfig(&net.ListenConfig{})
		if err := a.host.Move(); err != nil {
			t.Fatal(err)
		}
		c, err := lc.ListenPacket(t.Context(), "udp4", a.host.Addr()+":7000")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if got, want := c.LocalAddr().String(), a.host.Addr()+":7000"; got != want {
			t.Errorf("listens at %s, want %s", got, want)
		}
		// The caller's address stays as it is.
		at := &net.UDPAddr{IP: a.addr()}
		for range 2 {
			c, err := a.host.ListenUDP("udp4", at)
			if err != nil || at.Port != 0 {
				t.Fatalf("%v, %v", at, err)
			}
			defer c.Close()
		}
		if l, err := lc.Listen(t.Context(), "tcp4", "127.0.0.1:0"); err == nil {
			l.Close()
			t.Error("listens on the real network")
		}
	})
}
