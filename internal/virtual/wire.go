package virtual

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/pion/transport/v5/vnet"
)

// wire is what happens to datagrams between the hosts. Its filter runs inside
// the core, once for each datagram, when the datagram leaves the core.
//
// Lock order: Net.mu, backlog.mu, a router's mutex, wire.mu. The filter holds the
// core's mutex, so under wire.mu nothing is called that could send or attach.
type wire struct {
	passed atomic.Uint64 // datagrams that the filter has seen

	mu      sync.Mutex // guards what follows, and the fields of hosts that say so
	hosts   map[ip4]*Host
	names   map[string]netip.Addr
	blocked map[lane]struct{}
	loss    chance
	lossy   map[lane]*chance // of [Net.SetOneWayLoss]
	mtu     map[lane]int     // of [Net.SetMTU]
	flows   map[lane]*flows  // of [Net.LimitFlows], for both directions
	odd     int              // hosts that route has to look at
}

// lane is one direction between two hosts, whatever their addresses.
type lane struct{ from, to *Host }

// ip4 is an address as a key.
type ip4 [4]byte

// ip4Of is the zero key, which no host has, for what is not IPv4.
func ip4Of(ip net.IP) (a ip4) {
	copy(a[:], ip.To4())
	return a
}

// off says why a host is cut off from everybody. Each reason ends by itself.
type off uint8

const (
	unplugged off = 1 << iota // [Host.Unplug]
	hung                      // [Relay.Hang]
	killed                    // [Relay.Kill]
)

// keep is the core's filter.
func (w *wire) keep(c vnet.Chunk) bool {
	src, dst := c.SourceAddr().(*net.UDPAddr), c.DestinationAddr().(*net.UDPAddr) // there is nothing else
	w.passed.Add(1)
	w.mu.Lock()
	defer w.mu.Unlock()
	// First and always, so that the faults of single hosts do not shift the
	// sequence of decisions that a seed of the whole network stands for.
	if w.loss.hit() {
		return false
	}
	from, to := w.hosts[ip4Of(src.IP)], w.hosts[ip4Of(dst.IP)]
	switch {
	case from == nil || to == nil: // a host that has moved away, or never was
		return false
	case from.off|to.off != 0:
		return false
	case from == to: // it never left the machine
		return true
	}
	l := lane{from, to}
	if _, ok := w.blocked[l]; ok || !w.fits(l, len(c.UserData())) || w.loses(l) {
		return false
	}
	return from.flows.pass(src, dst) && to.flows.pass(src, dst) && w.flows[l].pass(src, dst)
}

// Datagrams counts those that have come to the end of the core so far, lost there
// or not.
func (n *Net) Datagrams() uint64 { return n.wire.passed.Load() }

// Block drops every datagram that leaves the core from one host to the other
// from now on, also those under way, whatever addresses the two have now or
// later. The other direction stays open. Blocking twice is blocking once.
func (n *Net) Block(from, to *Host) {
	n.wire.mu.Lock()
	defer n.wire.mu.Unlock()
	n.wire.blocked[lane{from, to}] = struct{}{}
}

// Unblock ends what [Net.Block] began, if it did.
func (n *Net) Unblock(from, to *Host) {
	n.wire.mu.Lock()
	defer n.wire.mu.Unlock()
	delete(n.wire.blocked, lane{from, to})
}

// Unplug drops everything to and from the host from now on, also what is under
// way, as when its cable is pulled out or the machine is stopped. Its sockets
// notice nothing.
func (h *Host) Unplug() { h.net.wire.cut(h, unplugged) }

// Plug ends what Unplug began, and nothing else: a blocked host stays blocked.
func (h *Host) Plug() { h.net.wire.mend(h, unplugged) }

func (w *wire) cut(h *Host, why off) {
	w.mu.Lock()
	defer w.mu.Unlock()
	h.off |= why
}

func (w *wire) mend(h *Host, why off) {
	w.mu.Lock()
	defer w.mu.Unlock()
	h.off &^= why
}

// move puts a host, or a new one, where its sockets are opened from now on.
func (w *wire) move(h *Host, to *attachment) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if h.at != nil {
		h.at.gone = true
		delete(w.hosts, ip4Of(net.ParseIP(h.at.public)))
	}
	h.at = to
	w.hosts[ip4Of(net.ParseIP(to.public))] = h
}
