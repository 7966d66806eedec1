package wallclock

import (
	"context"
	"time"
)

// Threshold is how far the clocks part before Watch tells. It is more than a clock
// is slewed by in an hour (500 ppm is 1.8 s), and less than anybody's patience.
const Threshold = 2 * time.Second

// Watch compares the wall clock with the monotonic one every so often and calls
// diverged when they are Threshold or more further apart, or closer together, than
// at its start or at the call before: the machine slept, or its clock was set. By
// is positive when the wall clock went ahead and negative when it was set back.
// Slow drift adds up and is told as well.
//
// now is the wall clock; nil means time.Now. every must be positive; a second costs
// nothing that can be measured. Diverged is called at most that long after the
// clocks parted, and after a sleep that long after waking.
//
// Watch blocks until ctx ends, so its owner runs it in a goroutine of his own;
// diverged is called in it, one call at a time, and no tick is taken meanwhile.
//
// Where the monotonic clock runs on while the machine sleeps (some versions of
// Windows) there is no divergence: there timers that are overdue fire on waking.
func Watch(ctx context.Context, now func() time.Time, every time.Duration, diverged func(by time.Duration)) {
	if now == nil {
		now = time.Now
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	began := time.Now()
	wall := now().Round(0)
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		// The wall clock is read between two readings of the other one: what
		// passes between these is no divergence.
		least := time.Since(began)
		then := now().Round(0)
		most := time.Since(began)
		by := then.Sub(wall)
		switch {
		case by > most:
			by -= most
		case by < least:
			by -= least
		default:
			by = 0
		}
		if by.Abs() < Threshold {
			continue
		}
		began, wall = began.Add(most), then
		diverged(by)
	}
}
