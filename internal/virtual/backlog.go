package virtual

import (
	"container/heap"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// backlog holds datagrams until they are due. It stands before the routers and not
// behind them because a vnet router can be given datagrams by sockets only.
type backlog struct {
	waiting atomic.Int64 // len(queue), or more while some of it is being sent

	mu     sync.Mutex // guards what follows; held while sending, which keeps the order
	queue  dueQueue
	lanes  map[lane]*pending // those with something in the queue
	seq    uint64
	timer  *time.Timer // nil until the first use
	closed bool
}

// pending is what the queue holds of one lane, late copies aside.
type pending struct {
	count int
	last  time.Time // when the last of them is due; nothing may go before it
}

// delayed is one datagram in the queue.
type delayed struct {
	due    time.Time
	seq    uint64 // orders what is due at the same time
	lane   lane
	late   bool // in no order with the lane
	queues bool // in the receiver's queue, when it is due
	conn   *conn
	data   []byte
	to     net.UDPAddr
}

// hold takes a copy of a datagram over, or reports that it may be sent at once.
func (b *backlog) hold(c *conn, r route, h hold, p []byte, to *net.UDPAddr) bool {
	wait := h.extra + h.late
	if wait == 0 && !r.queues && b.waiting.Load() == 0 {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	before := b.lanes[r.lane]
	switch {
	case wait == 0 && !r.queues && before == nil:
		return false
	case b.closed || len(b.queue) >= maxDelayed:
		return true // and lose it
	}
	now := time.Now()
	due := now.Add(wait)
	if h.late == 0 {
		if before == nil {
			before = new(pending)
			b.lanes[r.lane] = before
		}
		if due.Before(before.last) {
			due = before.last
		}
		before.count++
		before.last = due
	}
	b.seq++
	b.waiting.Add(1)
	heap.Push(&b.queue, &delayed{
		due: due, seq: b.seq, lane: r.lane, late: h.late > 0, queues: r.queues, conn: c,
		// Copies: the caller may use both again as soon as its write returns.
		data: append([]byte(nil), p...), to: *to,
	})
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
		d := b.queue[0]
		if left := d.due.Sub(now); left > 0 {
			b.wake(left)
			return
		}
		heap.Pop(&b.queue)
		b.leave(d)
		if d.queues {
			through, ok := d.conn.host.net.wire.enter(d.lane.to, now, len(d.data))
			if ok && through.After(now) {
				b.seq++
				d.due, d.seq, d.late, d.queues = through, b.seq, true, false // the queue keeps its order
				heap.Push(&b.queue, d)
				continue
			}
			if !ok {
				b.waiting.Add(-1)
				continue
			}
		}
		// Like a kernel, which no longer tells anybody what became of it. A socket
		// that was closed meanwhile still sends.
		_, _ = d.conn.UDPConn.WriteTo(d.data, &d.to)
		b.waiting.Add(-1)
	}
}

// leave takes a datagram out of its lane; b.mu is held.
func (b *backlog) leave(d *delayed) {
	switch p := b.lanes[d.lane]; {
	case d.late:
	case p.count > 1:
		p.count--
	default:
		delete(b.lanes, d.lane)
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
