package witness

import "context"

// Recorder takes events. Implementations are safe for concurrent use and never
// block: whoever calls Record is in the middle of connecting agents, so a
// recorder that writes to a disk or a network queues, and counts what it
// cannot queue. ctx carries values, such as the trace; its end does not cancel
// the recording.
type Recorder interface {
	Record(ctx context.Context, e Event)
}

// RecorderFunc is a function that serves as a [Recorder]; the rules for
// Record apply to it.
type RecorderFunc func(ctx context.Context, e Event)

// Record calls f.
func (f RecorderFunc) Record(ctx context.Context, e Event) { f(ctx, e) }

// Discard forgets every event. It is what packages use when their
// configuration names no recorder.
var Discard Recorder = RecorderFunc(func(context.Context, Event) {})
