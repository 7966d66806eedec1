package meshtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/infrafabric/agentmesh/mesh"
)

// Account is what became of the messages of all traffic.
type Account struct {
	// Sent counts messages that Send accepted, Delivered those that Receive
	// returned, each counted once.
	Sent, Delivered int
	// Again counts messages that a restarted agent saw again because its former
	// process had not finished with them. That is no fault.
	Again int
	// Lost, Duplicated and Reordered count what must not happen.
	Lost, Duplicated, Reordered int
	// Problems are the first of them in words, and every error of a call.
	Problems []string
}

func (a Account) String() string {
	return fmt.Sprintf("%d messages sent, %d delivered, %d seen again after a restart, %d lost, %d duplicated, %d out of order",
		a.Sent, a.Delivered, a.Again, a.Lost, a.Duplicated, a.Reordered)
}

// flow is traffic from one agent to another, across all of their processes.
type flow struct {
	from, to string
	every    time.Duration
	burst    int
}

// stream is what one process of the sender has sent on a flow.
type stream struct {
	sent     uint64
	most     uint64 // the highest number delivered to any process of the receiver
	here     uint64 // the last one delivered to the present process of the receiver
	receiver int    // the incarnation of that process
	done     chan struct{}
}

type streamKey struct {
	from        string
	incarnation int
	to          string
}

// books keeps the traffic and its account.
type books struct {
	line *timeline

	mu           sync.Mutex
	flows        []flow
	streams      map[streamKey]*stream
	newest       map[[2]string]int // incarnation of the sender that the receiver heard last
	incarnations map[string]int
	processes    []*process
	quiet        chan struct{} // closed when no more messages are to be sent
	stopped      bool
	account      Account
	clocks       map[[2]string]*clock // of each flow
	more         chan struct{}        // closed and replaced at each delivery
}

// clock is when messages of a flow were delivered.
type clock struct {
	count   int
	last    time.Time
	longest time.Duration // between two of them
}

func (b *books) init(l *timeline) {
	b.line = l
	b.streams, b.newest, b.incarnations = map[streamKey]*stream{}, map[[2]string]int{}, map[string]int{}
	b.clocks, b.more, b.quiet = map[[2]string]*clock{}, make(chan struct{}), make(chan struct{})
}

// tick notes a delivery; b.mu is held.
func (b *books) tick(pair [2]string) {
	c, now := b.clocks[pair], time.Now()
	if c == nil {
		c = &clock{last: now}
		b.clocks[pair] = c
	}
	c.longest = max(c.longest, now.Sub(c.last))
	c.last = now
	c.count++
	close(b.more)
	b.more = make(chan struct{})
}

// LongestGap returns the longest time in which nothing was delivered of the
// traffic from one agent to another, since the last call for the two or since its
// first message, the time that runs included.
func (u *Universe) LongestGap(from, to string) time.Duration {
	b := &u.books
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.clocks[[2]string{from, to}]
	if c == nil {
		return time.Since(u.began)
	}
	gap := max(c.longest, time.Since(c.last))
	c.longest = 0
	return gap
}

// AwaitTraffic waits until a further message from one agent is delivered to
// another and returns how long that took. It fails the test after 20 minutes.
func (u *Universe) AwaitTraffic(from, to string) time.Duration {
	u.t.Helper()
	b := &u.books
	began := time.Now()
	pair := [2]string{from, to}
	deadline := time.NewTimer(settleTime)
	defer deadline.Stop()
	before := -1
	for {
		b.mu.Lock()
		count, more := 0, b.more
		if c := b.clocks[pair]; c != nil {
			count = c.count
		}
		b.mu.Unlock()
		switch {
		case before < 0:
			before = count
		case count > before:
			return time.Since(began)
		}
		select {
		case <-more:
		case <-deadline.C:
			u.fatal("nothing from %s reaches %s", from, to)
		}
	}
}

// started counts an agent's processes.
func (b *books) started(name string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.incarnations[name]++
	return b.incarnations[name]
}

func (b *books) problem(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.problemLocked(format, args...)
}

func (b *books) problemLocked(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	b.line.add("  PROBLEM: " + text)
	if len(b.account.Problems) < maxProblems {
		b.account.Problems = append(b.account.Problems, text)
	}
}

// Traffic makes an agent send burst messages to another every so often, from now
// on until Settle, in each of its processes. What the two receive is taken and
// checked: a test does not call Accept or Receive on agents with traffic.
func (u *Universe) Traffic(from, to string, every time.Duration, burst int) {
	if u.agents[from] == nil || u.agents[to] == nil || from == to || every <= 0 || burst <= 0 {
		u.fatal("traffic from %q to %q every %v, %d messages", from, to, every, burst)
	}
	f := flow{from, to, every, burst}
	b := &u.books
	b.mu.Lock()
	b.flows = append(b.flows, f)
	b.mu.Unlock()
	for _, name := range []string{from, to} {
		if p := u.agents[name].process; p != nil {
			b.take(p)
		}
	}
	if p := u.agents[from].process; p != nil {
		p.work.Go(func() { b.send(p, f) })
	}
}

// run starts what a new process has to do.
func (b *books) run(p *process) {
	b.mu.Lock()
	b.processes = append(b.processes, p)
	flows := b.flows
	b.mu.Unlock()
	for _, f := range flows {
		if f.from == p.agent.name || f.to == p.agent.name {
			b.take(p)
		}
		if f.from == p.agent.name {
			p.work.Go(func() { b.send(p, f) })
		}
	}
}

// take receives everything that others send to the process.
func (b *books) take(p *process) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.accepts {
		return
	}
	p.accepts = true
	p.work.Go(func() {
		for {
			peer, err := p.node.Accept(p.ctx)
			if err != nil {
				if p.ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
					b.problem("%s accepts: %v", p.agent.name, err)
				}
				return
			}
			b.adopt(p, peer)
		}
	})
}

// adopt receives from one Peer until it closes.
func (b *books) adopt(p *process, peer *mesh.Peer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.adopted[peer] {
		return
	}
	p.adopted[peer] = true
	p.work.Go(func() {
		for {
			m, err := peer.Receive(p.ctx)
			if err != nil {
				if p.ctx.Err() == nil {
					b.problem("%s → %s ended: %v", p.agent.name, peer.ID(), err)
				}
				p.mu.Lock()
				delete(p.adopted, peer)
				p.mu.Unlock()
				return
			}
			b.arrived(p, m)
		}
	})
}

// send is a flow in one process of its sender.
func (b *books) send(p *process, f flow) {
	s := &stream{done: make(chan struct{})}
	b.mu.Lock()
	if b.stopped {
		b.mu.Unlock()
		return
	}
	b.streams[streamKey{f.from, p.incarnation, f.to}] = s
	quiet := b.quiet
	b.mu.Unlock()
	defer close(s.done)

	peer, err := p.node.Dial(p.ctx, f.to)
	if err != nil {
		if p.ctx.Err() == nil {
			b.problem("%v", err)
		}
		return
	}
	b.adopt(p, peer)
	tick := time.NewTicker(f.every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-quiet:
			if err := peer.Flush(p.ctx); err != nil && p.ctx.Err() == nil {
				b.problem("%s → %s: %v", f.from, f.to, err)
			}
			return
		case <-p.ctx.Done():
			return
		}
		for range f.burst {
			b.mu.Lock()
			n := s.sent + 1
			b.mu.Unlock()
			id := fmt.Sprintf("%s.%d>%s#%d", f.from, p.incarnation, f.to, n)
			if err := peer.Send(p.ctx, mesh.Message{ID: id, Performative: "inform", Payload: json.RawMessage(`{"traffic":true}`)}); err != nil {
				if p.ctx.Err() == nil {
					b.problem("%s → %s: %v", f.from, f.to, err)
				}
				return
			}
			b.mu.Lock()
			s.sent = n
			b.account.Sent++
			b.mu.Unlock()
		}
	}
}

// arrived enters a message that an application has received.
func (b *books) arrived(p *process, m mesh.Message) {
	var key streamKey
	head, tail, _ := strings.Cut(m.ID, "#")
	author, to, _ := strings.Cut(head, ">")
	at := strings.LastIndexByte(author, '.')
	var n uint64
	if at > 0 {
		key.from, key.to = author[:at], to
		if _, err := fmt.Sscan(author[at+1:], &key.incarnation); err != nil {
			at = 0
		}
	}
	if _, err := fmt.Sscan(tail, &n); err != nil || at <= 0 || to != p.agent.name || m.Source != key.from {
		b.problem("%s received a message that nobody sent: %s", p.agent.name, m.ID)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.streams[key]
	if s == nil {
		b.problemLocked("%s received %s of a process that never sent", p.agent.name, m.ID)
		return
	}
	pair := [2]string{key.from, key.to}
	if newest := b.newest[pair]; key.incarnation < newest {
		b.account.Reordered++
		b.problemLocked("%s received %s after messages of a newer process", p.agent.name, m.ID)
		return
	}
	b.newest[pair] = key.incarnation
	if s.receiver != p.incarnation {
		// A new process may see again what the last one had not finished, and
		// misses nothing.
		s.receiver, s.here = p.incarnation, 0
		if n <= s.most+1 {
			s.here = n - 1
		}
	}
	switch {
	case n == s.here+1:
		s.here = n
	case n <= s.here:
		b.account.Duplicated++
		b.problemLocked("%s received %s again", p.agent.name, m.ID)
		return
	default:
		b.account.Reordered++
		b.problemLocked("%s received %s after number %d", p.agent.name, m.ID, s.here)
		s.here = n
	}
	if n <= s.most {
		b.account.Again++
		return
	}
	s.most = n
	b.account.Delivered++
	b.tick(pair)
}

// Account returns what became of the messages so far. Lost is known after Settle.
func (u *Universe) Account() Account {
	u.books.mu.Lock()
	defer u.books.mu.Unlock()
	a := u.books.account
	a.Problems = append([]string(nil), a.Problems...)
	return a
}

// Settle mends everything, ends the traffic and waits until what was sent is
// delivered. The test fails if something of it is lost, came twice or in another
// order, or if a call failed that should not; and it shows how it came to that.
// Messages of a process that was killed may be lost with it.
func (u *Universe) Settle() Account {
	u.t.Helper()
	u.Mend()
	b := &u.books
	b.finish()
	deadline := time.NewTimer(settleTime)
	defer deadline.Stop()
	b.mu.Lock()
	var waits []*stream
	for key, s := range b.streams {
		if a := u.agents[key.from]; a.process != nil && a.process.incarnation == key.incarnation {
			waits = append(waits, s)
		}
	}
	b.mu.Unlock()
	for _, s := range waits {
		select {
		case <-s.done:
		case <-deadline.C:
			deadline.Reset(0)
		}
	}
	b.mu.Lock()
	for key, s := range b.streams {
		if a := u.agents[key.from]; a.process == nil || a.process.incarnation != key.incarnation {
			continue
		}
		if s.most < s.sent {
			b.account.Lost += int(s.sent - s.most)
			b.problemLocked("%s.%d → %s: %d sent, %d delivered", key.from, key.incarnation, key.to, s.sent, s.most)
		}
	}
	b.mu.Unlock()
	a := u.Account()
	u.Note("settled: %v", a)
	if len(a.Problems) > 0 {
		u.t.Logf("what happened:\n%s", u.Timeline())
		for _, p := range a.Problems {
			u.t.Error(p)
		}
	}
	return a
}

// finish ends the sending.
func (b *books) finish() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.stopped {
		b.stopped = true
		close(b.quiet)
	}
}

func (b *books) stop() { b.finish() }
