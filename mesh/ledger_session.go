package mesh

import (
	"fmt"
	"slices"
	"time"

	"github.com/infrafabric/agentmesh/signaling"
)

// positions is what a hello to that instance states.
func (l *ledger) positions(inst signaling.Instance) []position {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p, ok := l.in.position(); ok && inst == l.inst {
		return []position{p}
	}
	return nil
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
// It returns the IDs of records whose outcome can no longer be known, and
// whether another instance was displaced.
func (l *ledger) attach(s *session, h *helloBody) (unknown []string, displaced bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case !l.open:
		return nil, false, &closedError{l.cause}
	case slices.Contains(l.refused, h.FromInstance):
		return nil, false, fmt.Errorf("instance of %s: %w", l.remote, ErrReplaced)
	}
	pos, err := soleMessagePosition(h.Positions)
	if err != nil {
		return nil, false, err
	}
	first := l.inst == signaling.Instance{}
	same := l.inst == h.FromInstance
	if same && l.top != nil && s.order.compare(l.top.order) < 0 {
		// Data stays on the higher session; what this hello states is old.
		return nil, false, nil
	}
	if pos == nil && same && h.State == l.theirs {
		// Nothing had come when this hello was written; nothing is forgotten.
		pos = &position{Flow: messageFlow}
	}
	gone, unknown, err := l.out.resume(pos, same || first, h.Window)
	if err != nil {
		return nil, false, err
	}
	l.obs.delivered(gone)
	clear(gone)
	if len(unknown) > 0 {
		l.doubt = l.out.base() - 1
	}
	if !same {
		if displaced = !first; displaced {
			l.refused = append(l.refused, l.inst)
			if len(l.refused) > maxRefusedInstances {
				l.refused = l.refused[1:]
			}
		}
		l.inst = h.FromInstance
		l.in = newReceiver(messageFlow, l.in.window)
		l.epoch++
		l.told, l.ackDue, l.ackNow = l.in.credit, false, false
	}
	l.theirs = h.State
	l.top, l.overdueFrom = s, time.Time{}
	if l.ackDue {
		l.ackNow = true
	}
	l.space.broadcast()
	l.settled.broadcast()
	return unknown, displaced, nil
}

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
			l.inbox = append(l.inbox, inbound{msg: &msgs[i], epoch: l.epoch})
			filed++
		}
	}
	if filed < len(msgs) {
		// The credit counts what is new, so nothing else may be kept: neither
		// the records that were repeated beside it nor those behind an error.
		for i := len(l.inbox) - filed; i < len(l.inbox); i++ {
			l.inbox[i].msg = l.inbox[i].msg.detached()
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
		l.space.broadcast()
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
