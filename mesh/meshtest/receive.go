package meshtest

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/infrafabric/agentmesh/mesh"
)

// take receives everything that others send to the process.
func (b *books) take(p *process) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.accepts || p.agent.answers {
		return
	}
	p.accepts = true
	p.work.Go(func() {
		for {
			peer, err := p.node.Accept(p.ctx)
			if err != nil {
				if p.ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
					b.problem("%s accepts: %v", p.agent.name, err)
				}
				return
			}
			b.adopt(p, peer)
		}
	})
}

// adopted is a Peer whose messages are taken.
type adopted struct {
	number int           // among the process's Peers for the same agent
	left   chan struct{} // closed when all of them are
}

// adopt receives from one Peer until it closes. It returns the Peer's number.
func (b *books) adopt(p *process, peer *mesh.Peer) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a := p.adopted[peer]; a != nil {
		return a.number
	}
	before := p.latest[peer.ID()]
	a := &adopted{number: 1, left: make(chan struct{})}
	if before != nil {
		a.number = before.number + 1
	}
	p.adopted[peer], p.latest[peer.ID()] = a, a
	p.work.Go(func() {
		defer close(a.left)
		if before != nil {
			// What the one before had received is the application's first.
			select {
			case <-before.left:
			case <-p.ctx.Done():
			}
		}
		if p.agent.answers {
			select {
			case <-peer.Context().Done():
				b.ended(p, peer, context.Cause(peer.Context()))
			case <-p.ctx.Done():
			}
			return
		}
		for {
			m, err := peer.Receive(p.ctx)
			if err != nil {
				b.ended(p, peer, err)
				return
			}
			b.arrived(p, m)
			p.linger()
		}
	})
	return a.number
}

// ended enters that a Peer gives nothing more. It stays among the adopted ones, for its
// number, as a process has few.
func (b *books) ended(p *process, peer *mesh.Peer, why error) {
	if p.ctx.Err() != nil {
		return
	}
	if !b.mayEnd(p.agent.name, peer.ID()) {
		b.problem("%s → %s ended: %v", p.agent.name, peer.ID(), why)
	}
	b.end(p, peer)
}

// peers returns the Peers that have not ended.
func (p *process) peers() (live []*mesh.Peer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for peer := range p.adopted {
		if peer.Context().Err() == nil {
			live = append(live, peer)
		}
	}
	return live
}

// linger is the time that the application takes for a message.
func (p *process) linger() {
	d := time.Duration(p.agent.load.lingers.Load())
	if d == 0 {
		return
	}
	select {
	case <-time.After(d):
	case <-p.ctx.Done():
	}
}

// handle is the Handler of an agent that answers: it takes the message and answers it,
// if it is a request, before it returns.
func (p *process) handle(ctx context.Context, peer *mesh.Peer, m mesh.Message) {
	select {
	case <-p.ready:
	case <-ctx.Done():
		// What was handed over counts, also when the Peer has ended meanwhile.
		select {
		case <-p.ready:
		default:
			return // there may never be a process
		}
	}
	b := &p.agent.u.books
	b.arrived(p, m)
	number := b.adopt(p, peer)
	p.linger()
	if m.Performative != "request" {
		return
	}
	key := streamKey{from: p.agent.name, incarnation: p.incarnation, peer: number, to: peer.ID(), answer: true}
	if err := b.post(ctx, p, peer, key); err != nil && ctx.Err() == nil && p.ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
		b.problem("%v: %v", key, err)
	}
}
