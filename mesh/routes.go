package mesh

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/infrafabric/agentmesh/signaling"
)

// An envelope reaches the other agent by one of three kinds of ways: a session
// of the Peer itself, a signaling server, and a common neighbour, an agent that
// both have a session with. All carry the same bytes, so what comes twice is
// recognised, and admission is the same whichever way it came.
//
// A neighbour passes envelopes on for their author only: what it was handed by
// anybody else, or for somebody it has no session with, it drops. So an envelope
// makes one hop, and nobody can use an agent to speak under another's name.

// errNoWay is returned when an envelope could not be sent at all.
var errNoWay = errors.New("no session, server or neighbour to send it by")

// viaPeer is what an envelope's way is called in logs and events when a peer
// handed it over.
func viaPeer(id string) string { return "peer " + id }

// send passes one of the attempt's envelopes on and returns by which way. Rounds
// count how often it was sent before: the first takes the best way, unless the
// best may be dead; later ones take every kind of way, and another server and
// other neighbours each time.
func (n *Node) send(ctx context.Context, a *attempt, e *signaling.Sealed, round int) (way string, err error) {
	everywhere := round > 0
	if everywhere {
		n.probe()
	}
	raw := e.Bytes()
	if by, sound := a.peer.carry(raw); by {
		way = "the present session"
		// It may be in doubt, or the network has changed under it.
		if !everywhere && sound && (a.why == ReasonRequested || a.why == ReasonDirectPath) {
			return way, nil
		}
		everywhere = true
	} else if sound || a.peer.session() != nil {
		everywhere = true
	}
	bounded, cancel := context.WithTimeout(ctx, sendWait)
	defer cancel()
	server := a.heard
	if err = errNoWay; server != "" && round == 0 && !strings.HasPrefix(server, viaPeer("")) {
		err = n.signaler.SendTo(bounded, raw, server) // the way that the other side found
	}
	if err != nil {
		server, err = n.signaler.Send(bounded, raw, round)
	}
	if err == nil {
		way = server
	}
	if err != nil || everywhere || a.carrier != "" {
		if by := n.carriers(a, round); len(by) > 0 {
			for _, s := range by {
				if s.carry(raw) && way == "" {
					way = viaPeer(s.bind.remote)
				}
			}
		}
	}
	switch {
	case way != "":
		return way, nil
	case err != nil:
		return "", err
	}
	return "", errNoWay
}

// probe asks the signaling servers for a sign of life, at a bounded rate.
func (n *Node) probe() {
	if n.probes.Allow() {
		n.signaler.Probe()
	}
}

// carry puts an envelope on the session in use. When that is in doubt, or the other
// side is not known to have it, it goes by every other one that is left as well: by
// those that this side has moved on from, which may be what the other side still has.
// It reports whether any took it and whether the session in use is sound.
func (p *Peer) carry(envelope []byte) (taken, sound bool) {
	p.mu.Lock()
	way, live := p.way, p.live
	p.mu.Unlock()
	if way != nil && way.sound() {
		return way.carry(envelope), true
	}
	for _, s := range live {
		taken = s.carry(envelope) || taken
	}
	return taken, false
}

// hasNeighbours reports whether any agent could pass an envelope on.
func (n *Node) hasNeighbours() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.carrying > 0
}

// session returns the session in use, nil when there is none.
func (p *Peer) session() *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.way
}

// carriers returns sessions with neighbours that may know the attempt's other
// side: the one through which it was heard of first, then others in turn.
func (n *Node) carriers(a *attempt, round int) []*session {
	n.mu.Lock()
	var peers []*Peer
	for id, m := range n.peers {
		if m.carries && id != a.peer.id {
			peers = append(peers, m.peer)
		}
	}
	n.mu.Unlock()
	slices.SortFunc(peers, func(x, y *Peer) int { return strings.Compare(x.id, y.id) })
	if k := len(peers); k > 0 {
		k = round * maxCarriers % k
		peers = slices.Concat(peers[k:], peers[:k])
	}
	if i := slices.IndexFunc(peers, func(p *Peer) bool { return p.id == a.carrier }); i > 0 {
		peers[0], peers[i] = peers[i], peers[0]
	}
	var by []*session
	for _, p := range peers {
		if s := p.session(); s != nil && !s.doubted.Load() && len(by) < maxCarriers {
			by = append(by, s)
		}
	}
	return by
}

// handedOver is an envelope that came on a session.
type handedOver struct {
	from *session
	raw  []byte
}

// handed takes an envelope from a session's reader, which it never holds up:
// what finds no place is dropped, and its author repeats it.
func (n *Node) handed(s *session, raw []byte) {
	select {
	case n.carried <- handedOver{s, raw}:
	default:
		n.obs.misdelivered(n.ctx, viaPeer(s.bind.remote), "too many envelopes wait")
	}
}

// carry deals with what peers handed over until the Node closes.
func (n *Node) carry() {
	for {
		select {
		case h := <-n.carried:
			n.pass(h)
		case <-n.ctx.Done():
			return
		}
	}
}

// pass admits an envelope for this agent, and passes on one that its author
// handed in for another.
func (n *Node) pass(h handedOver) {
	via := viaPeer(h.from.bind.remote)
	e, err := signaling.Parse(h.raw)
	if err != nil {
		n.obs.misdelivered(n.ctx, via, err.Error())
		return
	}
	if e.To == n.cfg.Identity.ID() {
		carrier := ""
		if e.From != h.from.bind.remote {
			carrier = h.from.bind.remote
		}
		n.admit(h.raw, via, carrier)
		return
	}
	if e.From != h.from.bind.remote || e.Key != h.from.remoteKey || e.Mesh != n.cfg.Mesh {
		n.obs.misdelivered(n.ctx, via, "an envelope of somebody else for somebody else")
		return
	}
	if p := n.lookup(e.To); p != nil {
		if s := p.session(); s != nil && s.carry(h.raw) {
			n.obs.passedOn(e)
		}
	}
}
