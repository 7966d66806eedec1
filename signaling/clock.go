package signaling

import (
	"fmt"
	"time"
)

// ClockTolerance is how far the clocks of two machines may be apart before a client
// warns. Agents refuse envelopes that are more than five minutes old or new by their
// clock, so a clock that is off by more than this needs attention soon.
const ClockTolerance = time.Minute

// Clock is a reading of two wall clocks at one moment: a server's, which the server
// told and which may be a lie, and this machine's. The zero value means that the
// server's is not known.
type Clock struct{ Server, Here time.Time }

// readClocks returns the reading for a server's time that was told between two
// readings of this machine's clock. Half of the way is unknown, so what lies between
// them counts as equal.
func readClocks(server, before, after time.Time) Clock {
	server, before, after = server.Round(0), before.Round(0), after.Round(0)
	here := server
	switch {
	case server.IsZero():
		return Clock{}
	case server.After(after):
		here = after
	case server.Before(before):
		here = before
	}
	return Clock{Server: server.UTC(), Here: here.UTC()}
}

// Known reports whether the server has told its time.
func (c Clock) Known() bool { return !c.Server.IsZero() }

// Ahead returns how far this machine's clock is ahead of the server's; negative
// when it is behind, and 0 when the server's is not known.
func (c Clock) Ahead() time.Duration { return c.Here.Sub(c.Server) }

// Apart reports whether the clocks differ by more than ClockTolerance. One of them
// is wrong then; which one, nobody here knows.
func (c Clock) Apart() bool { return c.Ahead().Abs() > ClockTolerance }

// String names both times and the difference.
func (c Clock) String() string {
	if !c.Known() {
		return "the server's clock is not known"
	}
	way := "ahead of"
	if c.Ahead() < 0 {
		way = "behind"
	}
	return fmt.Sprintf("the clock here shows %s, the server's %s: it is %v %s the server's",
		c.Here.Format(time.RFC3339), c.Server.Format(time.RFC3339), c.Ahead().Abs().Round(time.Second), way)
}

// ClockError is the reason of a server together with clocks that are apart, which
// may be why.
type ClockError struct {
	Clock Clock
	Err   error
}

func (e *ClockError) Error() string { return fmt.Sprintf("%v (%v)", e.Err, e.Clock) }

// Unwrap returns the server's reason.
func (e *ClockError) Unwrap() error { return e.Err }

// wireTime is a time on the wire, in milliseconds since 1970, UTC; 0 is the zero time.
func wireTime(t time.Time) uint64 {
	if ms := t.UnixMilli(); !t.IsZero() && ms > 0 && ms <= maxTime {
		return uint64(ms)
	}
	return 0
}

// timeOf is the reverse of wireTime.
func timeOf(ms uint64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(ms)).UTC()
}
