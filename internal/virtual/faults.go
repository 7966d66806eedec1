package virtual

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/transport/v5/vnet"
)

// faults decides which datagrams the core drops because of what is wrong with
// their hosts, and how much later they leave.
type faults struct {
	passed  atomic.Uint64 // datagrams that have crossed the core, or were dropped there
	any     atomic.Bool   // something is wrong with somebody, or has been
	delayed atomic.Bool   // somebody is slow, or has been

	mu      sync.Mutex // guards what follows, and the fields of Host that say so
	hosts   map[string]*Host
	left    map[string]bool // addresses that hosts have moved away from
	blocked map[[2]*Host]bool
	last    map[[2]string]time.Time // when the latest datagram that was held leaves
}

func newFaults() *faults {
	return &faults{hosts: map[string]*Host{}, left: map[string]bool{}, blocked: map[[2]*Host]bool{},
		last: map[[2]string]time.Time{}}
}

// assign notes that a host has a public address, and none it had before.
func (f *faults) assign(h *Host, addr string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for a, x := range f.hosts {
		if x == h {
			delete(f.hosts, a)
			f.left[a] = true
			f.any.Store(true)
		}
	}
	f.hosts[addr] = h
}

// change changes what is wrong.
func (f *faults) change(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
	f.any.Store(true)
}

// keep is the core's filter.
func (f *faults) keep(c vnet.Chunk) bool {
	f.passed.Add(1)
	if !f.any.Load() {
		return true
	}
	src, dst := addrOf(c.SourceAddr()), addrOf(c.DestinationAddr())
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left[src] || f.left[dst] {
		return false
	}
	from, to := f.hosts[src], f.hosts[dst]
	return !from.drops() && !to.drops() && !(from != nil && to != nil && f.blocked[[2]*Host{from, to}])
}

// drops decides about one datagram from or to a host; faults.mu is held.
func (h *Host) drops() bool {
	return h != nil && (h.unplugged || h.percent > 0 && h.rng.IntN(100) < h.percent)
}

// hold is how long a datagram waits at its sender because one of the ends is
// slow. Datagrams between two addresses never overtake each other.
func (f *faults) hold(src, dst string, now time.Time) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	at := now
	for _, h := range []*Host{f.hosts[src], f.hosts[dst]} {
		if h != nil {
			at = at.Add(h.extra)
		}
	}
	key := [2]string{src, dst}
	last, held := f.last[key]
	switch {
	case held && !last.Before(now):
		// Two timers at one instant fire in any order.
		at = later(at, last.Add(time.Nanosecond))
	case at.Equal(now):
		delete(f.last, key)
		return 0
	}
	f.last[key] = at
	return at.Sub(now)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func addrOf(a net.Addr) string {
	if u, ok := a.(*net.UDPAddr); ok {
		return u.IP.String()
	}
	return ""
}

// Datagrams counts what has crossed the core so far, dropped there or not.
func (n *Net) Datagrams() uint64 { return n.faults.passed.Load() }

// Block drops every datagram from one host to another from now on, those under way
// included, whatever NATs the two are behind and wherever they move. The other
// direction is not affected.
func (n *Net) Block(from, to *Host) {
	n.faults.change(func() { n.faults.blocked[[2]*Host{from, to}] = true })
}

// Unblock ends what Block began.
func (n *Net) Unblock(from, to *Host) {
	n.faults.change(func() { delete(n.faults.blocked, [2]*Host{from, to}) })
}

// Unplug drops everything from and to the host until Plug, as for a machine that
// is dead or off.
func (h *Host) Unplug() { h.net.faults.change(func() { h.unplugged = true }) }

// Plug ends what Unplug began.
func (h *Host) Plug() { h.net.faults.change(func() { h.unplugged = false }) }

// SetLoss drops each datagram from or to the host with a probability of percent in
// a hundred, as Net.SetLoss does for everybody.
func (h *Host) SetLoss(percent int, seed int64) error {
	if percent < 0 || percent > 100 {
		return fmt.Errorf("virtual: SetLoss: percent: %d is not between 0 and 100", percent)
	}
	h.net.faults.change(func() {
		h.percent, h.rng = percent, rand.New(rand.NewPCG(uint64(seed), 1)) //nolint:gosec // reproducible by intent
	})
	return nil
}

// SetDelay adds extra to the way of every datagram that leaves the host, and of
// every one to it, from now on; 0 adds nothing. Order is kept.
func (h *Host) SetDelay(extra time.Duration) {
	h.net.faults.change(func() { h.extra = extra })
	h.net.faults.delayed.Store(true)
}
