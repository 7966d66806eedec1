package meshtest

import (
	"time"

	"github.com/infrafabric/agentmesh/internal/virtual"
)

// host returns the machine of an agent or a relay. Servers speak by streams only, which
// lose nothing.
func (u *Universe) host(verb, name string) *virtual.Host {
	u.t.Helper()
	switch {
	case u.agents[name] != nil:
		return u.agents[name].host
	case u.relays[name] != nil:
		return u.relays[name].running.Host()
	}
	u.fatal("%s: there is no agent or relay %q", verb, name)
	return nil
}

// path is one direction between two hosts.
type path struct{ from, to string }

// must fails the test when a verb was given what it cannot do.
func (u *Universe) must(verb string, err error) {
	u.t.Helper()
	if err != nil {
		u.fatal("%s: %v", verb, err)
	}
}

// seed is that of whatever happens to some datagrams by chance.
func (u *Universe) seed() int64 { return int64(u.cfg.Seed) + 1 }

// Narrow drops, in silence, every datagram to or from an agent or a relay whose payload
// has more bytes; 0 ends it. Ethernet lets 1,472 pass, and DTLS cannot do without about
// 1,200.
func (u *Universe) Narrow(name string, bytes int) {
	u.t.Helper()
	h := u.host("narrow", name)
	u.Note("narrow %s to %d bytes", name, bytes)
	u.must("narrow", h.SetMTU(bytes))
}

// NarrowPath is Narrow for what one agent or relay sends to another.
func (u *Universe) NarrowPath(from, to string, bytes int) {
	u.t.Helper()
	a, b := u.host("narrow path", from), u.host("narrow path", to)
	u.Note("narrow path %s → %s to %d bytes", from, to, bytes)
	u.must("narrow path", u.net.SetMTU(a, b, bytes))
	u.paths[path{from, to}] = true
}

// LosePath drops so many in a hundred of the datagrams from one agent or relay to
// another; 0 ends it. It comes on top of what Lose does.
func (u *Universe) LosePath(from, to string, percent int) {
	u.t.Helper()
	a, b := u.host("lose path", from), u.host("lose path", to)
	u.Note("lose path %s → %s %d %%", from, to, percent)
	u.must("lose path", u.net.SetOneWayLoss(a, b, percent, u.seed()))
	u.paths[path{from, to}] = true
}

// Choke lets so many datagrams of each flow between an agent or relay and others pass,
// counted from now, and drops the rest: a flow is two sockets, so that a new session has as
// many again. 0 ends it.
func (u *Universe) Choke(name string, datagrams int) {
	u.t.Helper()
	h := u.host("choke", name)
	u.Note("choke %s after %d datagrams", name, datagrams)
	u.must("choke", h.LimitFlows(datagrams))
}

// ChokePath is Choke for the flows between two agents or relays.
func (u *Universe) ChokePath(one, other string, datagrams int) {
	u.t.Helper()
	a, b := u.host("choke path", one), u.host("choke path", other)
	u.Note("choke path %s ↔ %s after %d datagrams", one, other, datagrams)
	u.must("choke path", u.net.LimitFlows(a, b, datagrams))
	u.paths[path{one, other}] = true
}

// Throttle lets an agent or relay send so many bytes a second and receive as many, with
// a queue of so many bytes in each direction; what finds no room there is lost. A rate of
// 0 ends it. The streams to servers are as fast as before.
func (u *Universe) Throttle(name string, rate, queue int) {
	u.t.Helper()
	h := u.host("throttle", name)
	u.Note("throttle %s to %d bytes a second, with a queue of %d", name, rate, queue)
	u.must("throttle", h.SetRate(rate, queue))
}

// Duplicate makes so many in a hundred of the datagrams to and from an agent or relay
// come twice; 0 ends it.
func (u *Universe) Duplicate(name string, percent int) {
	u.t.Helper()
	h := u.host("duplicate", name)
	u.Note("duplicate %d %% at %s", percent, name)
	u.must("duplicate", h.SetDuplicates(percent, u.seed()))
}

// Reorder holds so many in a hundred of the datagrams to and from an agent or relay back
// for up to so long, so that others overtake them; 0 percent end it.
func (u *Universe) Reorder(name string, percent int, by time.Duration) {
	u.t.Helper()
	h := u.host("reorder", name)
	u.Note("reorder %d %% at %s by %v", percent, name, by)
	u.must("reorder", h.SetReorder(percent, by, u.seed()))
}

// mendWire ends what the verbs above began.
func (u *Universe) mendWire() {
	for _, name := range u.names {
		u.mendHost(u.agents[name].host)
	}
	for _, r := range u.ordered {
		u.mendHost(r.running.Host())
	}
	for p := range u.paths {
		a, b := u.host("mend", p.from), u.host("mend", p.to)
		u.must("mend", u.net.SetMTU(a, b, 0))
		u.must("mend", u.net.SetOneWayLoss(a, b, 0, 0))
		u.must("mend", u.net.LimitFlows(a, b, 0))
	}
	clear(u.paths)
}

func (u *Universe) mendHost(h *virtual.Host) {
	h.SetDelay(0)
	u.must("mend", h.SetLoss(0, 0))
	u.must("mend", h.SetMTU(0))
	u.must("mend", h.SetRate(0, 0))
	u.must("mend", h.SetDuplicates(0, 0))
	u.must("mend", h.SetReorder(0, 0, 0))
	u.must("mend", h.LimitFlows(0))
	h.SetOpenError(nil)
	h.AnswerNames()
}
