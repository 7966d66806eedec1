package mesh

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
)

// beside makes a Peer of another agent at the same Node, with a session that keeps what is written.
func beside(t *testing.T, n *Node, id string) (*Peer, *paper) {
	t.Helper()
	led, tenancy := n.ledgers.acquire(id)
	p := newPeer(n, id, led, tenancy)
	n.peers[id] = &member{peer: p, dialled: true, carries: true}
	t.Cleanup(func() { p.shut(goodbyeClosed, context.Canceled); p.work.Wait() })
	_, on := onPaper(t, p, 5)
	return p, on
}

// carried returns the envelopes on a paper.
func carried(t *testing.T, on *paper) (all [][]byte) {
	t.Helper()
	for _, b := range on.frames {
		if k, err := peekFrame(b); err != nil || k != kindEnvelope {
			continue
		}
		f, err := decodeEnvelopeFrame(b)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, f.Envelope)
	}
	return all
}

// TestPassedOn: what comes on a session is admitted, or passed on for its author, and for nobody else.
func TestPassedOn(t *testing.T) {
	b, c := newIdentity(t, "agent-b"), newIdentity(t, "agent-c")
	const admitted, passed, refused = "admitted", "passed on", "an envelope of somebody else for somebody else"
	for name, x := range map[string]struct {
		author *keys.Identity
		to     string
		change func(n *Node, e *signaling.Envelope, s *session)
		want   string // "" is nothing
		by     string // the neighbour that carried it
	}{
		"for this agent, of its author": {author: b, to: "agent-a", want: admitted},
		"for this agent, of another":    {author: c, to: "agent-a", want: admitted, by: "agent-b"},
		"for a neighbour":               {author: b, to: "agent-c", want: passed},
		"for a neighbour, of another":   {author: newIdentity(t, "agent-d"), to: "agent-c", want: refused},
		"for a neighbour, under a key of another": {author: b, to: "agent-c", want: refused,
			change: func(_ *Node, _ *signaling.Envelope, s *session) { s.remoteKey = c.PublicKey() }},
		"for a neighbour in another mesh": {author: b, to: "agent-c", want: refused,
			change: func(_ *Node, e *signaling.Envelope, _ *session) { e.Mesh = "other" }},
		"for nobody here": {author: b, to: "agent-e"},
		"for a neighbour without session": {author: b, to: "agent-c",
			change: func(n *Node, _ *signaling.Envelope, _ *session) { alone(n.peers["agent-c"].peer) }},
	} {
		p := stillPeer(t)
		n := p.node
		s, _ := onPaper(t, p, 5)
		s.remoteKey = b.PublicKey()
		_, on := beside(t, n, "agent-c")
		log := new(said)
		n.obs.log = slog.New(log)
		got := ""
		n.gate.judge = func(a arrival) {
			if got = admitted; a.via != "peer agent-b" || a.carrier != x.by {
				t.Errorf("%s: by %q and %q", name, a.via, a.carrier)
			}
		}
		e := signaling.Envelope{Kind: signaling.Offer, Mesh: n.cfg.Mesh, To: x.to, Instance: signaling.NewInstance(),
			Time: n.now(), Generation: 1, Body: []byte("x")}
		if x.change != nil {
			x.change(n, &e, s)
		}
		sealed, err := signaling.Seal(x.author, e)
		if err != nil {
			t.Fatal(err)
		}
		n.pass(handedOver{s, sealed.Bytes()})
		n.work.Wait()
		if all := carried(t, on); len(all) > 0 {
			got = passed
			if len(all) != 1 || !slices.Equal(all[0], sealed.Bytes()) {
				t.Errorf("%s: %d envelopes, or another", name, len(all))
			}
		}
		if slices.Contains(log.all, refused) {
			got = refused
		}
		if got != x.want {
			t.Errorf("%s: %q", name, got)
		}
		got, log.all = "", nil
		n.pass(handedOver{s, []byte("junk")})
		n.work.Wait()
		if got != "" || len(log.all) != 1 {
			t.Errorf("%s: junk is %q, said %q", name, got, log.all)
		}
	}
}

// roads is a signaler that keeps how envelopes were sent.
type roads struct {
	signaler
	err    error
	sent   []string
	probes int
}

func (s *roads) SendTo(_ context.Context, _ []byte, server string) error {
	s.sent = append(s.sent, "to "+server)
	return s.err
}

func (s *roads) Send(_ context.Context, _ []byte, route int) (string, error) {
	s.sent = append(s.sent, "by "+string(rune('0'+route)))
	return "ws://s/", s.err
}

func (s *roads) Probe() { s.probes++ }

// TestWays: by which ways an envelope goes, and which of them is told.
func TestWays(t *testing.T) {
	down := errors.New("no server")
	for name, c := range map[string]struct {
		round   int
		why     Reason
		heard   string
		carrier string
		session string // "", "sound", "in doubt", "full"
		alone   bool   // there is no neighbour
		err     error  // of the servers

		way       string
		sent      []string
		session1  bool // the session carries it
		neighbour bool
		fails     error
		probes    int
	}{
		"first contact":                        {why: ReasonDial, way: "ws://s/", sent: []string{"by 0"}},
		"again":                                {why: ReasonDial, round: 1, way: "ws://s/", sent: []string{"by 1"}, neighbour: true, probes: 1},
		"by the way it was heard of":           {why: ReasonDial, heard: "ws://h/", way: "ws://h/", sent: []string{"to ws://h/"}},
		"again, though heard of":               {why: ReasonDial, heard: "ws://h/", round: 1, way: "ws://s/", sent: []string{"by 1"}, neighbour: true, probes: 1},
		"heard of by a neighbour":              {why: ReasonDial, heard: "peer agent-c", carrier: "agent-c", way: "ws://s/", sent: []string{"by 0"}, neighbour: true},
		"no server":                            {why: ReasonDial, err: down, way: "peer agent-c", sent: []string{"by 0"}, neighbour: true},
		"no server, heard of":                  {why: ReasonDial, heard: "ws://h/", err: down, way: "peer agent-c", sent: []string{"to ws://h/", "by 0"}, neighbour: true},
		"no server, no neighbour":              {why: ReasonDial, err: down, alone: true, sent: []string{"by 0"}, fails: down},
		"a sound session":                      {why: ReasonSilence, session: "sound", way: "ws://s/", sent: []string{"by 0"}, session1: true, neighbour: true},
		"a sound session, as requested":        {why: ReasonRequested, session: "sound", way: "the present session", session1: true},
		"a sound session, for a direct path":   {why: ReasonDirectPath, session: "sound", way: "the present session", session1: true},
		"a sound session, as requested, again": {why: ReasonRequested, round: 1, session: "sound", way: "ws://s/", sent: []string{"by 1"}, session1: true, neighbour: true, probes: 1},
		"one in doubt, as requested":           {why: ReasonRequested, session: "in doubt", way: "ws://s/", sent: []string{"by 0"}, session1: true, neighbour: true},
		"one that is full":                     {why: ReasonRequested, session: "full", way: "ws://s/", sent: []string{"by 0"}, neighbour: true},
		"a session and nothing else":           {why: ReasonSilence, session: "sound", err: down, alone: true, way: "the present session", sent: []string{"by 0"}, session1: true},
	} {
		p := stillPeer(t)
		n := p.node
		sig := &roads{signaler: n.signaler, err: c.err}
		n.signaler = sig
		var here *paper
		if c.session != "" {
			s, on := onPaper(t, p, 5)
			here = on
			s.confirmed.Store(true)
			switch c.session {
			case "in doubt":
				s.doubted.Store(true)
			case "full":
				on.queued = maxCarriedQueue + 1
			}
		}
		on := newPaper()
		if !c.alone {
			_, on = beside(t, n, "agent-c")
		}
		a := newAttempt(p, order{}, true)
		a.why, a.heard, a.carrier = c.why, c.heard, c.carrier
		e := wished(signaling.Offer, c.why, 5, 1)
		sealed, err := signaling.Seal(newIdentity(t, "agent-a"), signaling.Envelope{Kind: signaling.Offer, Mesh: "m", To: "agent-b",
			Instance: signaling.NewInstance(), Generation: 5, Body: e.Body})
		if err != nil {
			t.Fatal(err)
		}
		way, err := n.send(t.Context(), a, sealed, c.round)
		if way != c.way || !errors.Is(err, c.fails) || c.fails == nil && err != nil || !slices.Equal(sig.sent, c.sent) || sig.probes != c.probes {
			t.Errorf("%s: %q, %v, servers %q, %d probes", name, way, err, sig.sent, sig.probes)
		}
		if by := len(carried(t, on)); (by == 1) != c.neighbour {
			t.Errorf("%s: %d by a neighbour", name, by)
		}
		if here != nil && (len(carried(t, here)) == 1) != c.session1 {
			t.Errorf("%s: %d by the session", name, len(carried(t, here)))
		}
	}
}

// TestCarriers: neighbours take turns, the one by which the other side was heard of comes first, and one
// in doubt carries nothing.
func TestCarriers(t *testing.T) {
	p := stillPeer(t)
	n := p.node
	ids := "cdefghijkl"
	for _, id := range ids {
		beside(t, n, "agent-"+string(id))
	}
	onPaper(t, p, 5)
	n.peers[p.id].carries = true
	names := func(round int, carrier string) string {
		a := newAttempt(p, order{}, true)
		a.carrier = carrier
		var b strings.Builder
		for _, s := range n.carriers(a, round) {
			b.WriteString(strings.TrimPrefix(s.bind.remote, "agent-"))
		}
		return b.String()
	}
	for i, c := range []struct {
		round   int
		carrier string
		want    string
	}{
		{0, "", "cdefghij"}, {1, "", "klcdefgh"}, {2, "", "ijklcdef"}, {5, "", "cdefghij"},
		{0, "agent-f", "fdecghij"}, {0, "agent-c", "cdefghij"}, {1, "agent-c", "clkdefgh"}, {0, "agent-z", "cdefghij"},
	} {
		if got := names(c.round, c.carrier); got != c.want {
			t.Errorf("%d: %s, want %s", i, got, c.want)
		}
	}
	n.peers["agent-c"].peer.session().doubted.Store(true)
	n.peers["agent-d"].carries = false
	if got := names(0, ""); got != "efghijkl" {
		t.Errorf("without one in doubt and one that does not carry: %s", got)
	}
}

// TestHandedTooMuch: what finds no place is dropped, and said.
func TestHandedTooMuch(t *testing.T) {
	p := stillPeer(t)
	log := new(said)
	p.node.obs.log = slog.New(log)
	s := deadSession(p, 1, 1)
	for range maxCarried + 2 {
		p.node.handed(s, nil)
	}
	if len(p.node.carried) != maxCarried || len(log.all) != 2 {
		t.Errorf("%d wait, said %q", len(p.node.carried), log.all)
	}
}

// TestPacketsOfASession: the counts are those of the session in use, and none without one.
func TestPacketsOfASession(t *testing.T) {
	p := stillPeer(t)
	if got := p.Packets(); got != (Packets{}) {
		t.Errorf("without a session: %+v", got)
	}
	on := &checked{paper: newPaper(), received: 9}
	s := newSession(p.node, p.led, on, order{generation: 5})
	s.bind = binding{remote: p.id, remoteInst: signaling.Instance{1}}
	if err := p.attach(newAttempt(p, s.order, true), s, helloOf(s)); err != nil {
		t.Fatal(err)
	}
	s.theirSent.Store(3)
	s.theirReceived.Store(4)
	if got := p.Packets(); got != (Packets{Received: 9, PeerSent: 3, PeerReceived: 4}) {
		t.Errorf("%+v", got)
	}
}

// TestRejections: a reject tells of clocks where it is about time, and only there.
func TestRejections(t *testing.T) {
	for code := rejectBusy; code <= rejectClosed; code++ {
		e := &signaling.Sealed{Envelope: signaling.Envelope{From: "agent-b", Body: (&rejectBody{Code: code, Text: "text", Ours: 5, Theirs: 7}).encode()}}
		err := rejected(e)
		var ce *ClockError
		if errors.As(err, &ce) != (code == rejectClock) {
			t.Errorf("%d: %v", code, err)
		}
		if ce != nil && (ce.Peer != "agent-b" || ce.Theirs.UnixMilli() != 5 || ce.Ours.UnixMilli() != 7) {
			t.Errorf("%+v", ce)
		}
	}
	if err := rejected(&signaling.Sealed{Envelope: signaling.Envelope{Body: []byte{0xff}}}); err == nil {
		t.Error("junk is a reject")
	}
}

// TestPositionsTravel: when the position of a receiver is told: with the next batch, after ackDelay, or at once when
// a quarter of the window has come free.
func TestPositionsTravel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, c := range map[string]struct {
			freed uint64
			now   bool
			other bool // the session is not the highest
		}{
			"little":                {freed: minWindow/4 - 1},
			"a quarter":             {freed: minWindow / 4, now: true},
			"a quarter, no session": {freed: minWindow / 4, other: true},
		} {
			p := stillPeer(t)
			l := p.led
			s, _ := onPaper(t, p, 5)
			l.mu.Lock()
			l.in.window = minWindow
			l.told = l.in.credit
			l.ackDue, l.ackNow = false, false
			l.in.credit += c.freed
			if c.other {
				l.top = nil
			}
			poke := l.acknowledge()
			again := l.acknowledge()
			if (poke == s) != c.now || again != nil || l.ackDue != true || l.ackNow != c.now {
				t.Errorf("%s: poked %v, again %v, due %v, now %v", name, poke != nil, again != nil, l.ackDue, l.ackNow)
			}
			l.mu.Unlock()
			time.Sleep(ackDelay)
			synctest.Wait()
			l.mu.Lock()
			if l.ackNow == c.other {
				t.Errorf("%s: after ackDelay now %v", name, l.ackNow)
			}
			l.mu.Unlock()
		}
	})
}
