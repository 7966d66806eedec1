package mesh

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

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
	out    sender
	in     receiver
	inst   signaling.Instance // the remote instance of the newest completed hello
	theirs uint64             // the state that it named
	// refused are instances that a newer one has replaced.
	refused []signaling.Instance
	// replaced is set for good when the remote says that a newer process has
	// this agent's identity.
	replaced bool

	inbox []inbound
	epoch int // counts remote instances: positions of a former one are void

	tenancy   int      // counts the Peers that have used the ledger
	open      bool     // the last of them still does
	cause     error    // why it does not
	settledTo uint64   // what was delivered when it ended
	since     uint64   // the number that was next when it began
	doubt     uint64   // the last one given up because the receiver forgot
	top       *session // data leaves by it; nil between sessions

	// overdueFrom is when what is outstanding last made progress: it began, or
	// some of it was acknowledged. Zero when nothing is.
	overdueFrom time.Time

	told     uint64      // credit in the last position that travelled
	ackDue   bool        // the position has news
	ackNow   bool        // and they must not wait any longer
	ackArmed bool        // ackTimer runs
	ackTimer *time.Timer // sets ackNow

	space   notifier // the send window opened, or open changed
	arrived notifier // inbox grew, or open changed
	settled notifier // records were delivered, or open changed
}

// inbound is a message that arrived.
type inbound struct {
	msg   *Message
	epoch int
}

func newLedger(remote string, obs *observer, window, floor, floorBytes uint64) *ledger {
	return &ledger{
		remote: remote,
		obs:    obs,
		state:  rand.Uint64(),
		out:    newSender(messageFlow, window, floor, floorBytes),
		in:     newReceiver(messageFlow, window),
	}
}

// begin opens the ledger for a new Peer and returns the number that its calls
// name: a Peer that was closed must not act for the one after it.
func (l *ledger) begin() (tenancy int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tenancy++
	l.open, l.cause, l.since = true, nil, l.out.next
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
	l.space.broadcast()
	l.arrived.broadcast()
	l.settled.broadcast()
	return ids
}

// push numbers a prepared message, encodes it and puts it into the window. It
// blocks while the window is full.
func (l *ledger) push(ctx context.Context, tenancy int, m *Message) error {
	now := time.Now()
	for {
		l.mu.Lock()
		if err := l.closed(tenancy); err != nil {
			l.mu.Unlock()
			return err
		}
		m.SequenceNum = l.out.next
		data := encodeRecord(m)
		if len(data) > MaxMessage || recordSize(data) > l.out.window {
			l.mu.Unlock()
			return ErrTooLarge
		}
		if l.out.fits(len(data)) {
			l.out.push(m.ID, data, now)
			top := l.top
			l.mu.Unlock()
			top.poke()
			return nil
		}
		wait := l.space.wait()
		l.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// flush waits until everything pushed before was delivered.
func (l *ledger) flush(ctx context.Context, tenancy int) error {
	l.mu.Lock()
	last := l.out.next - 1
	for {
		// What was given up when the tenant ended leaves base behind it as well.
		err := l.closed(tenancy)
		if err == nil && l.out.base() > last || tenancy == l.tenancy && l.settledTo >= last {
			doubt := l.doubt >= l.since && tenancy == l.tenancy
			l.mu.Unlock()
			if doubt {
				return ErrOutcomeUnknown
			}
			return nil
		}
		wait := l.settled.wait()
		l.mu.Unlock()
		if err != nil {
			return err
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		l.mu.Lock()
	}
}

// pop takes the next message that arrived. With take it counts as delivered at
// once, otherwise when taken is called with it.
func (l *ledger) pop(ctx context.Context, tenancy int, take bool) (inbound, error) {
	for {
		l.mu.Lock()
		if len(l.inbox) > 0 && tenancy == l.tenancy {
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
			return inbound{}, context.Cause(ctx)
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
	if in.epoch != l.epoch {
		return nil // of an instance that is gone
	}
	l.in.deliver(in.msg.SequenceNum)
	return l.acknowledge()
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
