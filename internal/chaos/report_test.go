package chaos

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// times are durations of one kind.
type times []time.Duration

// quantile returns the least value that at least a part q of all do not exceed.
func (ts times) quantile(q float64) time.Duration {
	sorted := slices.Sorted(slices.Values(ts))
	return sorted[max(int(math.Ceil(q*float64(len(sorted)))), 1)-1]
}

func (ts times) String() string {
	if len(ts) == 0 {
		return "none"
	}
	return fmt.Sprintf("%d times, p50 %v, p90 %v, maximum %v", len(ts),
		short(ts.quantile(0.5)), short(ts.quantile(0.9)), short(ts.most()))
}

// most returns the longest, 0 of none.
func (ts times) most() time.Duration {
	var d time.Duration
	for _, other := range ts {
		d = max(d, other)
	}
	return d
}

// short rounds for people.
func short(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
