package mesh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/infrafabric/agentmesh/keys"
)

// Dial connects to another agent and returns its Peer, verified. Concurrent
// dials to one agent share one Peer, as do a dial and the other side's; a Peer
// that exists is returned at once, and tries to connect again at once if it is out
// of reach. ctx bounds the call, not the Peer's life.
//
// An agent that is not there yet is waited for until ctx ends: without a
// deadline, Dial waits for ever. A refusal ends the wait.
//
// Errors: *DialError, which says what was tried and matches the context's
// error, ErrSelf, ErrRefused, ErrReplaced, ErrTooMany, or net.ErrClosed on a
// closed Node; ErrUntrusted when the policy is to remember the other side's key and
// cannot; *keys.NameError for an invalid ID. When time ran out and somebody
// had answered with a key that trust does not accept, it matches ErrUntrusted and
// what the policy said as well, such as *keys.KeyChangedError; when the other side had
// said why it does not answer, an error for that, such as *ClockError; and ErrNarrowPath
// when there was a path that does not carry full packets. The log says after two seconds,
// and then now and then, what a Dial waits for.
func (n *Node) Dial(ctx context.Context, id string) (*Peer, error) {
	p, err := n.dial(ctx, id, false)
	if err != nil {
		return nil, fmt.Errorf("mesh: %w", err)
	}
	return p, nil
}

// TryDial is Dial for callers that do not wait for an agent to appear: it fails as soon
// as the first attempt has. Its errors are those of Dial; besides, the *DialError matches
//
//   - ErrUntrusted at once when the trust policy lists the keys it accepts, and has none
//     for that name, or when somebody answers with another key (*keys.KeyChangedError has
//     both);
//   - ErrAbsent when nobody is registered under the name;
//   - otherwise what made the attempt fail, within some ten seconds.
//
// A Dial of the same agent that waits meanwhile goes on.
func (n *Node) TryDial(ctx context.Context, id string) (*Peer, error) {
	p, err := n.dial(ctx, id, true)
	if err != nil {
		return nil, fmt.Errorf("mesh: %w", err)
	}
	return p, nil
}

// unlisted returns an error when trust can list the keys that it accepts and has none for
// an agent.
func (n *Node) unlisted(ctx context.Context, id string) error {
	if keys.Learns(n.cfg.Trust) || !keys.Lists(n.cfg.Trust) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, trustTimeout)
	defer cancel()
	found, err := keys.Find(ctx, n.cfg.Trust, id)
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("%w: this agent's trust policy lists no key of %s", ErrUntrusted, id)
	}
	return err
}

func (n *Node) dial(ctx context.Context, id string, once bool) (*Peer, error) {
	if err := keys.CheckAgentID(id); err != nil {
		return nil, &DialError{Peer: id, Err: err}
	}
	if id == n.cfg.Identity.ID() {
		return nil, &DialError{Peer: id, Err: ErrSelf}
	}
	if once && ctx.Err() == nil {
		if err := n.unlisted(ctx, id); err != nil {
			return nil, &DialError{Peer: id, Err: err}
		}
	}
	for {
		if err := ctx.Err(); err != nil {
			return nil, &DialError{Peer: id, Err: contextError(ctx)}
		}
		m, err := n.want(id)
		if err != nil {
			return nil, &DialError{Peer: id, Err: err}
		}
		p, again, err := n.await(ctx, m, once)
		if !again {
			return p, err
		}
		// The Peer was closing, or ended for a reason of its own: wait until
		// it is gone and start afresh.
		select {
		case <-m.peer.ended:
		case <-ctx.Done():
			return nil, m.peer.dialError(contextError(ctx))
		}
	}
}

// want finds or makes the Peer and counts the caller as waiting for it.
func (n *Node) want(id string) (*member, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, net.ErrClosed
	}
	if l := n.ledgers.lookup(id); l != nil && l.isReplaced() {
		return nil, ErrReplaced
	}
	m := n.peers[id]
	if m == nil {
		if len(n.peers) >= maxPeers {
			n.makeRoom()
			return nil, ErrTooMany
		}
		m = n.join(id, true)
	}
	if !m.dialled {
		m.dialled = true
		if !m.connected {
			n.incoming--
		}
	}
	m.waiters++
	return m, nil
}

// await waits until the Peer is connected. again is true when the Peer ended
// for a reason that says nothing about a new attempt.
func (n *Node) await(ctx context.Context, m *member, once bool) (_ *Peer, again bool, _ error) {
	p := m.peer
	missed := make(chan error, 1)
	p.post(func() {
		if once {
			p.missing = append(p.missing, missed)
		}
		p.dial()
	})
	err := p.wait(ctx, missed)
	n.mu.Lock()
	m.waiters--
	last := m.waiters == 0
	connected, abandoned := m.connected, m.abandoned
	n.mu.Unlock()

	cause := context.Cause(p.ctx)
	switch {
	case connected && cause == nil:
		return p, false, nil
	case connected || abandoned || errors.Is(cause, errIncomingFailed):
		return nil, true, nil
	case cause != nil:
		return nil, false, p.dialError(cause)
	}
	if last {
		p.giveUpDial()
	}
	return nil, false, p.dialError(p.because(err))
}

// wait blocks until the Peer is up or has ended, or returns why it is not waited for any
// longer. It tells what it waits for.
func (p *Peer) wait(ctx context.Context, missed <-chan error) error {
	began := time.Now()
	told := time.NewTimer(dialTold)
	defer told.Stop()
	for {
		select {
		case <-p.up:
			return nil
		case <-p.ctx.Done():
			return nil
		case <-ctx.Done():
			return contextError(ctx)
		case err := <-missed:
			return err
		case <-told.C:
			told.Reset(dialToldAgain)
			waited := time.Since(began).Round(time.Second)
			p.post(func() {
				p.node.log.Warn("a dial waits", "peer", p.id, "waited", waited, "because", p.latest())
			})
		}
	}
}

// latest says how the newest attempt went, or goes.
func (p *Peer) latest() string {
	if tried := p.history(); len(tried) > 0 {
		return tried[len(tried)-1]
	}
	return "nothing has come back yet"
}

// miss ends the calls of TryDial.
func (p *Peer) miss(err error) {
	for _, c := range p.missing {
		c <- err
	}
	p.missing = nil
}

// giveUpDial ends what was begun for dials that have all given up. It waits a moment for
// the attempts to say what they tried: an agent whose key service or name server hangs
// is not waited for.
func (p *Peer) giveUpDial() {
	var own []*attempt
	done := make(chan struct{})
	enough := time.NewTimer(storyWait)
	defer enough.Stop()
	if !p.post(func() { own = p.undial(); close(done) }) {
		return
	}
	select {
	case <-done:
	case <-p.ended:
		return
	case <-enough.C:
		return
	}
	for _, a := range own {
		select {
		case <-a.told:
		case <-enough.C:
			return
		}
	}
}

// undial gives the Peer's own attempts up when nobody waits for them any more, and
// returns them. What the other side has begun is its own: that goes on.
func (p *Peer) undial() (own []*attempt) {
	n := p.node
	theirs := p.deferred != nil || slices.ContainsFunc(p.attempts, func(a *attempt) bool { return a.answers != nil })
	n.mu.Lock()
	m := n.peers[p.id]
	if m == nil || m.peer != p || m.waiters > 0 || m.connected || p.ctx.Err() != nil {
		n.mu.Unlock()
		return nil
	}
	stays := theirs && n.incoming < maxIncoming
	if stays {
		m.dialled = false
		n.incoming++
	} else {
		m.abandoned = true
	}
	n.mu.Unlock()
	for _, a := range p.attempts {
		if a.answers == nil || !stays {
			own = append(own, a)
		}
	}
	if !stays {
		p.shut(goodbyeClosed, errAbandoned)
		return own
	}
	p.machine.undial()
	p.attempts = slices.DeleteFunc(p.attempts, func(a *attempt) bool {
		mine := a.answers == nil && !a.opened.Load()
		if mine {
			a.cancel(errAbandoned)
			p.withdraw(a)
		}
		return mine
	})
	p.answerDeferred()
	return own
}

// Dial is Listen and Node.Dial in one: the Node belongs to the Peer, and
// closing the Peer closes it. ctx bounds the call. A Config with a Handler
// serves this Peer and whoever dials the Node meanwhile.
func Dial(ctx context.Context, id string, cfg Config) (*Peer, error) {
	n, err := Listen(ctx, cfg)
	if err != nil {
		return nil, err
	}
	p, err := n.Dial(ctx, id)
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	p.owns.Store(true)
	return p, nil
}
