package virtual

import (
	"fmt"
	"math/rand/v2"
)

// chance is something that happens to some datagrams. It is guarded by wire.mu.
type chance struct {
	percent int
	rng     *rand.Rand
}

// newChance fails for a percent outside of 0 to 100 and names the method that it
// was given to.
func newChance(method string, percent int, seed int64) (chance, error) {
	if percent < 0 || percent > 100 {
		return chance{}, fmt.Errorf("virtual: %s: percent: %d is not between 0 and 100", method, percent)
	}
	return chance{percent, rand.New(rand.NewPCG(uint64(seed), 0))}, nil //nolint:gosec // reproducible by intent
}

// hit decides for the next datagram.
func (c *chance) hit() bool { return c.percent > 0 && c.rng.IntN(100) < c.percent }

// SetLoss drops each datagram that crosses the core from now on with a
// probability of percent in a hundred, 0 to 100. It is decided when a datagram
// leaves the core, so 100 loses those under way as well: a partition of
// everybody from everybody. The seed fixes the sequence of decisions; which
// datagram meets which decision depends on their order.
//
// A percent outside the range is an error and changes nothing.
func (n *Net) SetLoss(percent int, seed int64) error {
	return n.wire.setLoss(&n.wire.loss, percent, seed)
}

// SetLoss is [Net.SetLoss] for the datagrams to and from one host. It comes on
// top: a datagram must survive the loss of the network and of both its ends.
func (h *Host) SetLoss(percent int, seed int64) error {
	return h.net.wire.setLoss(&h.loss, percent, seed)
}

func (w *wire) setLoss(l *chance, percent int, seed int64) error {
	c, err := newChance("SetLoss", percent, seed)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	*l = c
	return nil
}

// SetOneWayLoss is [Net.SetLoss] for one direction between two hosts, whatever
// addresses they have now or later. It comes on top of the other losses.
func (n *Net) SetOneWayLoss(from, to *Host, percent int, seed int64) error {
	c, err := newChance("SetOneWayLoss", percent, seed)
	if err != nil {
		return err
	}
	w := &n.wire
	w.mu.Lock()
	defer w.mu.Unlock()
	if percent == 0 {
		delete(w.lossy, lane{from, to})
	} else {
		w.lossy[lane{from, to}] = &c
	}
	return nil
}

// loses decides about one datagram between two hosts; w.mu is held.
func (w *wire) loses(l lane) bool {
	if l.from.loss.hit() || l.to.loss.hit() {
		return true
	}
	c := w.lossy[l]
	return c != nil && c.hit()
}
