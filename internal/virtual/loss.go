package virtual

import (
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/pion/transport/v5/vnet"
)

// loss decides which datagrams the core drops.
type loss struct {
	mu      sync.Mutex // guards what follows
	percent int
	rng     *rand.Rand
}

// keep is the core's filter.
func (l *loss) keep(vnet.Chunk) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
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
	if percent < 0 || percent > 100 {
		return fmt.Errorf("virtual: SetLoss: percent: %d is not between 0 and 100", percent)
	}
	n.loss.mu.Lock()
	defer n.loss.mu.Unlock()
	n.loss.percent = percent
	n.loss.rng = rand.New(rand.NewPCG(uint64(seed), 0)) //nolint:gosec // reproducible by intent
	return nil
}
