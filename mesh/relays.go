package mesh

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/infrafabric/agentmesh/turn"
)

var (
	// errNoRelay ends an attempt that needs a relay when there is none.
	errNoRelay = errors.New("there is no relay to use")
	// errNoDirectPath ends one that would need a direct path.
	errNoDirectPath = errors.New("only relays are used here")
	// errNoStandby ends one for a standby session that is not wanted.
	errNoStandby = errors.New("no standby session is wanted here")
)

// unwilling reports whether an offer will not be answered for a reason of policy.
func unwilling(err error) bool {
	return errors.Is(err, errNoRelay) || errors.Is(err, errNoDirectPath) || errors.Is(err, errNoStandby)
}

// choose picks the relay of a session, nil when there is none. Of equally good
// ones it is the server that the other side uses, theirs: a path that crosses two
// servers dies with either. Good are those that are not down, and then those by
// which this Peer did get through lately: shunned are servers, and ways to them,
// by their URLs.
func choose(ranked []turn.Relay, theirs string, shunned []string) *turn.Relay {
	var best *turn.Relay
	var least int
	for i := range ranked {
		r := &ranked[i]
		worse := 0
		if r.Down {
			worse += 16
		}
		if slices.Contains(shunned, shunnedKind(r.Transport())) {
			worse += 8
		}
		if slices.Contains(shunned, r.Server()) {
			worse += 4
		}
		if slices.Contains(shunned, r.URL) {
			worse += 2
		}
		if theirs != "" && r.Server() != theirs {
			worse++
		}
		if best == nil || worse < least {
			best, least = r, worse
		}
	}
	return best
}

// shunnedKind is how a kind of way to relays is shunned, "udp", "tcp" or "tls": where a
// network harms what goes over one of them, whichever server it goes to, another kind at
// the same server may do.
func shunnedKind(transport string) string { return "transport=" + transport }

// second picks the relay of a standby session beside the one that is in use, of which
// the server is known, and the URL if it is this side's: another server that works, or
// at least another way to that one, or none.
func second(ranked []turn.Relay, server, url string, shunned []string) *turn.Relay {
	var way *turn.Relay
	for i := range ranked {
		r := &ranked[i]
		switch {
		case r.Down || slices.Contains(shunned, r.Server()) || slices.Contains(shunned, r.URL) ||
			slices.Contains(shunned, shunnedKind(r.Transport())):
		case r.Server() != server:
			return r
		case way == nil && url != "" && r.URL != url:
			way = r
		}
	}
	return way
}

// shunned are the servers, and the ways to them by their URLs, by which a Peer lately
// did not get through, with the time until which others are preferred. The pool may
// find nothing wrong with them: it sees one end of the path.
type shunned map[string]time.Time

// add shuns a server, or a way to one, from now on for a while.
func (s shunned) add(server string, now time.Time) {
	if server == "" || len(s) >= maxShunned && s[server].IsZero() {
		return
	}
	s[server] = now.Add(shunFor)
}

// list returns what is shunned now.
func (s shunned) list(now time.Time) []string {
	var list []string
	for server, until := range s {
		if now.Before(until) {
			list = append(list, server)
		} else {
			delete(s, server)
		}
	}
	return list
}

// rank asks Config.TURN, which may not be there, for its ranking.
func (n *Node) rank(ctx context.Context) []turn.Relay {
	if n.cfg.TURN == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, rankWait)
	defer cancel()
	// One that cannot be used must not cost the direct path.
	return slices.DeleteFunc(slices.Clone(n.cfg.TURN.Rank(ctx)), func(r turn.Relay) bool {
		useless := r.Server() == "" || r.Username == "" || r.Password == ""
		if useless {
			n.log.Warn("relay of no use", "relay", r.URL)
		}
		return useless
	})
}

// watchRelays tells the Peers what changes about the relays.
func (n *Node) watchRelays() {
	var before []turn.Relay
	for {
		changed := n.cfg.TURN.Changed()
		if changed == nil {
			return
		}
		ranked := n.rank(n.ctx)
		var returned []turn.Relay
		for _, r := range ranked {
			was := slices.IndexFunc(before, func(b turn.Relay) bool { return b.URL == r.URL })
			if !r.Down && was >= 0 && before[was].Down {
				returned = append(returned, r)
			}
		}
		before = ranked
		for _, p := range n.allPeers() {
			p.post(func() { p.relaysChanged(ranked, returned) })
		}
		select {
		case <-changed:
		case <-n.ctx.Done():
			return
		}
	}
}

// relaysChanged moves a Peer off a relay that is no longer offered, or whose
// credential is about to end, and looks for one that is back when it has no other
// path.
func (p *Peer) relaysChanged(ranked, returned []turn.Relay) {
	if len(ranked) == 0 {
		return // there is nowhere to go
	}
	now := time.Now()
	for _, r := range returned { // whatever was wrong is over
		delete(p.shun, r.URL)
		delete(p.shun, r.Server())
	}
	p.ranked = ranked
	p.checkRelay(now)
	p.spare.hurry(now)
	s := p.machine.state
	switch {
	case s.carries() && s != StateSuspect:
		return
	case !p.machine.met && !p.machine.dialling:
		return // the other side's to begin anew
	}
	// What is under way has no use of a relay that is back, and none of one that is
	// down.
	gone := false
	p.giveUp(func(a *attempt) bool {
		if a.opened.Load() || a.standby() || returned == nil && !pointless(ranked, a.using.Load()) {
			return false
		}
		gone = true
		p.withdraw(a)
		return true
	})
	if returned != nil || gone {
		p.do(p.machine.relaysChanged(p.busy()))
	}
}

// checkRelay notes when the session in use, and the standby, have to leave this side's
// relay.
func (p *Peer) checkRelay(now time.Time) {
	note := func(when *time.Time, used *turn.Relay) {
		if used == nil || len(p.ranked) == 0 {
			*when = time.Time{}
			return
		}
		switch at, ok := outdated(p.ranked, *used, now, p.node.now()); {
		case !ok:
			*when = time.Time{}
		case when.IsZero() || at.Before(*when):
			*when = at
		}
	}
	var used, spare *turn.Relay
	if top := p.top(); top != nil && top.owned {
		used = top.own
	}
	if a := p.spare.held; a != nil {
		spare = a.relay
	}
	note(&p.renew, used)
	note(&p.spare.until, spare)
}

// pointless reports whether a relay is down while another is not.
func pointless(ranked []turn.Relay, used *turn.Relay) bool {
	if used == nil || len(ranked) == 0 || ranked[0].Down {
		return false
	}
	return slices.ContainsFunc(ranked, func(r turn.Relay) bool { return r.URL == used.URL && r.Down })
}

// outdated reports whether what is made with a relay should be made anew, and when:
// within a few seconds when the relay is no longer offered, and within the first half
// of what is left of its credential when there is a newer one, or renewMost; at random, so that not
// every session moves at one instant. The credential ends by the clock of the world, which
// may be wrong; the time that is returned is this process's.
func outdated(ranked []turn.Relay, used turn.Relay, now, world time.Time) (at time.Time, yes bool) {
	server := used.Server()
	var same *turn.Relay
	for i := range ranked {
		if r := &ranked[i]; r.URL == used.URL {
			same = r
		} else if same == nil && r.Server() == server {
			same = r
		}
	}
	switch {
	case same == nil:
		return now.Add(spread(leaveWithin)), true
	case used.Expires.IsZero() || same.URL != used.URL || same.Username == used.Username && same.Password == used.Password:
		return time.Time{}, false
	}
	left := used.Expires.Round(0).Sub(world.Round(0))
	return now.Add(spread(min(left/2, renewMost))), true
}

// spread is a random part of d.
func spread(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return rand.N(d)
}

// renewRelay replaces the session, because of its relay. Should that fail it is
// tried again.
func (p *Peer) renewRelay(now time.Time) {
	p.renew = now.Add(renewPause)
	if !p.machine.state.carries() {
		return // the next session will have another
	}
	p.do(p.machine.wants(ReasonRelay, p.busy()))
}

// doubtRelay tells of a path that is silent.
func (p *Peer) doubtRelay(s *session) {
	if s.relay == "" {
		return
	}
	p.shun.add(s.relay, time.Now())
	if s.own != nil && s.own.Server() == s.relay {
		p.shun.add(s.own.URL, time.Now())
		p.node.cfg.TURN.Doubt(*s.own)
	}
}

// unshun notes that a session works after all.
func (p *Peer) unshun(s *session) {
	delete(p.shun, s.relay)
	if s.own != nil {
		delete(p.shun, s.own.URL)
	}
}

// blame shuns the relays of an attempt that found no path.
func (p *Peer) blame(a *attempt) {
	var r *rejectedError
	if !a.answered || errors.As(a.err, &r) {
		return // nobody tried the path
	}
	silent := errors.Is(a.err, errPromotion) || errors.Is(a.err, errQuiet) && !p.top().inDoubt()
	switch {
	case errors.Is(a.err, ErrNarrowPath):
		p.isNarrow(a.kinds)
	case a.opened.Load() && errors.Is(a.err, errAttemptTimeout):
		p.shunRelays(a)
		p.shunKinds(a.kinds)
	case a.opened.Load() && !silent:
		// It was there; the other side may have ended it.
	default:
		p.shunRelays(a)
	}
}

// shunRelays prefers others to the relays of an attempt.
func (p *Peer) shunRelays(a *attempt) {
	p.shun.add(a.theirRelay, time.Now())
	if a.relay != nil {
		p.shun.add(a.relay.Server(), time.Now())
		p.shun.add(a.relay.URL, time.Now())
		p.node.cfg.TURN.Doubt(*a.relay)
	}
}
