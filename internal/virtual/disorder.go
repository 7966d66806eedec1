package virtual

import (
	"fmt"
	"time"
)

// SetDuplicates sends a second copy of each datagram to or from the host with a
// probability of percent in a hundred, 0 to 100; a datagram is never more than
// twice there. Both copies take the same way, and [Host.SetReorder] decides about each.
// The seed is that of [Net.SetLoss]. A percent outside the range is an error and
// changes nothing.
func (h *Host) SetDuplicates(percent int, seed int64) error {
	c, err := newChance("SetDuplicates", percent, seed)
	if err != nil {
		return err
	}
	w := &h.net.wire
	w.mu.Lock()
	defer w.mu.Unlock()
	h.twice = c
	w.count(h)
	return nil
}

// SetReorder holds each datagram to or from the host back with a probability of
// percent in a hundred, 0 to 100, for up to so long, at least a nanosecond, so that
// later ones overtake it. The seed is that of [Net.SetLoss] and fixes how long as well.
// A percent outside the range or a time that is not positive, unless percent is 0, is
// an error and changes nothing.
func (h *Host) SetReorder(percent int, by time.Duration, seed int64) error {
	c, err := newChance("SetReorder", percent, seed)
	if err != nil {
		return err
	}
	if by < 0 || by == 0 && percent > 0 {
		return fmt.Errorf("virtual: SetReorder: by: %v is not positive", by)
	}
	w := &h.net.wire
	w.mu.Lock()
	defer w.mu.Unlock()
	h.late = lateness{c, by}
	w.count(h)
	return nil
}

// lateness holds some datagrams back. It is guarded by wire.mu.
type lateness struct {
	chance
	by time.Duration
}

// draw is by how much the next datagram is late, 0 for most.
func (l *lateness) draw() time.Duration {
	if !l.hit() {
		return 0
	}
	return 1 + time.Duration(l.rng.Int64N(int64(l.by)))
}
