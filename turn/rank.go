package turn

import "time"

// standing is what the ranking knows of an endpoint.
type standing struct {
	health  Health
	since   time.Time // of health
	proven  bool      // was healthy once
	refused bool      // the server answers, and refuses
	serial  int       // order of configuration
}

// faster reports whether a is so much faster than b that it overtakes it: by a
// fifth and by rankMargin. It is transitive, so an order exists in which nobody
// stands before somebody clearly faster.
func faster(a, b time.Duration) bool { return b-a >= rankMargin && a <= b-b/5 }

// reorder returns the items such that nobody stands before somebody clearly
// faster, and otherwise as they stood. The place of one that is overtaken is the
// fastest's of those that overtake it.
func reorder[T any](items []T, latency func(T) time.Duration) []T {
	rest := append([]T(nil), items...)
	out := make([]T, 0, len(rest))
	for len(rest) > 0 {
		pick := 0
		for i := range rest {
			if faster(latency(rest[i]), latency(rest[0])) && latency(rest[i]) < latency(rest[pick]) {
				pick = i
			}
		}
		out = append(out, rest[pick])
		rest = append(rest[:pick], rest[pick+1:]...)
	}
	return out
}

// compareOthers orders what is not healthy: unprobed ones as configured, then those
// that are unhealthy. Of these a silent one comes before one that answers and
// refuses, for silence may be this agent's own network; then the one that was
// healthy last, then those that never were.
func compareOthers(a, b standing) int {
	switch {
	case a.health != b.health:
		return before(a.health == Unprobed)
	case a.health == Unprobed:
		return before(a.serial < b.serial)
	case a.refused != b.refused:
		return before(!a.refused)
	case a.proven != b.proven:
		return before(a.proven)
	case a.proven && !a.since.Equal(b.since):
		return before(a.since.After(b.since))
	}
	return before(a.serial < b.serial)
}

func before(yes bool) int {
	if yes {
		return -1
	}
	return 1
}

// smooth adds a measurement to a smoothed latency, as a quarter: at a probe every
// 30 s half of a change is seen after three of them.
func smooth(old, measured time.Duration) time.Duration {
	if old == 0 {
		return measured
	}
	return old + (measured-old)/4
}
