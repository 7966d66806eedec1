package virtual_test

import (
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/infrafabric/agentmesh/internal/virtual"
)

type addr = net.Addr

// canTalk is the table of RFC 5128 §3.3: hole punching fails when one side maps
// by destination and the other filters by port, because the port to let in
// cannot be known before the first datagram from it got in.
func canTalk(a, b virtual.NAT) bool {
	byPort := func(n virtual.NAT) bool { return n == virtual.PortRestricted || n == virtual.Symmetric }
	return (a != virtual.Symmetric || !byPort(b)) && (b != virtual.Symmetric || !byPort(a))
}

// punch does what ICE does, by hand: both learn their public address from a
// third host, send to each other's, and answer where datagrams really come from.
// It returns the addresses that work, or nil.
func punch(t *testing.T, n *virtual.Net, a, b *socket) (toB, toA addr) {
	t.Helper()
	third := newSocket(t, n, virtual.Open)
	mapA, mapB := a.seenBy(third), b.seenBy(third)
	// Twice each: the first may find the other side's filter closed still.
	for range 2 {
		a.send("punch", mapB)
		if text, from := b.next(); text != "" {
			mapA, toA = from, from
		}
		b.send("punch", mapA)
		if text, from := a.next(); text != "" {
			mapB, toB = from, from
		}
	}
	return toB, toA
}

func TestReachability(t *testing.T) {
	for _, a := range nats {
		for _, b := range nats {
			t.Run(fmt.Sprintf("%v-%v", a, b), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := virtual.New(t, virtual.Config{RTT: 10 * time.Millisecond})
					toB, toA := punch(t, n, newSocket(t, n, a), newSocket(t, n, b))
					got := toB != nil && toA != nil
					if want := canTalk(a, b); got != want {
						t.Errorf("can talk: %v, want %v", got, want)
					}
				})
			})
		}
	}
}

// TestFiltering: a socket behind each NAT sends to one address and port only;
// which of three strangers get back in?
func TestFiltering(t *testing.T) {
	tests := []struct {
		nat                virtual.NAT
		otherPort, anybody bool
	}{
		{virtual.Open, true, true},
		{virtual.FullCone, true, true},
		{virtual.AddressRestricted, true, false},
		{virtual.PortRestricted, false, false},
		{virtual.Symmetric, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.nat.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := virtual.New(t, virtual.Config{RTT: 10 * time.Millisecond})
				inside := newSocket(t, n, tt.nat)
				known, stranger := newSocket(t, n, virtual.Open), newSocket(t, n, virtual.Open)
				public := inside.seenBy(known)

				known.send("known", public)
				inside.expect("known")
				admits(t, "another port of a known address", inside, known.another(), public, tt.otherPort)
				admits(t, "an unknown address", inside, stranger, public, tt.anybody)
			})
		})
	}
}

func admits(t *testing.T, what string, inside, from *socket, public addr, want bool) {
	t.Helper()
	from.send("knock", public)
	if text, _ := inside.next(); (text == "knock") != want {
		t.Errorf("%s got in: %v, want %v", what, !want, want)
	}
}

// TestMapping: is a socket seen under the same port by everybody, and are two
// sockets told apart?
func TestMapping(t *testing.T) {
	for _, nat := range nats {
		t.Run(nat.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := virtual.New(t, virtual.Config{})
				inside := newSocket(t, n, nat)
				x, y := newSocket(t, n, virtual.Open), newSocket(t, n, virtual.Open)
				first := inside.seenBy(x).String()
				if got := inside.seenBy(x).String(); got != first {
					t.Errorf("seen as %s, then as %s by the same host", first, got)
				}
				for _, other := range []*socket{y, x.another()} {
					if got := inside.seenBy(other).String(); (got == first) == (nat == virtual.Symmetric) {
						t.Errorf("seen as %s and, from %v, as %s", first, other.LocalAddr(), got)
					}
				}
				if got := inside.another().seenBy(x).String(); got == first {
					t.Errorf("two sockets are both seen as %s", got)
				}
				if nat == virtual.Open && first != inside.LocalAddr().String() {
					t.Errorf("an open socket at %v is seen as %s", inside.LocalAddr(), first)
				}
			})
		})
	}
}

// TestMappingExpires: two minutes after the last datagram sent, a mapping is
// gone; until then it is there, and sending keeps it.
func TestMappingExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := virtual.New(t, virtual.Config{})
		inside, outside := newSocket(t, n, virtual.FullCone), newSocket(t, n, virtual.Open)
		first := inside.seenBy(outside)

		time.Sleep(2 * time.Minute)
		outside.send("in time", first)
		inside.expect("in time")
		if got := inside.seenBy(outside).String(); got != first.String() {
			t.Fatalf("after two minutes seen as %s, want still %v", got, first)
		}
		time.Sleep(2*time.Minute + time.Nanosecond)
		outside.send("late", first)
		inside.expectNothing()
		if got := inside.seenBy(outside).String(); got == first.String() {
			t.Errorf("seen as %s again after its mapping expired", got)
		}
	})
}

// TestPrivateAddressesAreUnreachable: a private address means nothing on
// another network.
func TestPrivateAddressesAreUnreachable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := virtual.New(t, virtual.Config{})
		a, b := newSocket(t, n, virtual.FullCone), newSocket(t, n, virtual.FullCone)
		open := newSocket(t, n, virtual.Open)
		for _, from := range []*socket{a, open} {
			from.send("hello", b.LocalAddr())
			b.expectNothing()
		}
	})
}

func TestNATString(t *testing.T) {
	want := []string{"open", "full-cone", "address-restricted", "port-restricted", "symmetric", "NAT(5)"}
	for i, w := range want {
		if got := virtual.NAT(i).String(); got != w {
			t.Errorf("NAT %d is %q, want %q", i, got, w)
		}
	}
}
