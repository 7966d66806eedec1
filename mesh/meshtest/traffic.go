package meshtest

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"strings"
	"time"

	"github.com/infrafabric/agentmesh/mesh"
)

// flow is traffic from one agent to another, across all of their processes.
type flow struct {
	from, to string
	every    time.Duration
	burst    int
}

// Traffic makes an agent send burst messages to another every so often, from now
// on until Settle, in each of its processes. What the two receive is taken and
// checked: a test does not call Accept or Receive on agents with traffic. An agent of
// Config.Answers answers each message. There is one traffic from one agent to another.
func (u *Universe) Traffic(from, to string, every time.Duration, burst int) {
	if u.agents[from] == nil || u.agents[to] == nil || from == to || every <= 0 || burst <= 0 {
		u.fatal("traffic from %q to %q every %v, %d messages", from, to, every, burst)
	}
	f := flow{from, to, every, burst}
	b := &u.books
	b.mu.Lock()
	b.flows = append(b.flows, f)
	b.mu.Unlock()
	for _, name := range []string{from, to} {
		if p := u.agents[name].process; p != nil {
			b.take(p)
		}
	}
	if p := u.agents[from].process; p != nil {
		p.work.Go(func() { b.send(p, f) })
	}
}

// run starts what a new process has to do.
func (b *books) run(p *process) {
	b.mu.Lock()
	b.processes = append(b.processes, p)
	flows := b.flows
	b.mu.Unlock()
	for _, f := range flows {
		if f.from == p.agent.name || f.to == p.agent.name {
			b.take(p)
		}
		if f.from == p.agent.name {
			p.work.Go(func() { b.send(p, f) })
		}
	}
}

// send is a flow in one process of its sender.
func (b *books) send(p *process, f flow) {
	b.mu.Lock()
	if b.stopped {
		b.mu.Unlock()
		return
	}
	done := make(chan struct{})
	b.runs[runKey{f.from, p.incarnation, f.to}] = done
	b.mu.Unlock()
	defer close(done)
	for {
		peer, err := p.node.Dial(p.ctx, f.to)
		if err != nil {
			if p.ctx.Err() == nil {
				b.problem("%v", err)
			}
			return
		}
		if !b.converse(p, peer, f) {
			return
		}
	}
}

// converse sends over one Peer and reports whether another is to be dialled, because
// that one ended and may.
func (b *books) converse(p *process, peer *mesh.Peer, f flow) (again bool) {
	key := streamKey{from: f.from, incarnation: p.incarnation, peer: b.adopt(p, peer), to: f.to}
	tick := time.NewTicker(f.every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-b.quiet:
			b.flush(p.ctx, p, peer)
			return false
		case <-peer.Context().Done():
			b.end(p, peer)
			return p.ctx.Err() == nil && b.mayEnd(f.from, f.to)
		case <-p.ctx.Done():
			return false
		}
		for range f.burst {
			err := b.post(p.ctx, p, peer, key)
			switch {
			case err == nil:
				continue
			case errors.Is(err, net.ErrClosed) && p.ctx.Err() == nil && b.mayEnd(f.from, f.to):
				b.end(p, peer)
				return true
			case p.ctx.Err() == nil:
				b.problem("%v: %v", key, err)
			}
			return false
		}
	}
}

// doubt is a Peer that will say, when it is closed, what did not arrive or may not have.
type doubt struct {
	p    *process
	peer *mesh.Peer
}

// confess closes the Peers in doubt.
func (b *books) confess() {
	b.mu.Lock()
	doubts := b.doubts
	b.doubts = nil
	b.mu.Unlock()
	for _, d := range doubts {
		b.allow(d.p.agent.name, d.peer.ID())
		b.end(d.p, d.peer)
	}
}

// flush waits until what was sent over a Peer is delivered, but for what is in doubt.
func (b *books) flush(ctx context.Context, p *process, peer *mesh.Peer) {
	switch err := peer.Flush(ctx); {
	case err == nil || ctx.Err() != nil || p.ctx.Err() != nil:
	case errors.Is(err, mesh.ErrOutcomeUnknown), errors.Is(err, mesh.ErrTooLarge):
		b.mu.Lock()
		defer b.mu.Unlock()
		b.doubts = append(b.doubts, doubt{p, peer})
	case errors.Is(err, net.ErrClosed) && b.mayEnd(p.agent.name, peer.ID()):
		b.end(p, peer)
	default:
		b.problem("%s → %s: %v", p.agent.name, peer.ID(), err)
	}
}

// end closes a Peer, if it is not closed yet, and enters what it reports.
func (b *books) end(p *process, peer *mesh.Peer) {
	err := peer.Close()
	var lost *mesh.UndeliveredError
	switch {
	case errors.As(err, &lost):
		b.reported(lost.IDs)
	case err != nil && p.ctx.Err() == nil:
		b.problem("%s closes %s: %v", p.agent.name, peer.ID(), err)
	}
}

// post sends the next message of a stream. What is too large it sends again without
// its weight.
func (b *books) post(ctx context.Context, p *process, peer *mesh.Peer, key streamKey) error {
	m := mesh.Message{ID: b.next(key), Performative: "inform", Payload: payload(int(p.agent.load.weight.Load()))}
	if key.answer {
		m.Performative = "agree"
	} else if p.agent.u.agents[key.to].answers {
		m.Performative = "request"
	}
	err := peer.Send(ctx, m)
	if errors.Is(err, mesh.ErrTooLarge) && len(m.Payload) > len(light) {
		b.refused()
		m.Payload = light
		err = peer.Send(ctx, m)
	}
	if err != nil {
		return err
	}
	b.sent(key, len(m.Payload))
	return nil
}

// light is the payload of a message without weight.
var light = json.RawMessage(`{"traffic":true}`)

func payload(weight int) json.RawMessage {
	if weight == 0 {
		return light
	}
	return json.RawMessage(`{"traffic":true,"weight":"` + strings.Repeat("x", weight) + `"}`)
}
