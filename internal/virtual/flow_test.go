package virtual_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/infrafabric/agentmesh/internal/virtual"
)

// TestLimitFlows: so many datagrams of two sockets pass, both directions together,
// and then none; other sockets have as many.
func TestLimitFlows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := virtual.New(t, virtual.Config{RTT: 10 * time.Millisecond})
		a, b, toB, toA := pair(t, n, virtual.FullCone, virtual.Open)
		third := newSocket(t, n, virtual.Open)
		arrive := func(want bool) {
			t.Helper()
			if passes(a, b, toB, 10) != want || passes(b, a, toA, 10) != want {
				t.Errorf("it passes: %v", !want)
			}
		}
		limits := map[string]func(datagrams int) error{
			"one end":   a.host.LimitFlows,
			"the other": b.host.LimitFlows,
			"between":   func(d int) error { return n.LimitFlows(a.host, b.host, d) },
			"and back":  func(d int) error { return n.LimitFlows(b.host, a.host, d) },
		}
		for name, limit := range limits {
			if err := limit(-1); err == nil {
				t.Errorf("%s: -1 was accepted", name)
			}
			if err := limit(6); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				arrive(true)
			}
			arrive(false)
			if !passes(a, third, third.LocalAddr(), 10) {
				t.Errorf("%s: nothing passes to a third host", name)
			}
			other := a.another()
			if !passes(other, b, toB, 10) {
				t.Errorf("%s: nothing passes from another socket", name)
			}
			// Counted anew.
			if err := limit(2); err != nil {
				t.Fatal(err)
			}
			arrive(true)
			arrive(false)
			if err := limit(0); err != nil {
				t.Fatal(err)
			}
			for range 5 {
				arrive(true)
			}
		}
	})
}

// TestLimitFlowsCountsWhatArrives, not what is lost.
func TestLimitFlowsCountsWhatArrives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := virtual.New(t, virtual.Config{})
		a, b := newSocket(t, n, virtual.Open), newSocket(t, n, virtual.Open)
		if err := a.host.LimitFlows(1); err != nil {
			t.Fatal(err)
		}
		n.Block(a.host, b.host)
		if passes(a, b, b.LocalAddr(), 10) {
			t.Error("it passes a block")
		}
		n.Unblock(a.host, b.host)
		if !passes(a, b, b.LocalAddr(), 10) || passes(a, b, b.LocalAddr(), 10) {
			t.Error("want one to pass")
		}
	})
}
