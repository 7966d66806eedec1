package virtual

import (
	"fmt"
	"time"
)

// SetRate lets what the host sends pass at so many bytes per second at most, and
// what is sent to it likewise, each direction for itself. Only payloads of UDP count.
// What comes faster waits in a queue for each direction, in order; what would make
// that longer than so many bytes is dropped in silence, as at a router with full
// buffers, so that a datagram waits for queue/bytesPerSecond seconds at most. A
// datagram that finds the queue empty always passes. What waits when the rate is set
// anew leaves when it would have.
//
// 0 bytes per second end the limit, and the queue then means nothing. Negative numbers
// are errors and change nothing.
func (h *Host) SetRate(bytesPerSecond, queue int) error {
	switch {
	case bytesPerSecond < 0:
		return fmt.Errorf("virtual: SetRate: bytesPerSecond: %d is negative", bytesPerSecond)
	case queue < 0:
		return fmt.Errorf("virtual: SetRate: queue: %d is negative", queue)
	}
	w := &h.net.wire
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range []*throttle{&h.up, &h.down} {
		t.rate, t.queue = bytesPerSecond, queue
	}
	w.count(h)
	return nil
}

// throttle is one direction of a host with a rate. It is guarded by wire.mu.
type throttle struct {
	rate  int // bytes per second; 0 without a limit
	queue int // bytes that may wait
	free  time.Time
}

// pass returns when a datagram that comes now is through, or that it finds no room.
func (t *throttle) pass(now time.Time, size int) (through time.Time, ok bool) {
	begin := now
	if t.free.After(now) {
		begin = t.free
	}
	if t.rate == 0 {
		return begin, true
	}
	wait := begin.Sub(now)
	if wait > 0 && wait+t.lasts(size) > t.lasts(t.queue) {
		return now, false
	}
	t.free = begin.Add(t.lasts(size))
	return t.free, true
}

// lasts is how long so many bytes take.
func (t *throttle) lasts(bytes int) time.Duration {
	return time.Duration(float64(bytes) / float64(t.rate) * float64(time.Second))
}

// idle reports whether it neither has a limit nor something that waits for one, if only
// until this moment.
func (t *throttle) idle(now time.Time) bool { return t.rate == 0 && t.free.Before(now) }
