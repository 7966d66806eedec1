package mesh

import (
	"context"
	"fmt"
	"time"

	"github.com/infrafabric/agentmesh/turn"
)

// What an attempt has to do with relays.

// options says what the connection may use. A session that replaces another
// takes what works soonest; one that tries the direct path has no relay to take.
func (a *attempt) options(ctx context.Context) (connOptions, error) {
	paths := &a.peer.node.cfg.Paths
	o := connOptions{relayWait: paths.RelayAfter, relayOnly: paths.RelayOnly}
	if a.replaces {
		o.relayWait = min(o.relayWait, replaceRelayWait)
	}
	if a.relayed || o.relayOnly {
		o.relayWait = 0
	}
	a.relayWait = o.relayWait
	var ranked []turn.Relay // that may take the place of one whose name is not known
	switch {
	case a.why == ReasonDirectPath && o.relayOnly:
		return o, errNoDirectPath
	case a.why == ReasonDirectPath:
		a.locate(ctx, &o, nil)
		return o, nil
	case a.why == ReasonStandby && a.offerer:
		a.relay = a.secondRelay(ctx)
		o.relayOnly = true // the direct path is another session's
	case a.why == ReasonStandby:
		a.relay = a.besideRelay(ctx)
	default:
		ranked = a.peer.node.rank(ctx)
		a.relay = choose(ranked, a.theirRelay, a.shunned)
	}
	a.locate(ctx, &o, ranked)
	if a.relay == nil && (o.relayOnly || a.why == ReasonStandby && a.offerer) {
		if a.unnamed != nil {
			return o, fmt.Errorf("%w: %w", errNoRelay, a.unnamed)
		}
		return o, errNoRelay
	}
	if a.avoidsDirect() {
		o.relayOnly, o.relayWait, a.relayWait = true, 0, 0
	}
	a.relayOnly = o.relayOnly
	a.avoids()
	o.relay = a.relay
	a.using.Store(a.relay)
	return o, nil
}

// secondRelay picks the relay of a standby that this side offers.
func (a *attempt) secondRelay(ctx context.Context) *turn.Relay {
	if a.beside == nil {
		return nil
	}
	url := ""
	if a.beside.owned {
		url = a.beside.own.URL
	}
	return second(a.peer.node.rank(ctx), a.beside.relay, url, a.shunned)
}

// besideRelay picks the relay of a standby that the other side offers: a way to its
// server that is not this side's way to the session in use.
func (a *attempt) besideRelay(ctx context.Context) *turn.Relay {
	for _, r := range a.peer.node.rank(ctx) {
		if r.Server() == a.theirRelay && !r.Down && (a.beside == nil || a.beside.own == nil || r.URL != a.beside.own.URL) {
			return &r
		}
	}
	return nil
}

// relayName is the server that the attempt uses, "" for none.
func (a *attempt) relayName() string {
	if a.relay == nil {
		return ""
	}
	return a.relay.Server()
}

// relayStory says what part a relay had, and what was not there because its name is
// not known.
func (a *attempt) relayStory() string { return a.relayPart() + a.unnamedStory() }

func (a *attempt) relayPart() string {
	switch {
	case a.peer.node.cfg.TURN == nil:
		return "no relay is configured"
	case a.why == ReasonDirectPath:
		return "only a direct path was tried"
	case a.relay == nil:
		return "there was no relay to use"
	case a.localTypes["relay"] == 0:
		return a.relayName() + " gave no address"
	}
	return "the relay " + a.relayName() + " did not help"
}

// fallback is when the attempt takes a relay, if there is one: this side's or the
// other's. It never does so before it has heard of the other side.
func (a *attempt) fallback() <-chan time.Time {
	if !a.answered || a.relay == nil && a.theirRelay == "" || a.why == ReasonStandby || a.relayOnly {
		return nil
	}
	return time.After(a.relayWait)
}

// fallBack tells that no direct path was found in time.
func (a *attempt) fallBack(ctx context.Context) {
	a.fellBack = true
	server := a.relayName()
	if server == "" {
		server = a.theirRelay
	}
	a.peer.node.obs.fallback(ctx, a.peer.id, server)
}
