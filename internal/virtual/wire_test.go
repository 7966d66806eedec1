package virtual_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/infrafabric/agentmesh/internal/virtual"
)

// kinds are two hosts behind routers and two without.
var kinds = []virtual.NAT{virtual.Open, virtual.PortRestricted}

// TestBlockIsOneWay: one direction is gone, the other stays, and nobody else
// notices.
func TestBlockIsOneWay(t *testing.T) {
	for _, nat := range kinds {
		t.Run(nat.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := virtual.New(t, virtual.Config{RTT: 10 * time.Millisecond})
				a, b, toB, toA := pair(t, n, nat, nat)
				third := newSocket(t, n, virtual.Open)
				check := func(when string, ab bool) {
					t.Helper()
					if got := a.reaches(b, toB); got != ab {
						t.Errorf("%s: a reaches b: %v", when, got)
					}
					if !b.reaches(a, toA) {
						t.Errorf("%s: b does not reach a", when)
					}
					if !a.reaches(third, third.LocalAddr()) || !b.reaches(third, third.LocalAddr()) {
						t.Errorf("%s: a third host is not reached", when)
					}
				}
				n.Unblock(a.host, b.host)
				check("before", true)
				n.Block(a.host, b.host)
				n.Block(a.host, b.host)
				check("blocked", false)
				n.Unblock(a.host, b.host)
				check("unblocked", true)
			})
		})
	}
}

// TestFaultsHitWhatIsUnderWay: what decides is whether the fault is there when
// the datagram would arrive.
func TestFaultsHitWhatIsUnderWay(t *testing.T) {
	tests := []struct {
		name       string
		begin, end func(n *virtual.Net, a, b *virtual.Host)
	}{
		{"block", func(n *virtual.Net, a, b *virtual.Host) { n.Block(a, b) }, func(n *virtual.Net, a, b *virtual.Host) { n.Unblock(a, b) }},
		{"sender unplugged", func(_ *virtual.Net, a, _ *virtual.Host) { a.Unplug() }, func(_ *virtual.Net, a, _ *virtual.Host) { a.Plug() }},
		{"receiver unplugged", func(_ *virtual.Net, _, b *virtual.Host) { b.Unplug() }, func(_ *virtual.Net, _, b *virtual.Host) { b.Plug() }},
	}
	for _, tt := range tests {
		for _, extra := range []time.Duration{0, 300 * time.Millisecond} {
			t.Run(fmt.Sprintf("%s/%v", tt.name, extra), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := virtual.New(t, virtual.Config{RTT: 100 * time.Millisecond})
					a, b, toB, _ := pair(t, n, virtual.FullCone, virtual.FullCone)
					a.host.SetDelay(extra)
					way := 50*time.Millisecond + extra
					a.send("lost", toB)
					time.Sleep(way - time.Nanosecond)
					tt.begin(n, a.host, b.host)
					time.Sleep(2 * time.Nanosecond)
					a.send("in time", toB) // sent during the fault, arrives after it
					time.Sleep(way - time.Nanosecond)
					tt.end(n, a.host, b.host)
					b.expect("in time")
					b.expectNothing()
				})
			})
		}
	}
}

// TestUnplugCutsBothWays, and leaves a block alone.
func TestUnplugCutsBothWays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := virtual.New(t, virtual.Config{RTT: 10 * time.Millisecond, STUN: true})
		a, b, toB, toA := pair(t, n, virtual.PortRestricted, virtual.Open)
		check := func(when string, ab, ba bool) {
			t.Helper()
			if got := a.reaches(b, toB); got != ab {
				t.Errorf("%s: a reaches b: %v", when, got)
			}
			if got := b.reaches(a, toA); got != ba {
				t.Errorf("%s: b reaches a: %v", when, got)
			}
		}
		check("before", true, true)
		a.host.Unplug()
		a.host.Unplug()
		check("unplugged", false, false)
		n.Block(b.host, a.host)
		a.host.Plug()
		check("blocked", true, false)
		n.Unblock(b.host, a.host)
		check("at the end", true, true)
		bind(t, a)
	})
}
