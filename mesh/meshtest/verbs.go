package meshtest

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/infrafabric/agentmesh/internal/virtual"
)

// cut is one partition: nothing passes from one group to the other.
type cut struct {
	from, to []string
	oneWay   bool
}

// known reports whether a host of that name exists.
func (u *Universe) known(name string) bool {
	return u.agents[name] != nil || u.servers[name] != nil || u.relays[name] != nil
}

func (u *Universe) check(verb string, names ...string) {
	for _, n := range names {
		if !u.known(n) {
			u.fatal("%s: there is no %q", verb, n)
		}
	}
}

// Kill ends an agent, a server or a relay at once, without a goodbye. Killing
// what is dead does nothing.
func (u *Universe) Kill(name string) {
	u.check("kill", name)
	u.Note("kill %s", name)
	switch {
	case u.agents[name] != nil:
		u.agents[name].kill()
	case u.servers[name] != nil:
		u.servers[name].kill()
	default:
		u.relays[name].kill()
	}
}

// Restart starts what was killed: an agent as a new process with the same
// identity. It returns when that is registered with a server; without one, after
// ten seconds, the process gives up, and the agent stays dead. What runs is left
// alone.
func (u *Universe) Restart(name string) {
	u.check("restart", name)
	u.Note("restart %s", name)
	switch {
	case u.agents[name] != nil:
		u.agents[name].restart()
	case u.servers[name] != nil:
		if s := u.servers[name]; s.running == nil {
			u.pipes.Resume(s.addr())
			s.start()
		}
	default:
		u.relays[name].restart()
	}
}

// Stop makes an agent, a server or a relay hang.
func (u *Universe) Stop(name string) {
	u.check("stop", name)
	u.Note("stop %s", name)
	switch {
	case u.agents[name] != nil:
		u.agents[name].stop()
	case u.servers[name] != nil:
		u.pipes.Stall(u.servers[name].addr())
	default:
		u.relays[name].running.Hang()
	}
}

// Continue makes what was stopped go on.
func (u *Universe) Continue(name string) {
	u.check("continue", name)
	u.Note("continue %s", name)
	switch {
	case u.agents[name] != nil:
		u.agents[name].proceed()
	case u.servers[name] != nil:
		u.pipes.Resume(u.servers[name].addr())
	default:
		u.relays[name].running.Resume()
	}
}

// Partition lets nothing pass between two groups of agents, servers and relays,
// in addition to the partitions there are. Servers and relays in one group with an
// agent are those that it can still use.
func (u *Universe) Partition(one, other []string) {
	u.check("partition", slices.Concat(one, other)...)
	u.Note("partition %s | %s", strings.Join(one, " "), strings.Join(other, " "))
	u.cuts = append(u.cuts, cut{from: one, to: other})
	u.separate()
}

// OneWay drops the datagrams from one agent or relay to another; those in the
// other direction pass.
func (u *Universe) OneWay(from, to string) {
	u.check("one-way partition", from, to)
	u.Note("one-way partition %s → %s", from, to)
	u.cuts = append(u.cuts, cut{from: []string{from}, to: []string{to}, oneWay: true})
	u.separate()
}

// Heal ends every partition.
func (u *Universe) Heal() {
	u.Note("heal")
	u.cuts = nil
	u.separate()
}

// separate makes the networks what the cuts and the stopped agents say.
func (u *Universe) separate() {
	apart := map[[2]string]bool{}
	for _, c := range u.cuts {
		for _, x := range c.from {
			for _, y := range c.to {
				apart[[2]string{x, y}] = true
				if !c.oneWay {
					apart[[2]string{y, x}] = true
				}
			}
		}
	}
	hosts := map[string]*virtual.Host{}
	for name, a := range u.agents {
		hosts[name] = a.host
	}
	for name, r := range u.relays {
		hosts[name] = r.running.Host()
	}
	for x, hx := range hosts {
		for y, hy := range hosts {
			switch {
			case x == y:
			case apart[[2]string{x, y}]:
				u.net.Block(hx, hy)
			default:
				u.net.Unblock(hx, hy)
			}
		}
	}
	for name, a := range u.agents {
		if a.process == nil {
			continue // nothing of it gets out
		}
		for _, s := range u.servers {
			if a.stopped || apart[[2]string{name, s.name}] || apart[[2]string{s.name, name}] {
				a.pipes.Stall(s.addr())
			} else {
				a.pipes.Resume(s.addr())
			}
		}
	}
}

// Move gives an agent's machine another address and tells its process. What was
// open at the old address is dead: datagrams and streams go nowhere.
func (u *Universe) Move(name string) {
	u.move("move", name)
	select {
	case u.agents[name].moved <- struct{}{}:
	default:
	}
}

// MoveUnseen is Move without telling the process.
func (u *Universe) MoveUnseen(name string) { u.move("move unseen", name) }

func (u *Universe) move(verb, name string) {
	a := u.agents[name]
	if a == nil {
		u.fatal("%s: there is no agent %q", verb, name)
	}
	if err := a.host.Move(); err != nil {
		u.fatal("%s %s: %v", verb, name, err)
	}
	u.Note("%s %s to %s", verb, name, a.host.Addr())
	a.pipes.Abandon()
}

// Slow adds to the time that a host's datagrams, and an agent's streams, take in
// each direction; 0 ends it.
func (u *Universe) Slow(name string, extra time.Duration) {
	u.check("slow", name)
	u.Note("slow %s by %v each way", name, extra)
	switch {
	case u.agents[name] != nil:
		u.agents[name].extra = extra
		u.agents[name].host.SetDelay(extra)
		u.agents[name].pipes.SetDelay(extra)
	case u.relays[name] != nil:
		u.relays[name].extra = extra
		u.relays[name].running.Host().SetDelay(extra)
	default:
		u.fatal("slow: %s is a server; slow its agents", name)
	}
}

// Lose drops so many in a hundred of a host's datagrams, in each direction; 0 ends
// it.
func (u *Universe) Lose(name string, percent int) {
	u.t.Helper()
	h := u.host("lose", name)
	u.Note("lose %d %% at %s", percent, name)
	u.must("lose", h.SetLoss(percent, u.seed()))
}

// Replace makes an agent replace its session with another agent, if it has one,
// and does not wait for the outcome, which the timeline tells.
func (u *Universe) Replace(name, peer string) {
	a := u.agents[name]
	if a == nil {
		u.fatal("replace: there is no agent %q", name)
	}
	u.Note("replace %s → %s", name, peer)
	if a.process == nil {
		return
	}
	p := a.process
	for _, peerOf := range p.peers() {
		if peerOf.ID() == peer {
			p.work.Go(func() {
				ctx, cancel := context.WithTimeout(p.ctx, time.Minute)
				defer cancel()
				if err := peerOf.Replace(ctx); err != nil && p.ctx.Err() == nil {
					u.Note("  %s → %s: not replaced: %v", name, peer, err)
				}
			})
		}
	}
}

// HangUp makes an agent close its Peer for another agent, if it has one, and does not
// wait for the outcome. From then on Peers of the two may end; traffic dials again when
// they do, and what they report counts as Reported.
func (u *Universe) HangUp(name, peer string) {
	u.t.Helper()
	a := u.agent("hang up", name)
	u.Note("hang up %s → %s", name, peer)
	u.books.allow(name, peer)
	if a.process == nil {
		return
	}
	p := a.process
	for _, peerOf := range p.peers() {
		if peerOf.ID() == peer {
			p.work.Go(func() { u.books.end(p, peerOf) })
		}
	}
}

// Mend ends everything that the other verbs began: the dead are restarted, the
// stopped go on, everybody reaches everybody at the usual speed.
func (u *Universe) Mend() {
	u.Note("mend")
	u.cuts = nil
	for i := range len(u.servers) {
		s := u.servers[serverName(i)]
		u.pipes.Resume(s.addr())
		s.muddle.set(0, 0)
		if s.running == nil {
			s.start()
		}
	}
	for _, r := range u.ordered {
		r.restart()
		r.running.Resume()
		r.extra = 0
	}
	u.mendWire()
	for _, name := range u.names {
		a := u.agents[name]
		a.extra = 0
		a.pipes.SetDelay(0)
		a.load.ease()
		a.setClock(0)
		if a.process == nil {
			a.restart()
		} else {
			a.proceed()
		}
	}
}
