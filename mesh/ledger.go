package mesh

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
)

// ledger is what a Node keeps about one other agent: the numbers and positions
// of the flows between them, the copies of what is not delivered, and what has
// arrived and was not yet taken. It outlives sessions and Peers, so numbers
// never start again.
//
// Its methods are safe for concurrent use. They never block but in push,
// pop and flush, and never call out.
type ledger struct {
	remote string
	obs    *observer
	state  uint64 // names this memory in hellos; random

	mu     sync.Mutex
	named  bool // a hello has named it
	out    sender
	in     receiver
	inst   signaling.Instance // the remote instance of the newest completed hello
	theirs uint64             // the state that it named
	// refused are instances that a newer one has replaced.
	refused []signaling.Instance
	// replaced is set for good when the remote says that a newer process has
	// this agent's identity.
	replaced bool
	// parted is set when the last Peer was closed here. The other side may not know, and
	// learns it when it wants to go on.
	parted bool

	inbox  []inbound
	unread uint64 // bytes of what came and is not delivered, of every instance
	epoch  int    // counts remote instances: positions of a former one are void
	line   []*sendWaiter

	tenancy   int      // counts the Peers that have used the ledger
	open      bool     // the last of them still does
	cause     error    // why it does not
	settledTo uint64   // what was delivered when it ended
	since     uint64   // the number that was next when it began
	doubt     uint64   // the last one given up
	doubtful  error    // why
	top       *session // data leaves by it; nil between sessions

	// overdueFrom is when what is outstanding last made progress: it began, or
	// some of it was acknowledged. Zero when nothing is.
	overdueFrom time.Time

	told     uint64      // credit in the last position that travelled
	ackDue   bool        // the position has news
	ackNow   bool        // and they must not wait any longer
	ackArmed bool        // ackTimer runs
	ackTimer *time.Timer // sets ackNow

	space   notifier // the send window opened, or open changed: for Handlers
	arrived notifier // inbox grew, or open changed
	settled notifier // records were delivered, or open changed
}

// inbound is a message that arrived.
type inbound struct {
	msg     *Message
	size    uint64 // as credit counts it
	epoch   int
	tenancy int // that it arrived in
}

// sendWaiter is a call of push that waits for its turn.
type sendWaiter struct{ turn chan struct{} } // capacity 1

func newLedger(remote string, obs *observer, window, floor, floorBytes uint64) *ledger {
	return &ledger{
		remote: remote,
		obs:    obs,
		state:  rand.Uint64(),
		out:    newSender(messageFlow, window, floor, floorBytes),
		in:     newReceiver(messageFlow, window, 0),
	}
}

// begin opens the ledger for a new Peer and returns the number that its calls
// name: a Peer that was closed must not act for the one after it.
func (l *ledger) begin() (tenancy int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tenancy++
	l.open, l.cause, l.since, l.parted = true, nil, l.out.next, false
	return l.tenancy
}

// closed reports whether the tenant's time is over, and why. l.mu is held.
func (l *ledger) closed(tenancy int) error {
	switch {
	case tenancy != l.tenancy:
		return &closedError{}
	case !l.open:
		return &closedError{l.cause}
	}
	return nil
}

// end closes it: nothing is accepted any more, and the IDs of what was not
// delivered are returned. What has arrived can still be popped.
func (l *ledger) end(cause error) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open, l.cause, l.top, l.overdueFrom = false, cause, nil, time.Time{}
	if l.ackTimer != nil {
		l.ackTimer.Stop()
		l.ackArmed = false // or the next Peer would wait for it in vain
	}
	l.settledTo = l.out.base() - 1
	ids := l.out.abandon()
	l.roomMade()
	for _, w := range l.line {
		w.wake()
	}
	l.arrived.broadcast()
	l.settled.broadcast()
	return ids
}

// push numbers a prepared message, encodes it and puts it into the window. It
// blocks while the window is full, and lets those pass that came before: a large
// message does not wait for ever behind small ones. A Handler's has a window's
// worth of room of its own: two agents whose Handlers answer each other would
// otherwise wait for each other for ever.
func (l *ledger) push(ctx context.Context, tenancy int, m *Message, handler bool) error {
	if ctx.Err() != nil {
		return contextError(ctx)
	}
	var (
		now  = time.Now()
		data []byte
		wait *sendWaiter
		room uint64
	)
	l.mu.Lock()
	if handler {
		room = l.out.window
	}
	for {
		err := l.closed(tenancy)
		if err == nil && (data == nil || m.SequenceNum != l.out.next) {
			m.SequenceNum = l.out.next
			data = encodeRecord(m)
		}
		if err == nil {
			err = l.out.limit(len(data))
		}
		first := handler || len(l.line) == 0 || l.line[0] == wait
		pushed := err == nil && first && l.out.fits(len(data), room)
		if pushed {
			l.out.push(m.ID, data, now)
		}
		if pushed || err != nil {
			l.leaveLine(wait)
			top := l.top
			l.mu.Unlock()
			if pushed {
				top.poke()
			}
			return err
		}
		var turn <-chan struct{}
		switch {
		case handler:
			turn = l.space.wait()
		case wait == nil:
			wait = &sendWaiter{make(chan struct{}, 1)}
			l.line = append(l.line, wait)
			fallthrough
		default:
			turn = wait.turn
		}
		l.mu.Unlock()
		select {
		case <-turn:
			l.mu.Lock()
		case <-ctx.Done():
			l.mu.Lock()
			l.leaveLine(wait)
			l.mu.Unlock()
			return contextError(ctx)
		}
	}
}

// leaveLine takes a waiter, if it is one, out of the line; who is first now may
// find room. l.mu is held.
func (l *ledger) leaveLine(w *sendWaiter) {
	if w == nil {
		return
	}
	i := slices.Index(l.line, w)
	l.line = slices.Delete(l.line, i, i+1)
	if i == 0 {
		l.roomMade()
	}
}

// roomMade wakes who waits for room in the send window. l.mu is held.
func (l *ledger) roomMade() {
	l.space.broadcast()
	if len(l.line) > 0 {
		l.line[0].wake()
	}
}

func (w *sendWaiter) wake() {
	select {
	case w.turn <- struct{}{}:
	default:
	}
}

// flush waits until everything pushed before was delivered.
func (l *ledger) flush(ctx context.Context, tenancy int) error {
	l.mu.Lock()
	if err := l.closed(tenancy); err != nil {
		l.mu.Unlock()
		return err
	}
	last := l.out.next - 1
	for {
		// What was given up when the tenant ended leaves base behind it as well.
		err := l.closed(tenancy)
		if err == nil && l.out.base() > last || tenancy == l.tenancy && l.settledTo >= last {
			err = nil
			if l.doubt >= l.since && tenancy == l.tenancy {
				err = l.doubtful
			}
			l.mu.Unlock()
			return err
		}
		wait := l.settled.wait()
		l.mu.Unlock()
		if err != nil {
			return err
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return contextError(ctx)
		}
		l.mu.Lock()
	}
}

// pop takes the next message that arrived. With take it counts as delivered at
// once, otherwise when taken is called with it. What came in a tenant's time is
// his for as long as the next one has not taken it.
func (l *ledger) pop(ctx context.Context, tenancy int, take bool) (inbound, error) {
	for {
		l.mu.Lock()
		if len(l.inbox) > 0 && l.inbox[0].tenancy <= tenancy {
			in := l.inbox[0]
			l.inbox[0] = inbound{}
			l.inbox = l.inbox[1:]
			if len(l.inbox) == 0 {
				l.inbox = nil
			}
			var poke *session
			if take {
				poke = l.delivered(in)
			}
			l.mu.Unlock()
			poke.poke()
			return in, nil
		}
		if err := l.closed(tenancy); err != nil {
			l.mu.Unlock()
			return inbound{}, err
		}
		wait := l.arrived.wait()
		l.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return inbound{}, contextError(ctx)
		}
	}
}

// taken notes that the application is done with a popped message.
func (l *ledger) taken(in inbound) {
	l.mu.Lock()
	poke := l.delivered(in)
	l.mu.Unlock()
	poke.poke()
}

// delivered advances the position and returns the session to poke, if any.
// l.mu is held.
func (l *ledger) delivered(in inbound) *session {
	l.unread -= in.size
	if in.epoch == l.epoch {
		l.in.deliver(in.msg.SequenceNum)
		return l.acknowledge()
	}
	// Of an instance that is gone: it makes room for the present one.
	before := l.in.credit
	if l.in.release(in.size); l.in.credit == before {
		return nil
	}
	return l.acknowledge()
}

// revoke drops what waits for the application and was signed by a key that is
// not to be believed any more, and returns how many messages that were. What the
// present instance sent is asked for again, should it be trusted again.
func (l *ledger) revoke(key keys.PublicKey) (dropped int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	present := false
	l.inbox = slices.DeleteFunc(l.inbox, func(in inbound) bool {
		gone := in.msg.Signature.Key == key
		if gone {
			dropped++
			l.unread -= in.size
			if present = present || in.epoch == l.epoch; in.epoch != l.epoch {
				l.in.release(in.size)
			}
		}
		return gone
	})
	if present {
		l.in.retract()
	}
	return dropped
}

// authors returns the keys that signed what waits for the application, but for
// one.
func (l *ledger) authors(but keys.PublicKey) (list []keys.PublicKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, in := range l.inbox {
		if k := in.msg.Signature.Key; k != but && !slices.Contains(list, k) {
			list = append(list, k)
		}
	}
	return list
}

// acknowledge sees to it that the position travels: with the next batch if one
// leaves soon, by itself after ackDelay, and at once when the other side may
// be short of credit. It returns the session to poke, if any. l.mu is held.
func (l *ledger) acknowledge() *session {
	l.ackDue = true
	if l.top == nil || l.ackNow {
		return nil
	}
	if l.in.credit-l.told >= l.in.window/4 {
		l.ackNow = true
		return l.top
	}
	if !l.ackArmed {
		l.ackArmed = true
		if l.ackTimer == nil {
			l.ackTimer = time.AfterFunc(ackDelay, l.ackLate)
		} else {
			l.ackTimer.Reset(ackDelay)
		}
	}
	return nil
}

// ackLate runs when a position has waited for ackDelay.
func (l *ledger) ackLate() {
	l.mu.Lock()
	var poke *session
	l.ackArmed = false
	if l.ackDue && !l.ackNow {
		l.ackNow = true
		poke = l.top
	}
	l.mu.Unlock()
	poke.poke()
}
