package virtual_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/infrafabric/agentmesh/internal/virtual"
)

// sized is a text of so many bytes that begins with a number.
func sized(i, size int) string {
	s := fmt.Sprintf("%d ", i)
	return s + strings.Repeat("x", size-len(s))
}

// TestSetRate: what is sent at one moment arrives spread, and what finds no room in
// the queue is lost, in each direction for itself, at the sender as at the receiver.
func TestSetRate(t *testing.T) {
	for _, at := range []string{"sender", "receiver"} {
		for _, extra := range []time.Duration{0, 300 * time.Millisecond} {
			t.Run(fmt.Sprintf("%s/%v", at, extra), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := virtual.New(t, virtual.Config{RTT: 20 * time.Millisecond})
					a, b, toB, toA := pair(t, n, virtual.FullCone, virtual.Open)
					slow := a.host
					if at == "receiver" {
						slow = b.host
					}
					a.host.SetDelay(extra)
					// 100 bytes take 100 ms; nine more find room.
					if err := slow.SetRate(1000, 1000); err != nil {
						t.Fatal(err)
					}
					for range 2 {
						start := time.Now()
						for i := range 15 {
							a.send(sized(i, 100), toB)
							b.send(sized(i, 100), toA)
						}
						for i := range 10 {
							b.expect(sized(i, 100))
							a.expect(sized(i, 100))
							want := 10*time.Millisecond + extra + time.Duration(i+1)*100*time.Millisecond
							if got := time.Since(start); got != want {
								t.Errorf("datagram %d arrived after %v, want %v", i, got, want)
							}
						}
						for _, s := range []*socket{a, b} {
							if got, _ := s.within(time.Second); got != "" {
								t.Errorf("received %q as well", got)
							}
						}
					}
					if err := slow.SetRate(0, 0); err != nil {
						t.Fatal(err)
					}
					took(t, a, b, toB, 10*time.Millisecond+extra)
				})
			})
		}
	}
}

// TestRateIsShared by all that a host receives, and touches nobody else.
func TestRateIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := virtual.New(t, virtual.Config{RTT: 20 * time.Millisecond})
		a, b, c := newSocket(t, n, virtual.Open), newSocket(t, n, virtual.Open), newSocket(t, n, virtual.Open)
		if err := c.host.SetRate(1000, 10000); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		for i := range 5 {
			a.send(sized(2*i, 100), c.LocalAddr())
			b.send(sized(2*i+1, 100), c.LocalAddr())
		}
		took(t, a, b, b.LocalAddr(), 10*time.Millisecond)
		for i := range 10 {
			c.expect(sized(i, 100))
		}
		if got, want := time.Since(start), 1010*time.Millisecond; got != want {
			t.Errorf("ten datagrams took %v, want %v", got, want)
		}
	})
}

// TestRateKeepsOrder: after it was lifted or changed, what waits still goes first, at
// its time.
func TestRateKeepsOrder(t *testing.T) {
	for _, rate := range []int{0, 100000} {
		for _, receiver := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d/%v", rate, receiver), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := virtual.New(t, virtual.Config{RTT: 20 * time.Millisecond})
					a, b := newSocket(t, n, virtual.Open), newSocket(t, n, virtual.Open)
					slow := a.host
					if receiver {
						slow = b.host
					}
					set := func(rate int) {
						t.Helper()
						if err := slow.SetRate(rate, 200000); err != nil {
							t.Fatal(err)
						}
					}
					set(1000)
					start := time.Now()
					for i := range 20 {
						a.send(sized(i, 100), b.LocalAddr())
					}
					time.Sleep(150 * time.Millisecond)
					set(rate)
					for i := range 20 {
						a.send(sized(20+i, 100), b.LocalAddr())
					}
					for i := range 40 {
						b.expect(sized(i, 100))
						want := 10*time.Millisecond + time.Duration(min(i+1, 20))*100*time.Millisecond
						if i >= 20 && rate > 0 {
							want += time.Duration(i-19) * time.Millisecond
						}
						if got := time.Since(start); got != max(want, 150*time.Millisecond) {
							t.Errorf("datagram %d arrived after %v, want %v", i, got, want)
						}
					}
				})
			})
		}
	}
}

// TestRateLetsTheLargestPass: a datagram that is larger than the queue passes when
// nothing waits.
func TestRateLetsTheLargestPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := virtual.New(t, virtual.Config{})
		a, b := newSocket(t, n, virtual.Open), newSocket(t, n, virtual.Open)
		if err := a.host.SetRate(1000, 0); err != nil {
			t.Fatal(err)
		}
		a.send(sized(1, 1000), b.LocalAddr())
		a.send(sized(2, 10), b.LocalAddr())
		b.expect(sized(1, 1000))
		b.expectNothing()
		for _, bad := range [][2]int{{-1, 1}, {1, -1}} {
			if err := a.host.SetRate(bad[0], bad[1]); err == nil {
				t.Errorf("%v was accepted", bad)
			}
		}
	})
}
