package meshtest

import "time"

// clock is when messages of a flow were delivered.
type clock struct {
	count   int
	last    time.Time
	longest time.Duration // between two of them
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
