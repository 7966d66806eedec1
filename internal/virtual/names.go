package virtual

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"
)

// SetName gives an address a name, which all hosts can look up from now on; a later
// call for the same name replaces the address. An address that is not IPv4, an empty
// name and one too many are errors and change nothing.
func (n *Net) SetName(name string, addr netip.Addr) error {
	switch {
	case name == "":
		return fmt.Errorf("virtual: SetName: name: is empty")
	case !addr.Is4():
		return fmt.Errorf("virtual: SetName: addr: %v is not IPv4", addr)
	}
	n.wire.mu.Lock()
	defer n.wire.mu.Unlock()
	name = canonical(name)
	if _, known := n.wire.names[name]; !known && len(n.wire.names) == maxNames {
		return fmt.Errorf("virtual: SetName: there are %d names already", maxNames)
	}
	n.wire.names[name] = addr
	return nil
}

// HangNames makes the host's name servers answer no more, as dead ones: whoever looks a
// name up waits until its context ends or AnswerNames is called. Doing it twice is doing
// it once.
func (h *Host) HangNames() {
	h.net.wire.mu.Lock()
	defer h.net.wire.mu.Unlock()
	if h.mute == nil {
		h.mute = make(chan struct{})
	}
}

// AnswerNames ends what HangNames began, if it did. Who waits gets its answer.
func (h *Host) AnswerNames() {
	h.net.wire.mu.Lock()
	defer h.net.wire.mu.Unlock()
	if h.mute != nil {
		close(h.mute)
		h.mute = nil
	}
}

// LookupNetIP finds what SetName has set; the network is "ip4", "ip6" or "ip". It takes
// the round trip of the network, whatever else is wrong with the host. The errors are a
// [*net.DNSError], for a name that is not known or has no address of the kind, and the
// context's.
//
// Without this method whoever looks a name up for a host would ask the operating
// system, which takes real time.
func (h *Host) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	way := time.NewTimer(h.net.rtt)
	defer way.Stop()
	select {
	case <-way.C:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	for {
		addr, mute := h.lookup(host)
		if mute == nil {
			if !addr.IsValid() || network == "ip6" {
				return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
			}
			return []netip.Addr{addr}, nil
		}
		select {
		case <-mute:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// lookup returns what is known of a name, and while name servers are silent what is
// closed at the end of that.
func (h *Host) lookup(name string) (addr netip.Addr, mute chan struct{}) {
	h.net.wire.mu.Lock()
	defer h.net.wire.mu.Unlock()
	return h.net.wire.names[canonical(name)], h.mute
}

// canonical: names are equal whatever the case, and with or without the dot of the root.
func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }
