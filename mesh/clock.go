package mesh

import (
	"time"

	"github.com/infrafabric/agentmesh/internal/wallclock"
	"github.com/infrafabric/agentmesh/signaling"
)

// Two clocks: Config.Time is the world's, by which envelopes, certificates,
// credentials and generations are dated. Everything that lasts (liveness, waits,
// limits of rates) goes by this process's, which time.Now has beside, and which nobody
// sets.

// now is the time of the world.
func (n *Node) now() time.Time { return n.cfg.Time() }

// generation is the least of a new session: sessions are numbered by the time of the
// world, so that those of a process that remembers nothing rank above those of the one
// before.
func (n *Node) generation() uint64 { return uint64(n.now().UnixMilli()) }

// furthest is the highest generation that may be used or taken now: one far ahead of
// the clock could not be exceeded. Clocks that were ahead, and were set right, have
// left generations ahead of them in sessions of which both sides know.
func furthest(now time.Time, agreed uint64) uint64 {
	const slack = uint64(2 * freshness / time.Millisecond)
	return max(uint64(now.UnixMilli()), agreed) + slack
}

// ahead reports whether an envelope's generation is too far ahead.
func (n *Node) ahead(e *signaling.Sealed, now time.Time) bool {
	agreed := uint64(0)
	if p := n.lookup(e.From); p != nil {
		agreed = p.agreed.Load()
	}
	return e.Generation > furthest(now, agreed)
}

// lastKnown is the highest generation that the next one has to exceed. One from a
// time when this machine's clock was ahead is forgotten unless a session has it:
// nobody took it, and nobody would take a higher one.
func (p *Peer) lastKnown() uint64 {
	agreed := p.agreed.Load()
	if p.lastGen > furthest(p.node.now(), agreed) {
		p.lastGen = agreed
	}
	return p.lastGen
}

// watchClock waits for the clocks of the world and of this process to part.
func (n *Node) watchClock() { wallclock.Watch(n.ctx, n.now, clockLook, n.clocksParted) }

// clocksParted does what is due when the machine has slept or its clock was set. What
// waits for a time of the world waits too long, or not long enough, and after a sleep
// nothing that was open need lead anywhere.
func (n *Node) clocksParted(by time.Duration) {
	n.log.Info("the clock was set, or the machine slept", "by", by)
	n.signaler.Probe()
	for _, p := range n.allPeers() {
		p.post(func() { p.clocksParted(by) })
	}
}

// clocksParted looks at once whether the other side is there, and begins anew what is
// under way without a session: its envelopes bear the wrong time.
func (p *Peer) clocksParted(by time.Duration) {
	p.checkRelay(time.Now())
	top := p.top()
	if top == nil {
		p.do(p.machine.wants(ReasonNetwork, p.busy()))
		return
	}
	if top.doubted.Load() {
		p.machine.hinted = time.Time{}
		p.do(p.machine.news(time.Now(), p.busy()))
		return
	}
	asked := time.Now()
	wait := p.promotionTime()
	if top.conn.Queued() > maxFrame {
		wait += echoInterval // more than questions: this one does not leave at once
	}
	if err := top.ping(); err != nil {
		p.node.log.Debug("echo", "peer", p.id, "error", err) // its reader will see
	}
	p.work.Go(func() {
		if sleepUntil(p.ctx, asked.Add(wait)) != nil {
			return
		}
		p.post(func() {
			if top == p.top() && !top.doubted.Load() && top.answered().Before(asked) {
				p.suspect(top, ReasonSilence)
			}
		})
	})
}
