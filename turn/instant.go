package turn

import "time"

// instant is a moment by both clocks. The world means the wall clock, which may be
// set and which goes on while a machine sleeps; what has to do with this process
// alone goes by the monotonic one.
type instant struct {
	mono time.Time
	wall time.Time // without a monotonic reading
}

// earlier returns the earlier of two times, of which zero means never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
