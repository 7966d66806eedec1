package virtual_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/infrafabric/agentmesh/internal/virtual"
)

// passes says whether a datagram of so many bytes arrives.
func passes(from, to *socket, addr addr, size int) bool {
	from.t.Helper()
	text := strings.Repeat("x", size)
	from.send(text, addr)
	got, _ := to.within(time.Second) // less than a mapping of a NAT lasts
	return got == text
}

// TestHostMTU: a host neither sends nor receives what is larger, without an error,
// and nobody else notices.
func TestHostMTU(t *testing.T) {
	for _, nat := range kinds {
		t.Run(nat.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := virtual.New(t, virtual.Config{RTT: 10 * time.Millisecond})
				a, b, toB, toA := pair(t, n, nat, nat)
				third := newSocket(t, n, virtual.Open)
				if err := a.host.SetMTU(1000); err != nil {
					t.Fatal(err)
				}
				for size, want := range map[int]bool{999: true, 1000: true, 1001: false, 1400: false} {
					if got := passes(a, b, toB, size); got != want {
						t.Errorf("%d bytes from the host pass: %v", size, got)
					}
					if got := passes(b, a, toA, size); got != want {
						t.Errorf("%d bytes to the host pass: %v", size, got)
					}
					if !passes(b, third, third.LocalAddr(), size) {
						t.Errorf("%d bytes between two others do not pass", size)
					}
				}
				if err := a.host.SetMTU(-1); err == nil {
					t.Error("-1 was accepted")
				}
				if passes(a, b, toB, 1001) {
					t.Error("an error changed the limit")
				}
				if err := a.host.SetMTU(0); err != nil || !passes(a, b, toB, 1400) {
					t.Errorf("it does not end: %v", err)
				}
			})
		})
	}
}

// TestLaneMTU: one direction between two hosts is narrow, wherever they are.
func TestLaneMTU(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := virtual.New(t, virtual.Config{RTT: 10 * time.Millisecond})
		a, b := newSocket(t, n, virtual.Open), newSocket(t, n, virtual.Open)
		third := newSocket(t, n, virtual.Open)
		if err := n.SetMTU(a.host, b.host, 800); err != nil {
			t.Fatal(err)
		}
		if err := n.SetMTU(a.host, b.host, -1); err == nil {
			t.Error("-1 was accepted")
		}
		if err := b.host.Move(); err != nil {
			t.Fatal(err)
		}
		b = b.another()
		for size, want := range map[int]bool{800: true, 801: false} {
			if got := passes(a, b, b.LocalAddr(), size); got != want {
				t.Errorf("%d bytes pass: %v", size, got)
			}
		}
		if !passes(b, a, a.LocalAddr(), 801) || !passes(a, third, third.LocalAddr(), 801) {
			t.Error("another direction is narrow")
		}
		if err := a.host.SetMTU(700); err != nil || passes(a, b, b.LocalAddr(), 701) || !passes(a, b, b.LocalAddr(), 700) {
			t.Errorf("the smaller of two limits does not count: %v", err)
		}
		if err := a.host.SetMTU(900); err != nil || passes(a, b, b.LocalAddr(), 801) {
			t.Errorf("the smaller of two limits does not count: %v", err)
		}
		if err := n.SetMTU(a.host, b.host, 0); err != nil || !passes(a, b, b.LocalAddr(), 900) {
			t.Errorf("it does not end: %v", err)
		}
	})
}
