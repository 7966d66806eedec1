package virtual_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/infrafabric/agentmesh/internal/virtual"
)

var nats = []virtual.NAT{
	virtual.Open, virtual.FullCone, virtual.AddressRestricted, virtual.PortRestricted, virtual.Symmetric,
}

// TestDelayIsHalfTheRoundTrip sends both ways between hosts of every kind and
// reads the clock. Symmetric against a filter by port cannot talk at all and has
// its place in TestReachability.
func TestDelayIsHalfTheRoundTrip(t *testing.T) {
	for _, rtt := range []time.Duration{0, 2, 50 * time.Millisecond, 600 * time.Millisecond} {
		for _, a := range nats {
			for _, b := range nats {
				if !canTalk(a, b) {
					continue
				}
				t.Run(fmt.Sprintf("%v/%v-%v", rtt, a, b), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { measure(t, rtt, a, b) })
				})
			}
		}
	}
}

func measure(t *testing.T, rtt time.Duration, natA, natB virtual.NAT) {
	n := virtual.New(t, virtual.Config{RTT: rtt})
	a, b := newSocket(t, n, natA), newSocket(t, n, natB)
	toB, toA := punch(t, n, a, b)
	if toB == nil || toA == nil {
		t.Fatalf("no way between %v and %v", natA, natB)
	}
	for range 3 {
		took(t, a, b, toB, rtt/2)
		took(t, b, a, toA, rtt/2)
	}
}

func took(t *testing.T, from, to *socket, addr addr, want time.Duration) {
	t.Helper()
	start := time.Now()
	from.send("tick", addr)
	to.expect("tick")
	if got := time.Since(start); got != want {
		t.Errorf("a datagram took %v, want %v", got, want)
	}
}

// TestDelayDoesNotQueue: datagrams sent at different moments keep their
// distance, and one waiting does not delay the next.
func TestDelayDoesNotQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := virtual.New(t, virtual.Config{RTT: 100 * time.Millisecond})
		a, b := newSocket(t, n, virtual.PortRestricted), newSocket(t, n, virtual.Open)
		const count = 20
		start := time.Now()
		go func() {
			for i := range count {
				a.send(fmt.Sprint(i), b.LocalAddr())
				time.Sleep(7 * time.Millisecond)
			}
		}()
		for i := range count {
			b.expect(fmt.Sprint(i))
			want := 50*time.Millisecond + time.Duration(i)*7*time.Millisecond
			if got := time.Since(start); got != want {
				t.Errorf("datagram %d arrived after %v, want %v", i, got, want)
			}
		}
	})
}
