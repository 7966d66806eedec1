package virtual

import (
	"fmt"
	"math/rand/v2"
)

// loss decides which datagrams are dropped. It is guarded by wire.mu.
type loss struct {
	percent int
	rng     *rand.Rand
}

func (l *loss) keep() bool {
	return l.percent == 0 || l.rng.IntN(100) >= l.percent
}

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

func (w *wire) setLoss(l *loss, percent int, seed int64) error {
	if percent < 0 || percent > 100 {
		return fmt.Errorf("virtual: SetLoss: percent: %d is not between 0 and 100", percent)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	*l = loss{percent, rand.New(rand.NewPCG(uint64(seed), 0))} //nolint:gosec // reproducible by intent
	return nil
}
