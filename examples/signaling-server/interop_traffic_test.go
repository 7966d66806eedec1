//go:build interop

package main

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/mesh"
)

// sendInterval is how often each agent says something to each of its peers.
const sendInterval = 20 * time.Millisecond

// traffic is numbered messages between peers, all along and both ways.
type traffic struct {
	t       *testing.T
	ctx     context.Context
	cancel  context.CancelFunc
	stop    chan struct{} // closed when no more is to be sent
	flows   []*flow
	senders sync.WaitGroup
	readers sync.WaitGroup
}

// flow is what goes from one agent to another.
type flow struct {
	from, to string
	sent     uint64 // owned by the sender; valid when it has ended

	mu       sync.Mutex
	received uint64        // the number of the last message
	count    uint64        // messages
	last     time.Time     // when it came; at first, when they were connected
	gap      time.Duration // the longest since traffic.gap was asked
}

func newTraffic(t *testing.T) *traffic {
	tr := &traffic{t: t, stop: make(chan struct{})}
	tr.ctx, tr.cancel = context.WithTimeout(t.Context(), 4*registerLimit)
	t.Cleanup(func() {
		tr.cancel()
		tr.senders.Wait()
		tr.readers.Wait()
	})
	return tr
}

// connect has one agent dial another that accepts, and lets them talk. It
// returns how long it took.
func (tr *traffic) connect(from, to *mesh.Node) time.Duration {
	tr.t.Helper()
	start := time.Now()
	ctx, cancel := context.WithTimeout(tr.ctx, interopDial)
	defer cancel()
	p, err := from.Dial(ctx, to.ID())
	if err != nil {
		tr.t.Fatalf("%s: %v", from.ID(), err)
	}
	q, err := to.Accept(ctx)
	if err != nil {
		tr.t.Fatalf("%s: %v", to.ID(), err)
	}
	if q.ID() != from.ID() {
		tr.t.Fatalf("%s accepted %s instead of %s", to.ID(), q.ID(), from.ID())
	}
	took := time.Since(start)
	tr.begin(p, q, from.ID(), to.ID())
	tr.begin(q, p, to.ID(), from.ID())
	return took.Round(time.Millisecond)
}

// begin sends at p, which is from's, and receives at q, which is to's.
func (tr *traffic) begin(p, q *mesh.Peer, from, to string) {
	f := &flow{from: from, to: to, last: time.Now()}
	tr.flows = append(tr.flows, f)
	tr.senders.Go(func() { tr.send(p, f) })
	tr.readers.Go(func() { tr.receive(q, f) })
}

func (tr *traffic) send(p *mesh.Peer, f *flow) {
	tick := time.NewTicker(sendInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-tr.stop:
			if err := p.Flush(tr.ctx); err != nil {
				tr.t.Errorf("%s: %v", f.from, err)
			}
			return
		case <-tr.ctx.Done():
			return
		}
		if err := p.Send(tr.ctx, mesh.Message{Payload: strconv.AppendUint(nil, f.sent+1, 10)}); err != nil {
			if tr.ctx.Err() == nil {
				tr.t.Errorf("%s: %v", f.from, err)
			}
			return
		}
		f.sent++
	}
}

func (tr *traffic) receive(p *mesh.Peer, f *flow) {
	for {
		m, err := p.Receive(tr.ctx)
		if err != nil {
			if tr.ctx.Err() == nil {
				tr.t.Errorf("%s: %v", f.to, err)
			}
			return
		}
		n, err := strconv.ParseUint(string(m.Payload), 10, 64)
		if after := f.take(n); err != nil || n != after+1 || m.Source != f.from {
			tr.t.Errorf("%s got %q of %s after %d of %s", f.to, m.Payload, m.Source, after, f.from)
		}
	}
}

// take counts a message and returns the number of the one before.
func (f *flow) take(n uint64) (before uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before, f.received = f.received, n
	f.count++
	now := time.Now()
	f.gap, f.last = max(f.gap, now.Sub(f.last)), now
	return before
}

func (f *flow) got() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count
}

// more waits until every flow has delivered n more messages.
func (tr *traffic) more(n uint64) {
	tr.t.Helper()
	want := make([]uint64, len(tr.flows))
	for i, f := range tr.flows {
		want[i] = f.got() + n
	}
	for i, f := range tr.flows {
		until(tr.t, interopDial, "messages from "+f.from+" to "+f.to, func() bool { return f.got() >= want[i] })
	}
}

// gap returns the longest time since it was last called in which a flow
// delivered nothing.
func (tr *traffic) gap() time.Duration {
	var longest time.Duration
	for _, f := range tr.flows {
		f.mu.Lock()
		longest = max(longest, f.gap, time.Since(f.last))
		f.gap = 0
		f.mu.Unlock()
	}
	return longest
}

// finish stops the senders, waits until what they sent is delivered, and checks
// that it was, once. That it was in order has been checked at each message.
func (tr *traffic) finish() (sent, received uint64) {
	tr.t.Helper()
	close(tr.stop)
	tr.senders.Wait()
	tr.cancel()
	tr.readers.Wait()
	for _, f := range tr.flows {
		if f.sent != f.count {
			tr.t.Errorf("%s to %s: %d sent, %d received", f.from, f.to, f.sent, f.count)
		}
		sent, received = sent+f.sent, received+f.count
	}
	return sent, received
}
