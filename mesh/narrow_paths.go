package mesh

import (
	"slices"
	"time"

	"github.com/infrafabric/agentmesh/turn"
)

// What a Peer knows of kinds of paths, and what follows for the next session. A kind is
// the direct path, the transport to this side's relays, or the other side's relay. One
// that did not help is shunned for a while, and taken again when there is no other; one
// that does not carry full packets is shunned until the network changes or it is
// found to carry them, and taken, when there is no other, with small packets.

// avoid tells the other side of that: it is half of each path, and may have a relay.
type avoid uint8

const (
	avoidDirect     avoid = 1 << iota // the direct path
	avoidFullDirect                   // full packets on it
	avoidFull                         // full packets; in an answer it means that none are sent
)

const (
	pathDirect = "path=direct"
	pathAny    = "path=any" // of the other side
)

// pathKinds are the kinds of the path that has opened.
func (a *attempt) pathKinds() (kinds []string) {
	local, remote := a.conn.Path()
	if local == "relay" && a.relay != nil {
		kinds = append(kinds, shunnedKind(a.relay.Transport()))
	}
	if remote == "relay" && a.theirRelay != "" {
		kinds = append(kinds, a.theirRelay)
	}
	if kinds == nil {
		kinds = append(kinds, pathDirect)
	}
	return kinds
}

// knowPaths tells a new attempt what the Peer knows. A change of the network makes it
// pointless, and a try of the direct path is there to find out.
func (p *Peer) knowPaths(a *attempt) {
	if a.why == ReasonNetwork {
		delete(p.shun, pathDirect)
		p.narrows = nil
	}
	a.narrow = slices.Clone(p.narrows)
	a.shunned = append(p.shun.list(time.Now()), a.narrow...)
}

// isNarrow notes kinds of paths that do not carry full packets.
func (p *Peer) isNarrow(kinds []string) {
	for _, k := range kinds {
		if !slices.Contains(p.narrows, k) && len(p.narrows) < maxShunned {
			p.narrows = append(p.narrows, k)
		}
	}
}

// shunKinds prefers others to kinds of paths for a while.
func (p *Peer) shunKinds(kinds []string) {
	for _, k := range kinds {
		p.shun.add(k, time.Now())
	}
}

// doubtPath tells of a path that is silent or gone. A direct path that is so soon after
// its session began is shunned until it is tried again.
func (p *Peer) doubtPath(s *session) {
	p.doubtRelay(s)
	if s.relay == "" && p.machine.early(s.answered()) {
		p.shun.add(pathDirect, time.Now().Add(max(p.machine.directPause(p.machine.burnt+1)-shunFor, 0)))
	}
}

// heed takes the other side's word for what did no good: at worst it harms its own
// sessions.
func (p *Peer) heed(v avoid) {
	if v&avoidDirect != 0 {
		p.shunKinds([]string{pathDirect})
	}
	if v&(avoidFull|avoidFullDirect) != 0 {
		p.isNarrow([]string{pathDirect})
	}
	if v&avoidFull != 0 {
		p.isNarrow([]string{pathAny})
	}
}

// confirmed takes note that both sides have a session: its path carries full packets
// if it sent some.
func (p *Peer) confirmed(s *session) {
	if !s.slim {
		p.narrows = slices.DeleteFunc(p.narrows, func(k string) bool { return k == pathAny || slices.Contains(s.kinds, k) })
	}
	p.supersede()
}

// avoidsDirect reports whether the attempt goes by this side's relay only, because the
// direct path did no good and the relay may.
func (a *attempt) avoidsDirect() bool {
	return a.ordinary() && slices.Contains(a.shunned, pathDirect) && a.soundRelay()
}

// ordinary reports whether the attempt may choose its path.
func (a *attempt) ordinary() bool { return a.why != ReasonDirectPath && a.why != ReasonStandby }

// soundRelay reports whether there is a relay against which nothing is known.
func (a *attempt) soundRelay() bool { return a.relay != nil && sound(a.relay, a.shunned) }

func sound(r *turn.Relay, shunned []string) bool {
	return !r.Down && !slices.ContainsFunc([]string{shunnedKind(r.Transport()), r.Server(), r.URL},
		func(s string) bool { return slices.Contains(shunned, s) })
}

// avoids sets what the other side is told.
func (a *attempt) avoids() {
	switch {
	case a.why == ReasonDirectPath:
		return
	case !a.asks && a.smallAnywhere():
		a.avoid |= avoidFull
	case !a.relayOnly && slices.Contains(a.narrow, pathDirect):
		a.avoid |= avoidFullDirect
	}
	if a.ordinary() && slices.Contains(a.shunned, pathDirect) {
		a.avoid |= avoidDirect
	}
}

// smallAnywhere reports whether no path is known that carries full packets, and more
// than the direct one was tried.
func (a *attempt) smallAnywhere() bool {
	if a.relay != nil && a.relayOnly {
		return slices.Contains(a.narrow, shunnedKind(a.relay.Transport())) || slices.Contains(a.narrow, pathAny)
	}
	return !a.soundRelay() && slices.Contains(a.narrow, pathDirect) && len(a.narrow) > 1
}

// answerSlim decides whether the session is in small packets; theirs is what the offer
// says.
func (a *attempt) answerSlim(theirs avoid) {
	switch {
	case a.why == ReasonDirectPath:
	case theirs&avoidFull != 0, a.smallAnywhere():
		a.slim = true
	case a.relayOnly:
	case theirs&avoidFullDirect != 0:
		a.slim = true
	case theirs&avoidDirect == 0: // that one says that it comes by its relay
		a.slim = slices.Contains(a.narrow, pathDirect)
	}
}
