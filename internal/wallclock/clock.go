package wallclock

import (
	"sync/atomic"
	"time"
)

// Clock is a wall clock that can be set, for tests: it goes as time.Now does, which
// in a testing/synctest bubble is virtual, and is off by what Step added up to. The
// zero value is right. Its methods may be called concurrently.
type Clock struct{ off atomic.Int64 }

// Now returns the time that the clock shows, without a monotonic reading.
func (c *Clock) Now() time.Time { return time.Now().Round(0).Add(time.Duration(c.off.Load())) }

// Step sets the clock ahead by d, or back when d is negative, as sleep and those
// who set clocks do. No timer notices.
func (c *Clock) Step(d time.Duration) { c.off.Add(int64(d)) }
