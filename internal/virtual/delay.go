package virtual

import (
	"fmt"
	"time"
)

// SetDelay adds extra to the way of every datagram that the host sends from now
// on and of every one that is sent to it, so twice that to a round trip. Between
// two hosts with an extra delay both are added. What one host sends to another
// stays in order: after the delay was lowered, it waits for what was sent
// before.
//
// The delay lies before the NAT of the sender. All else, such as loss, is decided
// where the datagram leaves the core, after all delays.
//
// It panics if extra is negative.
func (h *Host) SetDelay(extra time.Duration) {
	if extra < 0 {
		panic(fmt.Sprintf("virtual: SetDelay: %v is negative", extra))
	}
	w := &h.net.wire
	w.mu.Lock()
	defer w.mu.Unlock()
	h.extra = extra
	w.count(h)
}
