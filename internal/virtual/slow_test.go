package virtual_test

import (
	"fmt"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/infrafabric/agentmesh/internal/virtual"
)

// TestSetDelay: each end adds its own, in both directions, and taking it back
// takes it back.
func TestSetDelay(t *testing.T) {
	const rtt = 40 * time.Millisecond
	for _, natA := range kinds {
		for _, natB := range kinds {
			t.Run(fmt.Sprintf("%v-%v", natA, natB), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := virtual.New(t, virtual.Config{RTT: rtt})
					a, b, toB, toA := pair(t, n, natA, natB)
					for _, extra := range [][2]time.Duration{{0, 0}, {7, 0}, {0, time.Second}, {100 * time.Millisecond, 3}, {0, 0}} {
						a.host.SetDelay(extra[0])
						b.host.SetDelay(extra[1])
						want := rtt/2 + extra[0] + extra[1]
						took(t, a, b, toB, want)
						took(t, b, a, toA, want)
					}
				})
			})
		}
	}
}

// TestSetDelayTouchesNobodyElse: neither two other hosts nor the loopback of the
// slow one.
func TestSetDelayTouchesNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := virtual.New(t, virtual.Config{RTT: 10 * time.Millisecond})
		slow, a, b := newSocket(t, n, virtual.Open), newSocket(t, n, virtual.Open), newSocket(t, n, virtual.Open)
		slow.host.SetDelay(time.Hour)
		slow.send("waits", a.LocalAddr())
		took(t, a, b, b.LocalAddr(), 5*time.Millisecond)
		b.host.SetDelay(time.Second)
		slow.host.SetDelay(0)
		took(t, a, b, b.LocalAddr(), 1005*time.Millisecond)

		loop, err := slow.host.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		defer loop.Close()
		inside := &socket{t: t, UDPConn: loop, host: slow.host}
		took(t, inside, inside, loop.LocalAddr(), 0)
	})
}

// TestSetDelayKeepsOrder: datagrams after a lowered delay wait for those before
// it, and those to other hosts do not.
func TestSetDelayKeepsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := virtual.New(t, virtual.Config{RTT: 20 * time.Millisecond})
		a, b, other := newSocket(t, n, virtual.FullCone), newSocket(t, n, virtual.Open), newSocket(t, n, virtual.Open)
		start := time.Now()
		at := func(want time.Duration) {
			t.Helper()
			if got := time.Since(start); got != want {
				t.Errorf("arrived after %v, want %v", got, want)
			}
		}
		b.host.SetDelay(100 * time.Millisecond)
		const before, after = 50, 50
		for i := range before {
			a.send(fmt.Sprint(i), b.LocalAddr())
		}
		b.host.SetDelay(0)
		for i := range after {
			a.send(fmt.Sprint(before+i), b.LocalAddr())
		}
		a.send("past", other.LocalAddr())
		other.expect("past")
		at(10 * time.Millisecond)
		other.host.SetDelay(30 * time.Millisecond) // in the queue, but before them
		a.send("past", other.LocalAddr())
		other.expect("past")
		at(50 * time.Millisecond)
		for i := range before + after {
			b.expect(fmt.Sprint(i))
			at(110 * time.Millisecond)
		}
		// Nothing is left to wait for.
		took(t, a, b, b.LocalAddr(), 10*time.Millisecond)
	})
}

// TestSetDelayCopies: the sender may use its buffer and address again.
func TestSetDelayCopies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := virtual.New(t, virtual.Config{})
		a, b := newSocket(t, n, virtual.Open), newSocket(t, n, virtual.Open)
		a.host.SetDelay(time.Second)
		buf, to := []byte("first"), *b.LocalAddr().(*net.UDPAddr)
		if _, err := a.WriteToUDP(buf, &to); err != nil {
			t.Fatal(err)
		}
		copy(buf, "other")
		to.Port++
		b.expect("first")
	})
}

// TestDialledSocketIsSlow: all ways to write are.
func TestDialledSocketIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := virtual.New(t, virtual.Config{RTT: 2 * time.Millisecond})
		a, b := newSocket(t, n, virtual.Open), newSocket(t, n, virtual.Open)
		a.host.SetDelay(time.Second)
		dialled, err := a.host.CreateDialer(&net.Dialer{}).Dial("udp4", b.LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer dialled.Close()
		start := time.Now()
		if _, err := dialled.Write([]byte("tick")); err != nil {
			t.Fatal(err)
		}
		b.expect("tick")
		if got := time.Since(start); got != time.Second+time.Millisecond {
			t.Errorf("took %v", got)
		}
		if _, err := a.Write([]byte("nowhere")); err == nil {
			t.Error("a socket that is not connected wrote to nowhere")
		}
	})
}

// TestSetDelayUnderFire: senders, delays and a closing network at once.
func TestSetDelayUnderFire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := virtual.New(t, virtual.Config{RTT: time.Millisecond})
		b := newSocket(t, n, virtual.Open)
		var wg sync.WaitGroup
		for range 4 {
			a := newSocket(t, n, virtual.Symmetric)
			wg.Go(func() {
				for i := range 500 {
					a.host.SetDelay(time.Duration(i%3) * time.Millisecond)
					a.send("x", b.LocalAddr())
					if i%50 == 0 {
						time.Sleep(time.Millisecond)
					}
				}
			})
		}
		wg.Wait()
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestSetDelayIsBounded: what is held back is, and what comes on top is lost.
func TestSetDelayIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := virtual.New(t, virtual.Config{})
		a, b := newSocket(t, n, virtual.Open), newSocket(t, n, virtual.Open)
		a.host.SetDelay(time.Second)
		const limit = 1 << 16
		const burst = 1000 // below what a socket holds unread
		for range limit - burst {
			a.send("to nobody", &net.UDPAddr{IP: net.IPv4(1, 2, 99, 99), Port: 1})
		}
		for range burst + 5 {
			a.send("x", b.LocalAddr())
		}
		for range burst {
			b.expect("x")
		}
		b.expectNothing()
		took(t, a, b, b.LocalAddr(), time.Second)
	})
}

func TestNegativeDelayPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newSocket(t, virtual.New(t, virtual.Config{}), virtual.Open).host
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		h.SetDelay(-1)
	})
}

// TestHostLoss: it takes what the host sends and receives, and from nobody else;
// the seed decides what.
func TestHostLoss(t *testing.T) {
	const total = 900 // below what a socket holds unread
	run := func(seed int64) (from, to, beside string) {
		synctest.Test(t, func(t *testing.T) {
			n := virtual.New(t, virtual.Config{RTT: 10 * time.Millisecond})
			lossy, b, toB, toLossy := pair(t, n, virtual.FullCone, virtual.FullCone)
			c, d := newSocket(t, n, virtual.Open), newSocket(t, n, virtual.Open)
			if err := lossy.host.SetLoss(20, seed); err != nil {
				t.Fatal(err)
			}
			flow := func(from, to *socket, addr addr) (arrived string) {
				for i := range total {
					from.send(fmt.Sprintf("%d,", i), addr)
				}
				for {
					text, _ := to.next()
					if text == "" {
						return arrived
					}
					arrived += text
				}
			}
			from, to, beside = flow(lossy, b, toB), flow(b, lossy, toLossy), flow(c, d, d.LocalAddr())
		})
		return from, to, beside
	}
	from, to, beside := run(1)
	for _, s := range []string{from, to} {
		// The standard deviation is 12.
		if got := commas(s); got < 720-60 || got > 720+60 {
			t.Errorf("with 20 %% lost %d of %d arrived", got, total)
		}
	}
	if got := commas(beside); got != total {
		t.Errorf("between two others %d of %d arrived", got, total)
	}
	if again, _, _ := run(1); again != from {
		t.Error("the same seed lost other datagrams")
	}
	if other, _, _ := run(2); other == from {
		t.Error("another seed lost the same datagrams")
	}
}

func commas(s string) (n int) {
	for _, c := range s {
		if c == ',' {
			n++
		}
	}
	return n
}

func TestHostLossOutOfRange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newSocket(t, virtual.New(t, virtual.Config{}), virtual.Open).host
		for _, percent := range []int{-1, 101} {
			if err := h.SetLoss(percent, 0); err == nil {
				t.Errorf("%d %% was accepted", percent)
			}
		}
	})
}
