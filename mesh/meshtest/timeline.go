package meshtest

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// timeline is what has happened, in order.
type timeline struct {
	began time.Time

	mu     sync.Mutex
	lines  []string
	missed int
}

func (l *timeline) add(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.lines) == maxTimeline {
		l.lines = append(l.lines[:0], l.lines[maxTimeline/2:]...)
		l.missed += maxTimeline / 2
	}
	l.lines = append(l.lines, stamp(time.Since(l.began))+"  "+text)
}

func (l *timeline) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := strings.Join(l.lines, "\n")
	if l.missed > 0 {
		s = fmt.Sprintf("(%d lines are missing)\n", l.missed) + s
	}
	return s
}

// stamp writes a virtual time as minutes, seconds and milliseconds.
func stamp(d time.Duration) string {
	return fmt.Sprintf("%3d:%06.3f", int(d.Minutes()), (d % time.Minute).Seconds())
}
