package virtual

import (
	"fmt"
	"net"
)

// LimitFlows lets so many datagrams of each flow to and from the host pass and drops
// what follows in silence, as a firewall does that has made up its mind: a flow is all
// between two pairs of address and port, in both directions together, as the core sees
// them, so that other sockets begin another flow. Flows are counted from now on; what
// is lost otherwise does not count. 0 ends it; a negative number is an error and
// changes nothing.
func (h *Host) LimitFlows(datagrams int) error {
	if err := checkFlows(datagrams); err != nil {
		return err
	}
	w := &h.net.wire
	w.mu.Lock()
	defer w.mu.Unlock()
	h.flows = newFlows(datagrams)
	return nil
}

// LimitFlows is [Host.LimitFlows] for the flows between two hosts, whichever stands
// first.
func (n *Net) LimitFlows(a, b *Host, datagrams int) error {
	if err := checkFlows(datagrams); err != nil {
		return err
	}
	w := &n.wire
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.flows, lane{a, b})
	delete(w.flows, lane{b, a})
	if f := newFlows(datagrams); f != nil {
		w.flows[lane{a, b}], w.flows[lane{b, a}] = f, f
	}
	return nil
}

func checkFlows(datagrams int) error {
	if datagrams < 0 {
		return fmt.Errorf("virtual: LimitFlows: datagrams: %d is negative", datagrams)
	}
	return nil
}

// flows counts datagrams. It is guarded by wire.mu.
type flows struct {
	limit int
	seen  map[flow]int
}

// flow is two sockets, whichever sends: the smaller one first.
type flow [2]port

// port is the address and port of a socket.
type port struct {
	addr ip4
	port int
}

func portOf(a *net.UDPAddr) port { return port{ip4Of(a.IP), a.Port} }

func (p port) before(q port) bool {
	for i := range p.addr {
		if p.addr[i] != q.addr[i] {
			return p.addr[i] < q.addr[i]
		}
	}
	return p.port < q.port
}

// newFlows returns nil, which lets everything pass, for no limit.
func newFlows(limit int) *flows {
	if limit == 0 {
		return nil
	}
	return &flows{limit, map[flow]int{}}
}

// pass counts a datagram and reports whether it passes.
func (f *flows) pass(src, dst *net.UDPAddr) bool {
	if f == nil {
		return true
	}
	key := flow{portOf(src), portOf(dst)}
	if key[1].before(key[0]) {
		key[0], key[1] = key[1], key[0]
	}
	n, known := f.seen[key]
	if n == f.limit || !known && len(f.seen) == maxFlows {
		return false
	}
	f.seen[key] = n + 1
	return true
}
