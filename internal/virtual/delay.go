package virtual

import (
	"container/heap"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// SetDelay adds extra to the way of every datagram that the host sends from now
// on and of every one that is sent to it, so twice that to a round trip. Between
// two hosts with an extra delay both are added. What one host sends to another
// stays in order: after the delay was lowered, it waits for what was sent
// before.
//
// The delay lies before the NAT of the sender. All else, such as loss, is decided
// where the datagram leaves the core, after all delays.
//
// It panics if extra is negative.
func (h *Host) SetDelay(extra time.Duration) {
	if extra < 0 {
		panic(fmt.Sprintf("virtual: SetDelay: %v is negative", extra))
	}
	w := &h.net.wire
	w.mu.Lock()
	defer w.mu.Unlock()
	if h.extra > 0 {
		w.slow--
	}
	if h.extra = extra; extra > 0 {
		w.slow++
	}
}

// backlog holds the datagrams of slow hosts until they are due. It stands before
// the routers and not behind them because a vnet router can be given datagrams
// by sockets only.
type backlog struct {
	waiting atomic.Int64 // len(queue), or more while some of it is being sent

	mu     sync.Mutex // guards what follows; held while sending, which keeps the order
	queue  dueQueue
	lanes  map[lane]*pending // those with something in the queue
	seq    uint64
	timer  *time.Timer // nil until the first use
	closed bool
}

// pending is what the queue holds of one lane.
type pending struct {
	count int
	last  time.Time // when the last of them is due; nothing may go before it
}

// delayed is one datagram in the queue.
type delayed struct {
	due  time.Time
	seq  uint64 // orders what is due at the same time
	lane lane
	conn *conn
	data []byte
	to   net.UDPAddr
}

// hold takes a datagram over, or reports that it may be sent at once.
func (b *backlog) hold(c *conn, l lane, p []byte, to *net.UDPAddr, extra time.Duration) bool {
	if extra == 0 && b.waiting.Load() == 0 {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	before := b.lanes[l]
	switch {
	case extra == 0 && before == nil:
		return false
	case b.closed || len(b.queue) >= maxDelayed:
		return true // and lose it
	case before == nil:
		before = new(pending)
		b.lanes[l] = before
	}
	now := time.Now()
	due := now.Add(extra)
	if due.Before(before.last) {
		due = before.last
	}
	before.count++
	before.last = due
	b.seq++
	b.waiting.Add(1)
	// Copies: the caller may use both again as soon as its write returns.
	heap.Push(&b.queue, &delayed{due, b.seq, l, c, append([]byte(nil), p...), *to})
	if b.queue[0].seq == b.seq { // the new one is the next to go
		b.wake(due.Sub(now))
	}
	return true
}

// wake runs send after d; b.mu is held.
func (b *backlog) wake(d time.Duration) {
	if b.timer == nil {
		b.timer = time.AfterFunc(d, b.send)
		return
	}
	b.timer.Reset(d)
}

// send sends what is due.
func (b *backlog) send() {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	for len(b.queue) > 0 {
		if left := b.queue[0].due.Sub(now); left > 0 {
			b.wake(left)
			return
		}
		d := heap.Pop(&b.queue).(*delayed)
		// Like a kernel, which no longer tells anybody what became of it. A socket
		// that was closed meanwhile still sends.
		_, _ = d.conn.UDPConn.WriteTo(d.data, &d.to)
		if p := b.lanes[d.lane]; p.count > 1 {
			p.count--
		} else {
			delete(b.lanes, d.lane)
		}
		b.waiting.Add(-1)
	}
}

// close loses what is in the queue and all that would come.
func (b *backlog) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.queue = nil
	if b.timer != nil {
		b.timer.Stop()
	}
}

// dueQueue implements heap.Interface: the next to go first.
type dueQueue []*delayed

func (q dueQueue) Len() int { return len(q) }
func (q dueQueue) Less(i, j int) bool {
	if d := q[i].due.Compare(q[j].due); d != 0 {
		return d < 0
	}
	return q[i].seq < q[j].seq
}
func (q dueQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *dueQueue) Push(x any)   { *q = append(*q, x.(*delayed)) }
func (q *dueQueue) Pop() any {
	last := len(*q) - 1
	d := (*q)[last]
	(*q)[last] = nil // let it go
	*q = (*q)[:last]
	return d
}
