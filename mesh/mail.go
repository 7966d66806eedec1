package mesh

import "github.com/infrafabric/agentmesh/signaling"

// deliver puts an envelope into its Peer's mail and reports whether there was room; an
// offer may make the Peer, and so may an ask, from an agent that had one with a former
// process of this agent. The mail keeps the order in which things came, whether or not
// the Peer's loop is ready for them.
func (n *Node) deliver(v verified) bool {
	n.mu.Lock()
	m := n.peers[v.From]
	if m == nil && n.parted(v.Sealed) {
		n.mu.Unlock()
		n.refuse(refusalOf(v.Sealed), rejectClosed, "")
		return true
	}
	if m == nil && begins(v.Sealed) && !n.closed {
		if len(n.peers) >= maxPeers {
			n.makeRoom()
		}
		if len(n.peers) >= maxPeers || n.incoming >= maxIncoming || len(n.accepted) >= acceptBacklog {
			n.mu.Unlock()
			n.refuse(refusalOf(v.Sealed), rejectBusy, "too many connections")
			return true
		}
		m = n.join(v.From, false)
	}
	if m == nil {
		n.mu.Unlock()
		return false // the negotiation is over, or has not begun here
	}
	same := 0
	for _, o := range m.mail {
		if begins(o.Sealed) == begins(v.Sealed) {
			same++
		}
	}
	full := same >= attemptInbox || begins(v.Sealed) && same >= maxAttempts
	if !full {
		m.mail = append(m.mail, v)
	}
	n.mu.Unlock()
	switch {
	case !full:
		m.peer.post(m.peer.takeMail)
	case begins(v.Sealed):
		n.refuse(refusalOf(v.Sealed), rejectBusy, "too many offers")
		return true
	}
	return !full
}

// parted reports whether an envelope is to go on with a Peer that was closed here,
// which its author has not learnt. n.mu is held.
func (n *Node) parted(e *signaling.Sealed) bool {
	if !begins(e) {
		return false
	}
	l := n.ledgers.lookup(e.From)
	return l != nil && l.isParted() && goesOn(e)
}

// takeMail hands a Peer's mail to its loop, none when the Peer is closing: then it is
// the next one's.
func (n *Node) takeMail(p *Peer) []verified {
	n.mu.Lock()
	defer n.mu.Unlock()
	if p.ctx.Err() != nil {
		return nil
	}
	m := n.peers[p.id]
	taken := m.mail
	m.mail = nil
	return taken
}

// takeMail deals with what has come.
func (p *Peer) takeMail() {
	for _, v := range p.node.takeMail(p) {
		switch v.Kind {
		case signaling.Ask:
			p.asked(v)
		case signaling.Offer:
			p.offered(v)
		default:
			p.envelope(v)
		}
	}
}

// envelope takes a verified, fresh envelope from the other agent that is neither
// an offer nor an ask. Candidates may be here before the offer that they belong to:
// that was lost, or waits for another one.
func (p *Peer) envelope(v verified) {
	for _, a := range p.attempts {
		if a.known == v.Ref {
			a.deliver(v)
			return
		}
	}
	switch {
	case v.Kind == signaling.Reject && p.deferred != nil && p.deferred.v.Hash() == v.Ref:
		p.deferred = nil // taken back
	case v.Kind == signaling.Candidate:
		if len(p.early) == maxEarly {
			p.early = append(p.early[:0], p.early[1:]...)
		}
		p.early = append(p.early, v)
	default:
		p.node.log.Debug("envelope of no negotiation", "peer", p.id, "kind", v.Kind.String())
	}
}

// handEarly gives an attempt the candidates that were here before it.
func (p *Peer) handEarly(a *attempt) {
	rest := p.early[:0]
	for _, v := range p.early {
		if v.Ref == a.known {
			a.deliver(v)
		} else if p.node.now().Sub(v.Time).Abs() < freshness {
			rest = append(rest, v)
		}
	}
	clear(p.early[len(rest):])
	p.early = rest
}
