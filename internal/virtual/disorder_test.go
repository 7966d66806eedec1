package virtual_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/infrafabric/agentmesh/internal/virtual"
)

// disorder is what arrives of so many datagrams from a to b and of as many back, each
// a millisecond after the last, and how long the last one took.
func disorder(t *testing.T, total int, set func(h *virtual.Host) error) (there, back []string, last time.Duration) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := virtual.New(t, virtual.Config{RTT: 10 * time.Millisecond})
		a, b, toB, toA := pair(t, n, virtual.PortRestricted, virtual.PortRestricted)
		c, d := newSocket(t, n, virtual.Open), newSocket(t, n, virtual.Open)
		if err := set(a.host); err != nil {
			t.Fatal(err)
		}
		flow := func(from, to *socket, addr addr) (arrived []string) {
			for i := range total {
				from.send(fmt.Sprint(i), addr)
				time.Sleep(time.Millisecond)
			}
			sent := time.Now()
			for {
				text, _ := to.within(time.Second)
				if text == "" {
					return arrived
				}
				last = time.Since(sent)
				arrived = append(arrived, text)
			}
		}
		there, back = flow(a, b, toB), flow(b, a, toA)
		if beside := flow(c, d, d.LocalAddr()); !slices.Equal(beside, upTo(total)) {
			t.Errorf("between two others %d of %d arrived", len(beside), total)
		}
	})
	return there, back, last
}

// upTo is the numbers below n in words.
func upTo(n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprint(i))
	}
	return all
}

// TestSetDuplicates: some come twice, one copy after the other, and nothing else
// changes; the seed decides which.
func TestSetDuplicates(t *testing.T) {
	const total = 400
	run := func(percent int, seed int64) (there, back []string) {
		there, back, _ = disorder(t, total, func(h *virtual.Host) error { return h.SetDuplicates(percent, seed) })
		return there, back
	}
	there, back := run(20, 1)
	for _, got := range [][]string{there, back} {
		// The standard deviation is 8.
		if extra := len(got) - total; extra < 40 || extra > 120 {
			t.Errorf("with 20 %% twice %d came of %d", len(got), total)
		}
		if !slices.Equal(slices.Compact(slices.Clone(got)), upTo(total)) {
			t.Error("without the second copies it is not what was sent")
		}
	}
	if again, _ := run(20, 1); !slices.Equal(again, there) {
		t.Error("the same seed chose others")
	}
	if other, _ := run(20, 2); slices.Equal(other, there) {
		t.Error("another seed chose the same")
	}
	if all, _ := run(100, 1); len(all) != 2*total {
		t.Errorf("with all twice %d came of %d", len(all), total)
	}
	if none, _ := run(0, 1); !slices.Equal(none, upTo(total)) {
		t.Error("with none twice it is not what was sent")
	}
}

// TestSetReorder: everything comes once, some later than what was sent after it, and
// none by more than allowed.
func TestSetReorder(t *testing.T) {
	const total = 400
	const by = 20 * time.Millisecond
	run := func(percent int, seed int64) (there, back []string, last time.Duration) {
		return disorder(t, total, func(h *virtual.Host) error { return h.SetReorder(percent, by, seed) })
	}
	there, back, _ := run(20, 1)
	for _, got := range [][]string{there, back} {
		overtaken := 0
		highest := -1
		for i, text := range got {
			var n int
			if _, err := fmt.Sscan(text, &n); err != nil {
				t.Fatal(err)
			}
			if n < highest {
				overtaken++
			}
			highest = max(highest, n)
			if n > i+20 || n < i-20 {
				t.Errorf("number %d is number %d of those that arrived", n, i)
			}
		}
		// The standard deviation is 8; some are late by less than a millisecond.
		if overtaken < 40 || overtaken > 120 {
			t.Errorf("with 20 %% late %d of %d were overtaken", overtaken, total)
		}
		sorted := slices.Clone(got)
		slices.Sort(sorted)
		want := upTo(total)
		slices.Sort(want)
		if !slices.Equal(sorted, want) {
			t.Error("not everything came once")
		}
	}
	if again, _, _ := run(20, 1); !slices.Equal(again, there) {
		t.Error("the same seed chose others")
	}
	if other, _, _ := run(20, 2); slices.Equal(other, there) {
		t.Error("another seed chose the same")
	}
	if _, _, last := run(100, 1); last > by+5*time.Millisecond {
		t.Errorf("the last one came %v after it was sent", last)
	}
}

// TestDisorderAndDelay: late ones come on top of a delay, whose order the others keep.
func TestDisorderAndDelay(t *testing.T) {
	const total = 200
	there, _, _ := disorder(t, total, func(h *virtual.Host) error {
		h.SetDelay(30 * time.Millisecond)
		if err := h.SetDuplicates(50, 3); err != nil {
			return err
		}
		return h.SetReorder(10, 5*time.Millisecond, 4)
	})
	count := map[string]int{}
	for _, text := range there {
		count[text]++
	}
	for _, text := range upTo(total) {
		if count[text] < 1 || count[text] > 2 {
			t.Errorf("%s came %d times", text, count[text])
		}
	}
}

func TestDisorderOutOfRange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := virtual.New(t, virtual.Config{})
		a, b := newSocket(t, n, virtual.Open), newSocket(t, n, virtual.Open)
		for _, percent := range []int{-1, 101} {
			if err := a.host.SetDuplicates(percent, 0); err == nil || !strings.Contains(err.Error(), "SetDuplicates") {
				t.Errorf("%d %% twice: %v", percent, err)
			}
			if err := a.host.SetReorder(percent, 1, 0); err == nil {
				t.Errorf("%d %% late was accepted", percent)
			}
			if err := n.SetOneWayLoss(a.host, b.host, percent, 0); err == nil {
				t.Errorf("%d %% lost was accepted", percent)
			}
		}
		for _, by := range []time.Duration{-1, 0} {
			if err := a.host.SetReorder(1, by, 0); err == nil {
				t.Errorf("late by %v was accepted", by)
			}
		}
		if err := a.host.SetReorder(0, 0, 0); err != nil {
			t.Error(err)
		}
		took(t, a, b, b.LocalAddr(), 0)
	})
}

// TestOneWayLoss: the other direction loses nothing, nor does anybody else.
func TestOneWayLoss(t *testing.T) {
	const total = 400
	run := func(percent int, seed int64) (there, back []string) {
		synctest.Test(t, func(t *testing.T) {
			n := virtual.New(t, virtual.Config{RTT: 10 * time.Millisecond})
			a, b, toB, toA := pair(t, n, virtual.FullCone, virtual.FullCone)
			if err := n.SetOneWayLoss(a.host, b.host, percent, seed); err != nil {
				t.Fatal(err)
			}
			for i := range total {
				a.send(fmt.Sprint(i), toB)
				b.send(fmt.Sprint(i), toA)
			}
			for text, _ := b.within(time.Second); text != ""; text, _ = b.within(time.Second) {
				there = append(there, text)
			}
			for text, _ := a.within(time.Second); text != ""; text, _ = a.within(time.Second) {
				back = append(back, text)
			}
			if err := n.SetOneWayLoss(a.host, b.host, 0, 0); err != nil || !a.reaches(b, toB) {
				t.Errorf("it does not end: %v", err)
			}
		})
		return there, back
	}
	there, back := run(30, 1)
	// The standard deviation is 9.
	if len(there) < 280-45 || len(there) > 280+45 || len(back) != total {
		t.Errorf("with 30 %% lost one way %d and %d of %d arrived", len(there), len(back), total)
	}
	if again, _ := run(30, 1); !slices.Equal(again, there) {
		t.Error("the same seed lost others")
	}
	if none, back := run(100, 1); len(none) != 0 || len(back) != total {
		t.Errorf("with all lost one way %d and %d of %d arrived", len(none), len(back), total)
	}
}
