package meshtest

import (
	"context"
	"fmt"
)

// Account is what became of the messages of all traffic.
type Account struct {
	// Sent counts messages that Send accepted, Delivered those that Receive
	// returned or a Handler got, each counted once.
	Sent, Delivered int
	// Again counts messages that a restarted agent saw again because its former
	// process had not finished with them. That is no fault.
	Again int
	// Refused counts those that Send said were too large, Reported those whose IDs
	// were told when a Peer ended and that did not arrive, because it ended or because
	// they were too large for the window with which the other side came back. That is no
	// fault either.
	Refused, Reported int
	// Lost, Duplicated and Reordered count what must not happen.
	Lost, Duplicated, Reordered int
	// Problems are the first of them in words, and every error of a call.
	Problems []string
}

func (a Account) String() string {
	return fmt.Sprintf("%d messages sent, %d delivered, %d seen again after a restart, %d refused, %d reported, %d lost, %d duplicated, %d out of order",
		a.Sent, a.Delivered, a.Again, a.Refused, a.Reported, a.Lost, a.Duplicated, a.Reordered)
}

// Add adds what became of other messages. It keeps the problems of both.
func (a *Account) Add(b Account) {
	a.Sent += b.Sent
	a.Delivered += b.Delivered
	a.Again += b.Again
	a.Refused += b.Refused
	a.Reported += b.Reported
	a.Lost += b.Lost
	a.Duplicated += b.Duplicated
	a.Reordered += b.Reordered
	a.Problems = append(a.Problems, b.Problems...)
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
// Messages of a process that was killed may be lost with it, and those that a Peer
// reported when it ended may have arrived or not.
func (u *Universe) Settle() Account {
	u.t.Helper()
	u.Mend()
	b := &u.books
	b.finish()
	ctx, cancel := context.WithTimeout(context.Background(), settleTime)
	defer cancel()
	for _, r := range b.running(u) {
		select {
		case <-r:
		case <-ctx.Done():
		}
	}
	for _, name := range u.names {
		if a := u.agents[name]; a.answers && a.process != nil {
			a.process.flush(ctx)
		}
	}
	if ctx.Err() == nil { // all else has arrived
		b.confess()
	}
	b.lose(u)
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

// running returns what is closed when the flows of present processes have ended.
func (b *books) running(u *Universe) (runs []chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for key, done := range b.runs {
		if a := u.agents[key.from]; a.process != nil && a.process.incarnation == key.incarnation {
			runs = append(runs, done)
		}
	}
	return runs
}

// flush waits until what the process has answered is delivered.
func (p *process) flush(ctx context.Context) {
	for _, peer := range p.peers() {
		p.agent.u.books.flush(ctx, p, peer)
	}
}

// lose enters what should have arrived and has not.
func (b *books) lose(u *Universe) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for key, s := range b.streams {
		if a := u.agents[key.from]; a.process == nil || a.process.incarnation != key.incarnation {
			continue
		}
		lost := len(s.passed)
		for n := s.most + 1; n <= s.sent; n++ {
			if !s.told[n] {
				lost++
			}
		}
		if lost > 0 {
			b.account.Lost += lost
			b.problemLocked("%v: %d sent, %d delivered, %d lost", key, s.sent, s.most, lost)
		}
	}
}
