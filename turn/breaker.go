package turn

import "time"

// Health is what a Pool thinks of an endpoint.
type Health string

// The healths.
const (
	// Unprobed: no probe has ended yet, or there are no credentials yet.
	Unprobed Health = "unprobed"
	// Healthy: the last probe passed, or fewer than PoolConfig.Failures failed
	// since.
	Healthy Health = "healthy"
	// Unhealthy: the circuit is open.
	Unhealthy Health = "unhealthy"
)

// breaker is the circuit breaker of one endpoint. It has no clock and does
// nothing; pause says when the next probe begins, counted from the beginning of the
// last one.
//
//	           pass              failures in a row, or one in doubt
//	Unprobed ───────▶ Healthy ─────────────────────────────────────▶ Unhealthy
//	   │      30 s between probes;        ▲                              │
//	   │      1 s after a failure         └──────────── pass ────────────┤
//	   └───────────────────────── one failure ──────────────────────────▶│
//	                           1, 2, 4 … 30 s; 0.75 s while no endpoint is usable
//
// Only one that has proved itself has credit: what loses a fifth of all datagrams
// fails a probe now and then.
type breaker struct {
	health   Health
	failures int       // in a row
	opened   int       // of those, since it is Unhealthy
	since    time.Time // of health
	proven   bool      // was Healthy once
}

// pass notes a probe that passed, and reports whether health changed.
func (b *breaker) pass(now time.Time) bool {
	b.failures, b.proven = 0, true
	return b.to(Healthy, now)
}

// fail notes one that failed, and reports whether health changed. At once means
// without credit: a path over the relay has gone silent as well.
func (b *breaker) fail(now time.Time, limit int, atOnce bool) bool {
	b.failures++
	switch {
	case b.health == Unhealthy:
		b.opened++
	case b.health == Unprobed, atOnce, b.failures >= limit:
		b.opened = 1
		return b.to(Unhealthy, now)
	}
	return false
}

func (b *breaker) to(h Health, now time.Time) bool {
	if b.health == h {
		return false
	}
	b.health, b.since = h, now
	return true
}

// pause is between the beginnings of the last probe and the next. Alone means that
// no endpoint is usable; refused that the server refuses the credential, which
// knocking does not change.
func (b *breaker) pause(every time.Duration, alone, refused bool) time.Duration {
	switch {
	case b.health == Unprobed:
		return 0
	case b.health == Healthy && b.failures == 0:
		return every
	case b.health == Healthy:
		return min(retryPause, every)
	case alone && !refused:
		return knockPause
	default:
		return backoff(b.opened)
	}
}
