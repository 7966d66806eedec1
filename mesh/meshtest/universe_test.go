package meshtest_test

import (
	"flag"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/mesh/meshtest"
)

var (
	seeds = flag.Int("seeds", 8, "how many random stories TestUniverse plays")
	first = flag.Uint64("seed", 0, "the seed of the first; a failing one replays alone with -seeds 1")
)

// TestUniverse plays random stories and counts what became of the messages.
func TestUniverse(t *testing.T) {
	var mu sync.Mutex
	var sum meshtest.Account
	relayed := 0
	began := time.Now()
	t.Run("stories", func(t *testing.T) {
		for i := range *seeds {
			seed := *first + uint64(i)
			t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
				t.Parallel()
				s := meshtest.Random(seed)
				a := s.Run(t)
				if t.Failed() {
					t.Logf("replay: go test ./mesh/meshtest -run TestUniverse -seed %d -seeds 1 -v", seed)
				}
				mu.Lock()
				defer mu.Unlock()
				sum.Add(a)
				if s.Relays > 0 {
					relayed++
				}
			})
		}
	})
	fmt.Printf("%d seeds, %d with relays, in %v: %v\n", *seeds, relayed, time.Since(began).Round(time.Millisecond), sum)
}
