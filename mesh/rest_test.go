package mesh

import (
	"context"
	"errors"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/infrafabric/agentmesh/metrics"
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

// TestHowPeersStand: a Node is connected while a Peer of it is, and a Peer counts as unreachable from when it
// first was.
func TestHowPeersStand(t *testing.T) {
	meter := newHostileMeter()
	p := stillPeer(t)
	n := p.node
	var cfg Config
	meter.config(&cfg)
	ins, err := metrics.New(cfg.MeterProvider)
	if err != nil {
		t.Fatal(err)
	}
	n.obs.ins = ins
	q, _ := beside(t, n, "agent-c")
	n.carrying, n.peers["agent-c"].carries = 0, false
	base := meter.count(t, "webrtc_agent_connected")
	m := n.peers[p.id]
	for i, step := range []struct {
		p         *Peer
		s         State
		carrying  int
		connected int64
		away      bool
	}{
		{p, StateConnecting, 0, 0, false},
		{p, StateConnected, 1, 1, false},
		{p, StateReplacing, 1, 1, false},
		{q, StateConnected, 2, 1, false},
		{p, StateRecovering, 1, 1, false},
		{p, StateUnreachable, 1, 1, true},
		{p, StateUnreachable, 1, 1, true},
		{q, StateRecovering, 0, 0, true},
		{p, StateConnected, 1, 1, false},
	} {
		before := m.unreachable
		n.stands(step.p, step.s)
		if n.carrying != step.carrying || n.hasNeighbours() != (step.carrying > 0) || meter.count(t, "webrtc_agent_connected")-base != step.connected || m.unreachable.IsZero() == step.away {
			t.Errorf("step %d: %d carry, %d, unreachable since %v", i, n.carrying, meter.count(t, "webrtc_agent_connected")-base, m.unreachable)
		}
		if step.away && !before.IsZero() && !m.unreachable.Equal(before) {
			t.Errorf("step %d: unreachable anew", i)
		}
	}
}

// TestProbesOfUnreachable: so many unreachable Peers keep a session to look for the other side; beyond, the one that
// is unreachable for the longest time lets go of it.
func TestProbesOfUnreachable(t *testing.T) {
	p := stillPeer(t)
	n := p.node
	now := time.Now()
	var first, second *member
	for i := range maxProbes {
		o := &Peer{node: n, id: "agent-" + strconv.Itoa(1000+i), tasks: make(chan func(), 1), ctx: n.ctx}
		m := &member{peer: o, unreachable: now.Add(time.Duration(i) * time.Second), probes: true}
		n.peers[o.id] = m
		switch i {
		case 0:
			first = m
		case 1:
			second = m
		}
	}
	n.mu.Lock()
	n.limitProbes()
	n.mu.Unlock()
	n.work.Wait()
	if !first.probes || len(first.peer.tasks) != 0 {
		t.Error("as many as may let go")
	}
	n.stands(p, StateUnreachable)
	n.work.Wait()
	if first.probes || len(first.peer.tasks) != 1 || !second.probes || !n.peers[p.id].probes {
		t.Errorf("beyond the limit: %v, %d things to do, the second %v", first.probes, len(first.peer.tasks), second.probes)
	}
	for id := range n.peers {
		if id != p.id {
			delete(n.peers, id)
		}
	}
}

// TestForgotten: when a Peer has ended its place is free, and what came for it in the meantime is another one's, if
// it begins something.
func TestForgotten(t *testing.T) {
	for name, c := range map[string]struct {
		dialled, connected, closed bool
		kind                       signaling.Kind
		next                       bool
		incoming                   int // of 5
	}{
		"dialled":                 {dialled: true, incoming: 5},
		"connected":               {connected: true, incoming: 5},
		"an offer that failed":    {incoming: 4},
		"an offer waits":          {connected: true, kind: signaling.Offer, next: true, incoming: 6},
		"an ask waits":            {connected: true, kind: signaling.Ask, next: true, incoming: 6},
		"a candidate waits":       {connected: true, kind: signaling.Candidate, incoming: 5},
		"an offer, while closing": {connected: true, closed: true, kind: signaling.Offer, incoming: 5},
	} {
		p := stillPeer(t)
		n := p.node
		m := n.peers[p.id]
		m.dialled, m.connected, n.closed, n.incoming = c.dialled, c.connected, c.closed, 5
		if c.kind != 0 {
			m.mail = []verified{wished(c.kind, ReasonDial, 9, 1)}
		}
		n.forget(p)
		n.mu.Lock()
		next := n.peers[p.id]
		if (next != nil) != c.next || n.incoming != c.incoming || next != nil && (next.peer == p || next.dialled) {
			t.Errorf("%s: the next %v, %d incoming", name, next, n.incoming)
		}
		n.closed = true // there shall not be another one
		n.mu.Unlock()
		if next != nil {
			next.peer.shut(goodbyeClosed, context.Canceled)
			<-next.peer.ended
		}
	}
}

// TestAccept: what waits is handed out first, whatever else is the case.
func TestAccept(t *testing.T) {
	for name, c := range map[string]struct {
		change func(n *Node, cancel func())
		want   error
	}{
		"a Handler":   {func(n *Node, _ func()) { n.cfg.Handler = func(context.Context, *Peer, Message) {} }, ErrHandler},
		"a deadline":  {func(_ *Node, cancel func()) { cancel() }, context.Canceled},
		"displaced":   {func(n *Node, _ func()) { close(n.displaced) }, ErrReplaced},
		"closed":      {func(n *Node, _ func()) { n.cancel(net.ErrClosed) }, net.ErrClosed},
		"all of that": {func(n *Node, cancel func()) { cancel(); close(n.displaced); n.cancel(net.ErrClosed) }, nil},
	} {
		p := stillPeer(t)
		ctx, cancel := context.WithCancel(t.Context())
		if c.want == nil {
			p.node.accepted <- p
		}
		c.change(p.node, cancel)
		got, err := p.node.Accept(ctx)
		if !errors.Is(err, c.want) || (got == p) != (c.want == nil) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
		cancel()
	}
}

// TestRoomOfHandlers: what Handlers send has a window's worth of room of its own, waits when that is full as well,
// and passes whoever waits in line.
func TestRoomOfHandlers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger("agent-b", testObserver(t), 2000, 0, 0)
		tenancy := l.begin()
		var mu sync.Mutex
		sent := map[string]error{}
		var order []string
		push := func(id string, handler bool) {
			go func() {
				err := l.push(t.Context(), tenancy, &Message{ID: id, Timestamp: goldenTime, Performative: "inform", Payload: digits(700)}, handler)
				mu.Lock()
				defer mu.Unlock()
				sent[id] = err
				order = append(order, id)
			}()
			synctest.Wait()
		}
		for _, id := range []string{"1", "2", "3"} {
			push(id, false)
		}
		push("h1", true)
		push("h2", true)
		push("h3", true)
		push("h4", true)
		if want := []string{"1", "2", "h1", "h2", "h3"}[:len(order)]; !slices.Equal(order, want) || len(order) < 4 {
			t.Fatalf("sent %q", order)
		}
		waits := len(order) // one of the Handlers, and the third
		size := l.out.held[0].end
		l.mu.Lock()
		l.out.credit = 1 << 20
		l.out.travel(10, 1<<20)
		if _, err := l.out.position(position{Received: 1, Delivered: 1}); err != nil {
			t.Fatal(err)
		}
		l.roomMade()
		l.mu.Unlock()
		synctest.Wait()
		if len(order) != waits+1 || order[waits][0] != 'h' {
			t.Errorf("with room for one more: %q", order)
		}
		l.mu.Lock()
		l.out.travel(10, 1<<20)
		if _, err := l.out.position(position{Received: uint64(waits + 1), Delivered: uint64(waits + 1)}); err != nil {
			t.Fatal(err)
		}
		l.roomMade()
		l.mu.Unlock()
		synctest.Wait()
		if len(order) != 7 {
			t.Errorf("with room for all: %q, records of %d bytes", order, size)
		}
		for id, err := range sent {
			if err != nil {
				t.Errorf("%s: %v", id, err)
			}
		}
		l.end(nil)
	})
}

// TestFlushOfATenant: a Flush waits for what was sent before it, ends with the tenant, and says what is in doubt of
// his own time only.
func TestFlushOfATenant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger("agent-b", testObserver(t), 1<<20, 0, 0)
		tenancy := l.begin()
		push := func(tenancy int) error {
			return l.push(t.Context(), tenancy, &Message{ID: "x", Timestamp: goldenTime, Performative: "inform", Payload: digits(10)}, false)
		}
		flush := func(tenancy int) func() error {
			done := make(chan error, 1)
			go func() { done <- l.flush(t.Context(), tenancy) }()
			synctest.Wait()
			return func() error {
				synctest.Wait()
				select {
				case err := <-done:
					return err
				default:
					return errNotYet
				}
			}
		}
		deliver := func(n uint64) {
			l.mu.Lock()
			l.out.credit = 1 << 20
			l.out.travel(10, 1<<20)
			if _, err := l.out.position(position{Received: n, Delivered: n}); err != nil {
				t.Error(err)
			}
			l.settled.broadcast()
			l.mu.Unlock()
		}
		if err := flush(tenancy)(); err != nil {
			t.Errorf("nothing was sent: %v", err)
		}
		for range 2 {
			if err := push(tenancy); err != nil {
				t.Fatal(err)
			}
		}
		two := flush(tenancy)
		if err := push(tenancy); err != nil {
			t.Fatal(err)
		}
		three := flush(tenancy)
		for i, want := range []struct{ two, three error }{{errNotYet, errNotYet}, {errNotYet, errNotYet}, {nil, errNotYet}} {
			if i > 0 {
				deliver(uint64(i))
			}
			if i < 2 {
				continue
			}
			if err := two(); err != want.two {
				t.Errorf("%d delivered: two %v", i, err)
			}
			if err := three(); err != want.three {
				t.Errorf("%d delivered: three %v", i, err)
			}
		}
		why := errors.New("the end")
		if ids := l.end(why); len(ids) != 1 {
			t.Errorf("undelivered %q", ids)
		}
		if err := three(); !errors.Is(err, why) || !errors.Is(err, net.ErrClosed) {
			t.Errorf("after the end: %v", err)
		}
		next := l.begin()
		if err := push(tenancy); !errors.Is(err, net.ErrClosed) {
			t.Errorf("in the next one's time: %v", err)
		}
		if err := flush(tenancy)(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("in the next one's time: %v", err)
		}
		l.doubt, l.doubtful = 3, ErrOutcomeUnknown // of the time before
		if err := flush(next)(); err != nil {
			t.Errorf("of another's time: %v", err)
		}
		if err := push(next); err != nil {
			t.Fatal(err)
		}
		l.doubt = 4
		deliver(4)
		if err := flush(next)(); !errors.Is(err, ErrOutcomeUnknown) {
			t.Errorf("in doubt: %v", err)
		}
		l.end(nil)
	})
}

var errNotYet = errors.New("not yet")
