package mesh

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/infrafabric/agentmesh/witness"
)

// eventQueue stands between everything that happens and Config.Recorder. One goroutine
// hands the events over, in order, so that a recorder which blocks, against its contract,
// keeps nothing waiting that connects agents or carries messages. What does not fit is
// lost to the recorder; the log says how much.
type eventQueue struct {
	to    witness.Recorder
	log   *slog.Logger
	items chan queuedEvent
	lost  atomic.Int64 // events since that was last told
	over  chan struct{}
	ended chan struct{}
	once  sync.Once
}

type queuedEvent struct {
	ctx   context.Context
	event witness.Event
}

func newEventQueue(to witness.Recorder, log *slog.Logger) *eventQueue {
	return &eventQueue{to: to, log: log, items: make(chan queuedEvent, maxEvents),
		over: make(chan struct{}), ended: make(chan struct{})}
}

// put takes an event. It does not block.
func (q *eventQueue) put(ctx context.Context, e witness.Event) {
	select {
	case q.items <- queuedEvent{ctx, e}:
	default:
		q.lose()
	}
}

// putPatient takes an event of whoever calls, who can be slowed down: he waits for room
// until ctx ends, but not for a recorder that is stuck.
func (q *eventQueue) putPatient(ctx context.Context, e witness.Event) {
	select {
	case q.items <- queuedEvent{ctx, e}:
		return
	default:
	}
	if q.lost.Load() == 0 {
		t := time.NewTimer(recorderWait)
		defer t.Stop()
		select {
		case q.items <- queuedEvent{ctx, e}:
			return
		case <-ctx.Done():
		case <-q.over:
		case <-t.C:
		}
	}
	q.lose()
}

func (q *eventQueue) lose() {
	if q.lost.Add(1) == 1 {
		q.log.Warn("the recorder is too slow: events are lost to it", "waiting", maxEvents)
	}
}

// run hands events over until close is called and nothing waits.
func (q *eventQueue) run() {
	defer close(q.ended)
	for {
		select {
		case i := <-q.items:
			q.to.Record(i.ctx, i.event)
		case <-q.over:
			select {
			case i := <-q.items:
				q.to.Record(i.ctx, i.event)
				continue
			default:
			}
			q.tellLost()
			return
		}
		if len(q.items) == 0 {
			q.tellLost()
		}
	}
}

func (q *eventQueue) tellLost() {
	if n := q.lost.Swap(0); n > 0 {
		q.log.Warn("events were lost to the recorder, which was too slow", "events", n)
	}
}

// close ends run when what waits has been handed over, or after a while: a recorder
// that does not return keeps its goroutine, and nobody else. Events that follow are lost.
func (q *eventQueue) close() {
	q.once.Do(func() { close(q.over) })
	t := time.NewTimer(recorderWait)
	defer t.Stop()
	select {
	case <-q.ended:
	case <-t.C:
		q.log.Warn("the recorder does not return", "waiting", len(q.items), "lost", q.lost.Load())
	}
}
