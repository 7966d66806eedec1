package mesh

import (
	"context"
	"iter"
	"sync"
	"time"
)

// Change is one change of a Peer's state, reason or path.
type Change struct {
	// Time is when it happened.
	Time time.Time
	// From and State are the states before and after; they are equal when
	// only the reason, the path or the attempt is new.
	From, State State
	// Reason is why the Peer is in State.
	Reason Reason
	// Path is the path of the session in use, zero when there is none.
	Path Path
	// Attempt numbers the attempts after a partition, from 1; zero otherwise.
	Attempt int
	// Wait is how long until that attempt begins; zero when it begins now.
	Wait time.Duration
	// Err is the last error of an attempt or a session, nil when there was
	// none since the Peer was last connected.
	Err error
	// Missed is how many changes before this one are not told, because their
	// reader was too slow: a Peer keeps the last 64.
	Missed int
}

// changeLog keeps the last changes of a Peer for any number of readers, each
// with a place of its own. A reader that is too slow misses some, and is told.
type changeLog struct {
	mu    sync.Mutex
	kept  []Change // the last ones, in order
	count int      // of all there ever were
	over  bool
	more  notifier
}

func (l *changeLog) add(c Change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kept = append(l.kept, c)
	if len(l.kept) > maxChanges {
		l.kept = append(l.kept[:0], l.kept[1:]...)
	}
	l.count++
	l.more.broadcast()
}

// end tells the readers that there will be no more.
func (l *changeLog) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	l.more.broadcast()
}

// last returns the newest change.
func (l *changeLog) last() Change {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.kept) == 0 {
		return Change{State: StateConnecting, From: StateConnecting}
	}
	return l.kept[len(l.kept)-1]
}

// from returns the change after the first seen ones, or what to wait for.
func (l *changeLog) from(seen int) (c Change, next int, wait <-chan struct{}, over bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if seen >= l.count {
		return Change{}, seen, l.more.wait(), l.over
	}
	first := l.count - len(l.kept)
	missed := max(first-seen, 0)
	c = l.kept[seen+missed-first]
	c.Missed = missed
	return c, seen + missed + 1, nil, false
}

func (l *changeLog) all(ctx context.Context) iter.Seq[Change] {
	return func(yield func(Change) bool) {
		l.mu.Lock()
		seen := max(l.count-1, 0) // begin with the present one
		l.mu.Unlock()
		for {
			c, next, wait, over := l.from(seen)
			switch {
			case wait == nil:
				if !yield(c) {
					return
				}
				seen = next
				continue
			case over:
				return
			}
			select {
			case <-wait:
			case <-ctx.Done():
				return
			}
		}
	}
}

// Status returns the newest change: where the Peer stands.
func (p *Peer) Status() Change { return p.changes.last() }

// Changes returns an iterator over the Peer's changes, beginning with the
// newest so far. It ends when ctx does, or after the change to StateClosed or
// StateFailed. Any number of iterators may run; each yields every change of the
// last 64 that it has not yielded yet, so a slow one holds nobody up.
func (p *Peer) Changes(ctx context.Context) iter.Seq[Change] { return p.changes.all(ctx) }
