package mesh

import (
	"fmt"
	"slices"
	"time"

	"github.com/infrafabric/agentmesh/signaling"
)

// positions is what is stated to that instance.
func (l *ledger) positions(inst signaling.Instance) []position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.memory(inst).positions
}

// remembers is what a hello to that instance says.
func (l *ledger) remembers(inst signaling.Instance) memory {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.named = true
	return l.memory(inst)
}

// memory is remembers with l.mu held. A new instance shares the window with what
// its predecessors have sent and nobody has taken yet.
func (l *ledger) memory(inst signaling.Instance) memory {
	m := memory{window: l.in.window, state: l.state}
	if inst != l.inst {
		m.credit = newReceiver(messageFlow, l.in.window, l.unread).credit
		return m
	}
	m.credit = l.in.window - l.in.reserve
	if p, ok := l.in.position(); ok {
		m.positions = []position{p}
	}
	return m
}

// admits reports whether an instance may speak for the remote agent, and
// whether this process may still speak with it.
func (l *ledger) admits(inst signaling.Instance) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if slices.Contains(l.refused, inst) {
		return fmt.Errorf("instance of %s: %w", l.remote, ErrReplaced)
	}
	return nil
}

// attach takes in a session whose hello has been verified. The newest
// completed hello wins: a new instance displaces the one before, which is
// refused from then on. Data moves to the session if it is the highest; it
// never goes back to a lower one.
//
// It returns what became of that.
func (l *ledger) attach(s *session, h *helloBody) (got attachment, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case !l.open:
		return got, &closedError{l.cause}
	case slices.Contains(l.refused, h.FromInstance):
		return got, fmt.Errorf("instance of %s: %w", l.remote, ErrReplaced)
	}
	pos, err := soleMessagePosition(h.Positions)
	if err != nil {
		return got, err
	}
	first := l.inst == signaling.Instance{}
	same := l.inst == h.FromInstance
	if same && l.top != nil && s.order.compare(l.top.order) < 0 {
		// Data stays on the higher session; what this hello states is old.
		return got, nil
	}
	in := newReceiver(messageFlow, l.in.window, l.unread)
	if !same && in.credit < s.told.credit {
		return got, errRoomTaken
	}
	if pos == nil && same && h.State == l.theirs {
		// Nothing had come when this hello was written; nothing is forgotten.
		pos = &position{Flow: messageFlow}
	}
	gone, unknown, err := l.out.resume(pos, same || first, h.Credit)
	if err != nil {
		return got, err
	}
	l.obs.delivered(gone)
	clear(gone)
	got.unknown, got.oversized = unknown, l.out.receiver(h.Window)
	if len(got.unknown) > 0 {
		l.doubt, l.doubtful = l.out.base()-1, ErrOutcomeUnknown
	}
	if len(got.oversized) > 0 {
		l.doubt, l.doubtful = l.out.next-1, ErrTooLarge
	}
	if !same {
		if got.displaced = !first; got.displaced {
			l.refused = append(l.refused, l.inst)
			if len(l.refused) > maxRefusedInstances {
				l.refused = l.refused[1:]
			}
		}
		l.inst = h.FromInstance
		l.in = in
		l.epoch++
		l.told, l.ackDue, l.ackNow = l.in.credit, false, false
	}
	l.theirs = h.State
	l.top, l.overdueFrom = s, time.Time{}
	if l.ackDue {
		l.ackNow = true
	}
	l.roomMade()
	l.settled.broadcast()
	return got, nil
}

// attachment is what a session's attachment did.
type attachment struct {
	unknown   []string // IDs of records whose outcome can no longer be known
	oversized []string // and of those that the other side has no room for
	displaced bool     // another instance was displaced
}

// errRoomTaken ends a session to whose new instance more was promised than there
// is room for now; the next hello says what there is.
var errRoomTaken = fmt.Errorf("%w: its room was taken meanwhile", ErrConnectionLost)

// soleMessagePosition finds the message flow's entry; there are no other
// flows yet, and each may be named once.
func soleMessagePosition(list []position) (*position, error) {
	if len(list) == 0 {
		return nil, nil
	}
	if len(list) > 1 || list[0].Flow != messageFlow {
		return nil, protocolErrorf("positions of unknown flows")
	}
	return &list[0], nil
}

// detach takes a dead session out.
func (l *ledger) detach(s *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.top == s {
		l.top, l.overdueFrom = nil, time.Time{}
	}
}

// unacknowledged is since when what is outstanding on the session has made no
// progress, zero when nothing is outstanding there.
func (l *ledger) unacknowledged(s *session) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.top != s {
		return time.Time{}
	}
	return l.overdueFrom
}

// forgive starts the wait for acknowledgements afresh.
func (l *ledger) forgive(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.overdueFrom.IsZero() {
		l.overdueFrom = now
	}
}

// markReplaced notes that a newer process has this agent's identity.
func (l *ledger) markReplaced() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.replaced = true
}

// isReplaced reports what markReplaced noted.
func (l *ledger) isReplaced() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.replaced
}

// part notes that the Peer was closed here.
func (l *ledger) part() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.parted = true
}

// isParted reports what part noted.
func (l *ledger) isParted() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.parted
}

// work is what a session's writer sends next, in this order.
type work struct {
	skip      *skipFrame
	records   [][]byte
	positions []position
	begins    bool // nothing was outstanding before
}

// collect returns what the session should send now; nothing when it is not
// the highest.
func (l *ledger) collect(s *session) (w work) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.top != s {
		return work{}
	}
	w.skip, w.records = l.out.travel(maxTree, batchSize)
	if l.overdueFrom.IsZero() && l.out.outstanding() {
		l.overdueFrom, w.begins = time.Now(), true
	}
	if l.ackDue && (l.ackNow || len(w.records) > 0) {
		l.ackDue, l.ackNow = false, false
		if p, ok := l.in.position(); ok {
			w.positions = []position{p}
			l.told = p.Credit
		}
	}
	return w
}

// accept files the verified records of one batch that came by the session.
func (l *ledger) accept(s *session, msgs []Message, recs [][]byte) error {
	detached := l.repeats(msgs)
	if detached {
		detachAll(msgs)
	}
	l.mu.Lock()
	if err := l.current(s); err != nil {
		l.mu.Unlock()
		return err
	}
	filed := 0
	var err error
	for i := range msgs {
		var fresh bool
		if fresh, err = l.in.record(msgs[i].SequenceNum, recs[i]); err != nil {
			break
		}
		if fresh {
			m, size := &msgs[i], recordSize(recs[i])
			if detached {
				m = new(msgs[i])
			}
			l.inbox = append(l.inbox, inbound{msg: m, size: size, epoch: l.epoch, tenancy: l.tenancy})
			l.unread += size
			filed++
		}
	}
	if filed < len(msgs) && !detached {
		// The credit counts what is new, so nothing else may be kept: neither
		// the records that were repeated beside it nor those behind an error.
		detachAll(msgs)
		for i := len(l.inbox) - filed; i < len(l.inbox); i++ {
			l.inbox[i].msg = new(*l.inbox[i].msg)
		}
	}
	l.arrived.broadcast() // those before an error count
	if err != nil {
		l.mu.Unlock()
		return err
	}
	poke := l.acknowledge()
	l.mu.Unlock()
	poke.poke()
	return nil
}

// repeats reports whether a batch begins with a record that has come before. What
// that means for its memory is then dealt with before the ledger is locked.
func (l *ledger) repeats(msgs []Message) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return msgs[0].SequenceNum <= l.in.received
}

// skipTo files a skip that came by the session.
func (l *ledger) skipTo(s *session, f *skipFrame) error {
	if f.Flow != messageFlow {
		return protocolErrorf("skip on unknown flow %d", f.Flow)
	}
	l.mu.Lock()
	if err := l.current(s); err != nil {
		l.mu.Unlock()
		return err
	}
	err := l.in.skipTo(f.Number, f.Offset)
	l.ackDue, l.ackNow = true, true
	poke := l.top
	l.mu.Unlock()
	poke.poke()
	return err
}

// stated merges positions that came by the session. It reports whether they
// acknowledge more than was known.
func (l *ledger) stated(s *session, list []position) (progress bool, err error) {
	pos, err := soleMessagePosition(list)
	if err != nil || pos == nil {
		return false, err
	}
	l.mu.Lock()
	if err := l.current(s); err != nil {
		l.mu.Unlock()
		return false, err
	}
	before := l.out.acked
	gone, err := l.out.position(*pos)
	if progress = l.out.acked > before; progress && l.top != nil {
		l.overdueFrom = time.Time{}
		if l.out.outstanding() {
			l.overdueFrom = time.Now()
		}
	}
	if len(gone) > 0 {
		l.obs.delivered(gone)
		clear(gone)
		l.roomMade()
		l.settled.broadcast()
	}
	var poke *session
	if l.out.waiting() {
		poke = l.top
	}
	l.mu.Unlock()
	poke.poke()
	return progress, err
}

// current reports whether frames of the session still count. l.mu is held.
func (l *ledger) current(s *session) error {
	if !l.open {
		return &closedError{l.cause}
	}
	if s.bind.remoteInst != l.inst {
		return fmt.Errorf("instance of %s: %w", l.remote, ErrReplaced)
	}
	return nil
}
