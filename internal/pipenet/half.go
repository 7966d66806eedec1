package pipenet

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// BufferSize is how many bytes a connection holds in each direction, on the
// way or not yet read; a write beyond it waits.
const BufferSize = 256 << 10

// half is one direction of a connection: a queue of chunks, each with the time
// at which it arrives.
type half struct {
	delay time.Duration
	extra *atomic.Int64 // nanoseconds on top, of the client
	ready time.Time     // nothing leaves before

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at every change below
	chunks  []chunk
	size    int       // bytes in chunks
	stalled bool      // nothing arrives
	fin     time.Time // when end-of-file arrives; zero while the writer is open
	unread  bool      // the reader has closed
	broken  bool      // the connection was reset

	readDeadline, writeDeadline time.Time
}

type chunk struct {
	data []byte
	at   time.Time
}

func newHalf(delay time.Duration, extra *atomic.Int64) *half {
	return &half{delay: delay, extra: extra, changed: make(chan struct{})}
}

// notify wakes whoever waits; h.mu is held.
func (h *half) notify() {
	close(h.changed)
	h.changed = make(chan struct{})
}

func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		now := time.Now()
		var wait time.Duration // until something arrives; 0 = not known
		switch {
		case h.unread:
			return 0, net.ErrClosed
		case h.broken:
			return 0, errReset
		case passed(h.readDeadline, now):
			return 0, errTimeout
		case len(p) == 0:
			return 0, nil
		case h.stalled:
		case len(h.chunks) > 0:
			if wait = h.chunks[0].at.Sub(now); wait <= 0 {
				return h.take(p, now), nil
			}
		case !h.fin.IsZero():
			if wait = h.fin.Sub(now); wait <= 0 {
				return 0, io.EOF
			}
		}
		h.wait(wait, h.readDeadline, now)
	}
}

// take copies what has arrived; h.mu is held.
func (h *half) take(p []byte, now time.Time) int {
	n := 0
	for n < len(p) && len(h.chunks) > 0 && !h.chunks[0].at.After(now) {
		c := &h.chunks[0]
		k := copy(p[n:], c.data)
		n += k
		if c.data = c.data[k:]; len(c.data) == 0 {
			h.chunks = h.chunks[1:]
		}
	}
	h.size -= n
	h.notify()
	return n
}

func (h *half) write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for {
		now := time.Now()
		switch {
		case !h.fin.IsZero():
			return n, net.ErrClosed
		case h.broken:
			return n, errReset
		case h.unread:
			return n, errPipe
		case passed(h.writeDeadline, now):
			return n, errTimeout
		case n == len(p):
			return n, nil
		}
		if k := min(BufferSize-h.size, len(p)-n); k > 0 {
			data := append([]byte(nil), p[n:n+k]...)
			h.chunks = append(h.chunks, chunk{data, h.arrival(now)})
			h.size += k
			n += k
			h.notify()
			continue
		}
		h.wait(0, h.writeDeadline, now)
	}
}

// arrival is when what is written now arrives, if nothing before it is later.
func (h *half) arrival(now time.Time) time.Time {
	if now.Before(h.ready) {
		now = h.ready
	}
	return now.Add(h.delay + time.Duration(h.extra.Load()))
}

// wait releases h.mu until something changed, or until d (if not 0) or the
// deadline (if set) has passed.
func (h *half) wait(d time.Duration, deadline, now time.Time) {
	if !deadline.IsZero() {
		if left := deadline.Sub(now); d == 0 || left < d {
			d = left
		}
	}
	changed := h.changed
	h.mu.Unlock()
	defer h.mu.Lock()
	if d == 0 {
		<-changed
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-changed:
	case <-t.C:
	}
}

func (h *half) set(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
	h.notify()
}

func (h *half) closeWrite() { h.set(func() { h.fin = h.arrival(time.Now()) }) }

func (h *half) closeRead() {
	h.set(func() { h.unread, h.chunks, h.size = true, nil, 0 })
}

func (h *half) reset() {
	h.set(func() { h.broken, h.chunks, h.size = true, nil, 0 })
}

func (h *half) stall(on bool)                { h.set(func() { h.stalled = on }) }
func (h *half) setReadDeadline(t time.Time)  { h.set(func() { h.readDeadline = t }) }
func (h *half) setWriteDeadline(t time.Time) { h.set(func() { h.writeDeadline = t }) }

// passed reports whether a deadline is set and over.
func passed(deadline, now time.Time) bool {
	return !deadline.IsZero() && !deadline.After(now)
}
