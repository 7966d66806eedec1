package mesh

import (
	"context"
	"errors"
	"fmt"
	"net"

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
// closed Node; *keys.NameError for an invalid ID. When time ran out and somebody
// had answered with a key that trust does not accept, it matches ErrUntrusted and
// what the policy said as well, such as *keys.KeyChangedError.
func (n *Node) Dial(ctx context.Context, id string) (*Peer, error) {
	p, err := n.dial(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("mesh: %w", err)
	}
	return p, nil
}

func (n *Node) dial(ctx context.Context, id string) (*Peer, error) {
	if err := keys.CheckAgentID(id); err != nil {
		return nil, &DialError{Peer: id, Err: err}
	}
	if id == n.cfg.Identity.ID() {
		return nil, &DialError{Peer: id, Err: ErrSelf}
	}
	for {
		if err := ctx.Err(); err != nil {
			return nil, &DialError{Peer: id, Err: contextError(ctx)}
		}
		m, err := n.want(id)
		if err != nil {
			return nil, &DialError{Peer: id, Err: err}
		}
		p, again, err := n.await(ctx, m)
		if !again {
			return p, err
		}
		// The Peer was closing, or ended for a reason of its own: wait until
		// it is gone and start afresh.
		select {
		case <-m.peer.ended:
		case <-ctx.Done():
			return nil, &DialError{Peer: id, Tried: m.peer.history(), Err: contextError(ctx)}
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
func (n *Node) await(ctx context.Context, m *member) (p *Peer, again bool, err error) {
	p = m.peer
	p.post(p.dial)
	select {
	case <-p.up:
	case <-p.ctx.Done():
	case <-ctx.Done():
	}
	n.mu.Lock()
	m.waiters--
	last := m.waiters == 0
	connected, abandoned := m.connected, m.abandoned
	if last && !connected && p.ctx.Err() == nil {
		m.abandoned = true
	}
	n.mu.Unlock()

	cause := context.Cause(p.ctx)
	switch {
	case connected && cause == nil:
		return p, false, nil
	case connected || abandoned || errors.Is(cause, errIncomingFailed):
		return nil, true, nil
	case cause != nil:
		return nil, false, &DialError{Peer: p.id, Tried: p.history(), Err: cause}
	}
	if last {
		// Its attempts say what they tried when they end.
		p.shut(goodbyeClosed, errAbandoned)
		<-p.ended
	}
	return nil, false, &DialError{Peer: p.id, Tried: p.history(), Err: p.because(contextError(ctx))}
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
