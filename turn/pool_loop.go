package turn

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"
)

// member is an endpoint of a Pool. The loop owns it.
type member struct {
	Endpoint
	address
	serial  int
	breaker breaker
	renewal renewal
	at      netip.Addr    // where the last probe that passed reached it
	latency time.Duration // smoothed; of the present health and address
	err     error         // of the last probe or fetch

	ended   int                     // version of the credential whose end was noted
	probed  int                     // version of the credential of the last probe
	began   time.Time               // of the last probe
	spread  float64                 // of the pause after it
	cancel  context.CancelCauseFunc // not nil while a probe is under way
	urgent  bool                    // that probe is for a doubt
	doubted bool                    // a probe for a doubt is wanted
	asked   time.Time               // the last one began
	hold    time.Time               // no probe before: this machine could not make the last one

	fetching bool
	removed  bool
}

// loopState is owned by run.
type loopState struct {
	members []*member // as added
	order   []*member // the healthy ones, best first
	serial  int
	first   *member // first choice when there was one that was usable
	dark    bool    // it is reported that none is usable
	results chan func(now instant)
}

func (l *loopState) find(url string) *member {
	for _, m := range l.members {
		if m.address.url == url {
			return m
		}
	}
	return nil
}

func (l *loopState) drop(m *member) {
	m.removed = true
	is := func(o *member) bool { return o == m }
	l.members = slices.DeleteFunc(l.members, is)
	l.order = slices.DeleteFunc(l.order, is)
}

// alone reports whether no endpoint is healthy or unjudged.
func (l *loopState) alone() bool {
	return !slices.ContainsFunc(l.members, func(m *member) bool { return m.breaker.health != Unhealthy })
}

// run is the loop. It owns the members:
//
//  1. what is due is started: fetches, probes for doubts, probes;
//  2. what Rank and Status answer is published;
//  3. it waits for a result, a doubt, a call, or the next time something is due.
func (p *Pool) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	defer close(p.events) // nobody else writes to it
	defer p.leave()
	for {
		now := p.now()
		next := now.mono.Add(time.Hour)
		for _, m := range p.loop.members {
			p.expire(now, m)
		}
		alone := p.loop.alone()
		for _, m := range p.loop.members {
			if at := p.start(now, m, alone); !at.IsZero() && at.Before(next) {
				next = at
			}
		}
		p.publish(now)
		timer.Reset(time.Until(next))
		select {
		case <-p.ctx.Done():
			return
		case f := <-p.loop.results:
			f(p.now())
		case f := <-p.ops:
			f()
		case <-p.wake:
			p.hear()
		case <-timer.C:
		}
	}
}

// parted is told that the clocks have parted: the machine slept, or its clock was set.
// What is known of servers is old, or about another network, and credentials may have
// ended, or seemed to; so all of it is looked at now.
func (p *Pool) parted(by time.Duration) {
	p.result(func(now instant) {
		p.cfg.Logger.Info("the clock was set, or the machine slept", "by", by)
		for _, m := range p.loop.members {
			m.renewal.jumped(now)
			m.began = time.Time{} // a probe is due
		}
	})
}

// leave is the end of the loop: the probes and fetches are told by p.ctx.
func (p *Pool) leave() {
	for _, m := range slices.Clone(p.loop.members) {
		p.vanished(m)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.view.relays = nil
	p.view.urls = nil
	close(p.view.changed)
	p.view.changed = nil
}

// hear takes the doubts.
func (p *Pool) hear() {
	p.mu.Lock()
	doubts := p.doubts
	p.doubts = map[string]struct{}{}
	p.mu.Unlock()
	for _, m := range p.loop.members {
		if _, yes := doubts[m.address.url]; yes {
			m.doubted = true
		}
	}
}

// expire notes that the credential of m has ended.
func (p *Pool) expire(now instant, m *member) {
	if m.ended == m.renewal.version || m.renewal.usable(now) {
		return // there is none in the beginning, either
	}
	if due, _ := m.renewal.isDue(now); (due || m.fetching) && m.renewal.failures == 0 {
		return // as after a sleep: the next one may be here in a moment
	}
	m.ended = m.renewal.version
	if m.cancel != nil {
		m.cancel(ErrExpired) // its verdict would be about the past
	}
	p.failed(now, m, &ProbeError{URL: m.URL, Kind: ErrExpired}, true)
}

// start begins what is due for m and returns when something will be, by the monotonic
// clock; zero if only a result can tell.
func (p *Pool) start(now instant, m *member, alone bool) (next time.Time) {
	soon := func(t time.Time) { next = earlier(next, t) }
	if due, in := m.renewal.isDue(now); !m.fetching && due {
		p.fetch(m)
	} else if !m.fetching && in > 0 {
		soon(now.mono.Add(in))
	}
	if !m.renewal.usable(now) {
		m.doubted = false // it is known to be of no use
		return next
	}
	if left := m.renewal.left(now); left > 0 {
		soon(now.mono.Add(left))
	}
	if m.doubted {
		at := m.asked.Add(doubtPause)
		if m.hold.After(at) {
			at = m.hold
		}
		switch {
		case m.cancel != nil && m.breaker.health != Healthy:
			m.doubted = false // that probe has no credit, either
		case at.After(now.mono):
			soon(at)
		case m.cancel == nil:
			m.doubted, m.asked = false, now.mono
			p.probe(now.mono, m, alone, true)
		case !m.urgent:
			m.cancel(errDoubted)
		}
	}
	if m.cancel != nil {
		return next
	}
	if at := m.due(p.cfg.ProbeEvery, alone); at.After(now.mono) {
		soon(at)
	} else {
		p.probe(now.mono, m, alone, false)
	}
	return next
}

// due is when the next probe of m begins.
func (m *member) due(every time.Duration, alone bool) time.Time {
	if m.hold.After(m.began) {
		return m.hold
	}
	if m.began.IsZero() || m.probed != m.renewal.version {
		return m.began // never, or never with this credential
	}
	return m.began.Add(spreadBy(m.breaker.pause(every, alone, refusesCredential(m.err)), m.spread))
}

// refusesCredential reports whether it would take another credential.
func refusesCredential(err error) bool {
	return errors.Is(err, ErrCredentials) || errors.Is(err, ErrExpired)
}

// pace is how a probe of m goes about it.
func (m *member) pace(timeout time.Duration, alone, urgent bool) pace {
	usual := max(patience, patienceFactor*m.latency)
	p := pace{min(max(m.latency*3/2, leastResend), maxResend), usual, usual}
	switch {
	case m.breaker.health == Unhealthy && alone:
		// The half, so that an answer at its end finds time for the rest.
		p = pace{spreadBy(knockPause, m.spread), timeout / 2, timeout / 2}
	case m.latency == 0:
		p.resend = firstResend
	case urgent:
		// More than the round trip asks for, so that one of them comes through
		// in the time.
		p.resend, p.patience = doubtResend, max(doubtPatience, patienceFactor*m.latency)
	}
	if !m.datagram {
		p.patience = max(p.patience, streamPatience)
	}
	return p
}

// probe begins a probe of m.
func (p *Pool) probe(now time.Time, m *member, alone, urgent bool) {
	ctx, cancel := context.WithCancelCause(p.ctx)
	m.cancel, m.urgent = cancel, urgent
	m.began, m.spread = now, 2*rand.Float64()-1
	m.probed = m.renewal.version
	r, pace := m.relay(), m.pace(p.cfg.ProbeTimeout, alone, urgent)
	p.wg.Go(func() {
		defer cancel(nil)
		bounded, end := context.WithTimeout(ctx, p.cfg.ProbeTimeout)
		defer end()
		at, latency, err := p.prober.run(bounded, m.address, r, pace)
		gone := context.Cause(ctx) != nil
		p.result(func(now instant) {
			m.cancel = nil
			if !gone && !m.removed {
				r.Address = at
				p.judge(now, m, r, latency, err, urgent)
			}
		})
	})
}

// result hands what a goroutine found to the loop.
func (p *Pool) result(f func(now instant)) {
	select {
	case p.loop.results <- f:
	case <-p.ctx.Done():
	}
}

// judge takes the verdict of a probe of m with the credential of r, which if it passed
// it did at the address of r.
func (p *Pool) judge(now instant, m *member, r Relay, latency time.Duration, err error, urgent bool) {
	if !m.renewal.usable(now) {
		return // its end came first, and the verdict is about the past
	}
	if isShortage(err) {
		m.err, m.hold, m.doubted = err, now.mono.Add(retryPause), urgent
		p.cfg.Logger.Warn("no probe of a TURN server could be made", "server", m.URL, "error", err)
		return
	}
	if err == nil {
		m.renewal.accepted()
		p.passed(now, m, r.Address, latency)
		return
	}
	if refusesCredential(err) {
		if c := m.renewal.cred; c.Username != r.Username || c.Password != r.Password {
			return // there is another by now
		}
		m.renewal.refused(now, 2*rand.Float64()-1)
	}
	// A server without room for another allocation is alive; and a probe may itself
	// fill a small quota for a moment.
	p.failed(now, m, err, urgent && !errors.Is(err, ErrQuota))
}

// fetch asks for the credential of m.
func (p *Pool) fetch(m *member) {
	m.fetching = true
	p.wg.Go(func() {
		ctx, cancel := context.WithTimeout(p.ctx, fetchTimeout)
		defer cancel()
		c, err := m.Credentials(ctx)
		if err == nil {
			err = c.validate(p.cfg.Time())
		}
		p.result(func(now instant) {
			m.fetching = false
			if !m.removed {
				p.fetched(now, m, c, err)
			}
		})
	})
}

// fetched takes the answer.
func (p *Pool) fetched(now instant, m *member, c Credential, err error) {
	spread := 2*rand.Float64() - 1
	if err == nil {
		m.renewal.got(now, c, spread)
		return
	}
	m.renewal.failed(now, spread)
	p.cfg.Logger.Warn("no credential for a TURN server", "server", m.URL, "error", err)
	if !m.renewal.usable(now) {
		p.failed(now, m, &ProbeError{URL: m.URL, Kind: ErrNoCredential, Err: err}, true)
	}
}

// relay is the way that m is, with its present credential.
func (m *member) relay() Relay {
	c := m.renewal.cred
	return Relay{URL: m.URL, Address: m.at, Username: c.Username, Password: c.Password, Expires: c.Expires,
		Down: m.breaker.health == Unhealthy, TLS: m.TLS}
}
