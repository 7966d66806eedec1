package mesh

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/signaling"
	"github.com/infrafabric/agentmesh/turn"
)

// TestSkipsOfAReceiver: a row of skips counts as one, and none holds up what was delivered before it.
func TestSkipsOfAReceiver(t *testing.T) {
	r := newReceiver(messageFlow, 1<<20, 0)
	step := func(what string, err error, marks int, received, delivered uint64) {
		t.Helper()
		if err != nil || len(r.marks) != marks || r.received != received || r.delivered != delivered {
			t.Errorf("%s: %v, %d marks, received %d, delivered %d", what, err, len(r.marks), r.received, r.delivered)
		}
	}
	step("a skip at first", r.skipTo(3, 200), 0, 2, 2)
	_, err := r.record(3, make([]byte, 10))
	step("a record", err, 1, 3, 2)
	step("a skip behind it", r.skipTo(6, r.receivedEnd+100), 2, 5, 2)
	step("another", r.skipTo(8, r.receivedEnd+100), 2, 7, 2)
	_, err = r.record(8, make([]byte, 10))
	step("a record behind them", err, 3, 8, 2)
	step("what was passed over already", r.skipTo(5, r.receivedEnd), 3, 8, 2)
	step("the next, which is nothing", r.skipTo(9, r.receivedEnd), 3, 8, 2)
	r.deliver(3)
	step("the first is delivered", nil, 1, 8, 7)
	r.deliver(8)
	step("all is delivered", nil, 0, 8, 8)
}

// TestConfirmedPath: a session that both sides have clears its kinds of path of being narrow, if it
// sent full packets.
func TestConfirmedPath(t *testing.T) {
	for _, c := range []struct {
		slim bool
		want []string
	}{
		{false, []string{shunnedKind("udp")}},
		{true, []string{pathDirect, pathAny, shunnedKind("udp")}},
	} {
		p, s := metPeer(t, 5)
		p.narrows = []string{pathDirect, pathAny, shunnedKind("udp")}
		s.slim, s.kinds = c.slim, []string{pathDirect}
		p.confirmed(s)
		if !slices.Equal(p.narrows, c.want) {
			t.Errorf("slim %v: narrow are %q", c.slim, p.narrows)
		}
		alone(p)
	}
}

// TestCandidatesTogether: candidates that are ready leave in one envelope, and none is waited for.
func TestCandidatesTogether(t *testing.T) {
	const host = "candidate:1 1 udp 2130706431 192.0.2.7 4711 typ host"
	for more := range 3 {
		for _, over := range []bool{false, true} {
			p := stillPeer(t)
			p.key = keyOfNobody()
			a := newAttempt(p, order{generation: 5}, true)
			a.key, a.ref = p.key, signaling.Hash{1}
			ready := make(chan string, 3)
			for range more {
				ready <- host
			}
			if over {
				close(ready)
			}
			if err := a.sendCandidates(t.Context(), host, ready, 0); err != nil {
				t.Fatal(err)
			}
			if len(a.outgoing) != 1 || a.localTypes["host"] != 1+more {
				t.Fatalf("%d envelopes, %v", len(a.outgoing), a.localTypes)
			}
			b, err := decodeCandidates(a.outgoing[0].Body)
			if err != nil || len(b.Candidates) != 1+more || a.outgoing[0].Kind != signaling.Candidate || a.outgoing[0].Ref != a.ref {
				t.Errorf("%d more, over %v: %+v, %v", more, over, b, err)
			}
		}
	}
}

// TestRelaysComeAndGo: what is under way is given up when the relays it does without, or has, have
// changed, and the other side hears of it.
func TestRelaysComeAndGo(t *testing.T) {
	one, two := turn.Relay{URL: "turn:192.0.2.1"}, turn.Relay{URL: "turn:192.0.2.2"}
	down := one
	down.Down = true
	for name, c := range map[string]struct {
		change   func(p *Peer, a *attempt)
		ranked   []turn.Relay
		returned []turn.Relay
		gone     bool
	}{
		"one is back":             {func(*Peer, *attempt) {}, []turn.Relay{one, two}, []turn.Relay{one}, true},
		"nothing is back":         {func(*Peer, *attempt) {}, []turn.Relay{one, two}, nil, false},
		"its relay is gone":       {func(_ *Peer, a *attempt) { a.using.Store(&one) }, []turn.Relay{two}, nil, false},
		"its relay is down":       {func(_ *Peer, a *attempt) { a.using.Store(&one) }, []turn.Relay{two, down}, nil, true},
		"its relay is there":      {func(_ *Peer, a *attempt) { a.using.Store(&one) }, []turn.Relay{one, two}, nil, false},
		"it has opened":           {func(_ *Peer, a *attempt) { a.opened.Store(true) }, []turn.Relay{one}, []turn.Relay{one}, false},
		"a standby":               {func(_ *Peer, a *attempt) { a.why = ReasonStandby }, []turn.Relay{one}, []turn.Relay{one}, false},
		"there is a session":      {func(p *Peer, _ *attempt) { p.machine.state = StateConnected }, []turn.Relay{one}, []turn.Relay{one}, false},
		"the session is in doubt": {func(p *Peer, _ *attempt) { p.machine.state = StateSuspect }, []turn.Relay{one}, []turn.Relay{one}, true},
		"the other side dials":    {func(p *Peer, _ *attempt) { p.machine.met, p.machine.dialling = false, false }, []turn.Relay{one}, []turn.Relay{one}, false},
		"this side dials":         {func(p *Peer, _ *attempt) { p.machine.met = false }, []turn.Relay{one}, []turn.Relay{one}, true},
		"no relay is left":        {func(*Peer, *attempt) {}, nil, []turn.Relay{one}, false},
	} {
		p := stillPeer(t)
		p.key = keyOfNobody()
		p.machine.met, p.machine.dialling, p.machine.state = true, true, StateRecovering
		a, gone := under(p, ReasonLost, 5)
		a.known = signaling.Hash{3}
		c.change(p, a)
		p.shun.add(one.URL, time.Now())
		p.relaysChanged(c.ranked, c.returned)
		if gone() != c.gone {
			t.Errorf("%s: given up %v", name, gone())
		}
		if told := slices.Contains(refusedWith(p.node), rejectBusy); told != c.gone {
			t.Errorf("%s: told %v", name, told)
		}
		if shunned := slices.Contains(p.shun.list(time.Now()), one.URL); shunned != (c.returned == nil || c.ranked == nil) {
			t.Errorf("%s: shunned %v", name, shunned)
		}
		p.giveUp(func(*attempt) bool { return true })
		p.shut(goodbyeClosed, context.Canceled)
		p.work.Wait()
	}
}

// TestCloseByItsHandler: a Peer that a Handler closes closes its Node only where that was made for it.
func TestCloseByItsHandler(t *testing.T) {
	for _, owns := range []bool{false, true} {
		p := stillPeer(t)
		n := p.node
		n.peers = map[string]*member{}
		p.owns.Store(owns)
		n.cfg.Handler = func(_ context.Context, p *Peer, _ Message) {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		}
		p.callHandler(t.Context(), new(Message))
		n.mu.Lock()
		closed := n.closed
		n.mu.Unlock()
		if closed != owns || p.ctx.Err() == nil {
			t.Errorf("owns %v: the Node is closed %v, the Peer %v", owns, closed, context.Cause(p.ctx))
		}
		if owns {
			<-n.ended
		}
	}
}
