package chaos

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// books are the account and the times of deliveries, fed while the processes run.
type books struct {
	mu      sync.Mutex
	account *account
	faults  []string             // what is wrong apart from the account
	living  map[string]int       // the present incarnation of each agent
	clocks  map[[2]string]*clock // from author to receiver
	more    chan struct{}        // closed and replaced when something has changed
}

// clock is when new messages of one agent were delivered to another.
type clock struct {
	last    time.Time
	longest time.Duration // between two of them
	changes int           // of the state of the author's Peer for the receiver
}

func newBooks(agents []string) *books {
	b := &books{account: newAccount(), living: map[string]int{}, clocks: map[[2]string]*clock{}, more: make(chan struct{})}
	for _, from := range agents {
		for _, to := range agents {
			if from != to {
				b.clocks[[2]string{from, to}] = &clock{last: time.Now()}
			}
		}
	}
	return b
}

// changed wakes those that wait; b.mu is held.
func (b *books) changed() {
	close(b.more)
	b.more = make(chan struct{})
}

// wake wakes those that wait for something that is kept elsewhere.
func (b *books) wake() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.changed()
}

// wait returns what is closed at the next change.
func (b *books) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.more
}

// started notes the next process of an agent.
func (b *books) started(name string) process {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.living[name]++
	return process{name, b.living[name]}
}

// enter takes a line of an agent's journal. It reports whether the line was for
// the books alone.
func (b *books) enter(p process, line string) bool {
	word, rest, _ := strings.Cut(line, " ")
	b.mu.Lock()
	defer b.mu.Unlock()
	switch word {
	case "sent":
		to, number, _ := strings.Cut(rest, " ")
		var n uint64
		if _, err := fmt.Sscan(number, &n); err != nil {
			b.faultLocked("%v says %q", p, line)
		}
		b.account.enterSent(p, to, n)
	case "got":
		if b.account.enterGot(p, rest) {
			author, _, _ := strings.Cut(rest, ".")
			c, now := b.clocks[[2]string{author, p.name}], time.Now()
			c.longest = max(c.longest, now.Sub(c.last))
			c.last = now
		}
		b.changed()
	case "state":
		peer, _, _ := strings.Cut(rest, " ")
		b.clocks[[2]string{p.name, peer}].changes++
		return false
	case "problem":
		b.faultLocked("%v: %s", p, rest)
	default:
		return false
	}
	return true
}

// fault notes something wrong; whoever waits fails.
func (b *books) fault(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faultLocked(format, args...)
}

func (b *books) faultLocked(format string, args ...any) {
	if len(b.faults) < maxProblems {
		b.faults = append(b.faults, fmt.Sprintf(format, args...))
	}
	b.changed()
}

// wrong returns everything that is wrong so far.
func (b *books) wrong() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append(append([]string(nil), b.account.problems...), b.faults...)
}

// mark is a point in time: what had been sent by then, from each agent to each.
type mark map[route]uint64

// now returns the present point for the pairs that a filter takes.
func (b *books) now(takes func(from, to string) bool) mark {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := mark{}
	for pair := range b.clocks {
		if takes(pair[0], pair[1]) {
			r := route{process{pair[0], b.living[pair[0]]}, pair[1]}
			m[r] = b.account.stream(r).sent
		}
	}
	return m
}

// await waits until a message that was sent after the mark is delivered on each of
// its pairs, and with it everything before. An error names those that are
// missing, or what is wrong.
func (b *books) await(ctx context.Context, m mark) error {
	for {
		b.mu.Lock()
		var missing []string
		for r, sent := range m {
			if s := b.account.stream(r); s.most <= sent {
				missing = append(missing, fmt.Sprintf("%v → %s: %d sent then, %d sent now, %d delivered", r.author, r.to, sent, s.sent, s.most))
			}
		}
		bad := len(b.account.problems) + len(b.faults)
		more := b.more
		b.mu.Unlock()
		switch {
		case bad > 0:
			return errors.New("something is wrong")
		case len(missing) == 0:
			return nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return fmt.Errorf("no traffic: %s", strings.Join(missing, "; "))
		}
	}
}

// disturbance returns the longest time without a new delivery on any of the
// pairs that a filter takes, and how often the state of a Peer changed, since the
// last call of calm.
func (b *books) disturbance(takes func(from, to string) bool) (gap time.Duration, changes int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for pair, c := range b.clocks {
		if takes(pair[0], pair[1]) {
			gap = max(gap, c.longest, time.Since(c.last))
			changes += c.changes
		}
	}
	return gap, changes
}

func (b *books) calm() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.clocks {
		c.longest, c.changes = 0, 0
	}
}
