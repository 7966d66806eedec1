package virtual

import "fmt"

// SetMTU drops in silence each datagram to or from the host whose payload, what UDP
// carries without the headers of UDP and IP, is larger than so many bytes: a path
// that is narrower than it says, with an ICMP message that never comes (a black
// hole, RFC 4821 §1). Over Ethernet the payload is at most 1,472 bytes, over WireGuard
// 1,392. It is decided when the datagram leaves the core. 0 ends it; a negative
// number is an error and changes nothing.
//
// A relay passes on what it gets in a datagram that is larger by up to 36 bytes
// (RFC 8656 §11.6), or by 4 through a channel (§12.4).
func (h *Host) SetMTU(bytes int) error {
	if err := checkMTU(bytes); err != nil {
		return err
	}
	w := &h.net.wire
	w.mu.Lock()
	defer w.mu.Unlock()
	h.mtu = bytes
	return nil
}

// SetMTU is [Host.SetMTU] for one direction between two hosts, whatever addresses
// they have now or later. It comes on top: the least of all that applies counts.
func (n *Net) SetMTU(from, to *Host, bytes int) error {
	if err := checkMTU(bytes); err != nil {
		return err
	}
	w := &n.wire
	w.mu.Lock()
	defer w.mu.Unlock()
	if bytes == 0 {
		delete(w.mtu, lane{from, to})
	} else {
		w.mtu[lane{from, to}] = bytes
	}
	return nil
}

func checkMTU(bytes int) error {
	if bytes < 0 {
		return fmt.Errorf("virtual: SetMTU: bytes: %d is negative", bytes)
	}
	return nil
}

// fits reports whether a payload is small enough for its way; w.mu is held.
func (w *wire) fits(l lane, size int) bool {
	for _, limit := range [...]int{l.from.mtu, l.to.mtu, w.mtu[l]} {
		if limit > 0 && size > limit {
			return false
		}
	}
	return true
}
