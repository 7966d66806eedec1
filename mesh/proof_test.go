package mesh

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/infrafabric/agentmesh/signaling"
	"github.com/infrafabric/agentmesh/turn"
	"github.com/infrafabric/agentmesh/witness"
)

// checked is a paper on which the path's own checks are counted.
type checked struct {
	*paper
	answered, received uint64
	rtt                time.Duration
}

func (c *checked) Checks() (uint64, time.Duration)  { return c.answered, c.rtt }
func (c *checked) Packets() (sent, received uint64) { return 0, c.received }

// TestJudgePath: what is known of a path when the time for its proof is over.
func TestJudgePath(t *testing.T) {
	for i, c := range []struct {
		why                                  Reason
		confirmed, greeted, acked, heard, up bool
		narrow, open                         bool
	}{
		{confirmed: true, up: true},
		{greeted: true, acked: true, up: true},
		{greeted: true, up: true, narrow: true, open: true},
		{greeted: true, open: true},
		{up: true, narrow: true, open: true},
		{open: true},
		{acked: true, up: true, narrow: true, open: true},
		{acked: true, heard: true, up: true, narrow: true, open: true},
		{heard: true, up: true, open: true},
		{why: ReasonStandby, up: true, open: true},
		{why: ReasonStandby, greeted: true, up: true, narrow: true, open: true},
	} {
		p := stillPeer(t)
		on := &checked{paper: newPaper(), answered: 4, received: 9}
		s := newSession(p.node, p.led, on, order{})
		s.why = c.why
		pr := &proof{session: s, hello: 1200, answered: 4, received: 9}
		on.queued = 1200
		if c.acked {
			on.queued = 1199
		}
		if c.heard {
			on.received++
		}
		if c.up {
			on.answered++
		}
		s.confirmed.Store(c.confirmed)
		if narrow, open := pr.judge(c.greeted); narrow != c.narrow || open != c.open {
			t.Errorf("%d: narrow %v, open %v", i, narrow, open)
		}
		pr.due = time.Now()
		if got := pr.pending(time.Now()); got != (!c.confirmed && !c.acked) {
			t.Errorf("%d: pending %v", i, got)
		}
		if pr.pending(pr.until()) {
			t.Errorf("%d: pending for ever", i)
		}
	}
	if new(proof).pending(time.Now()) {
		t.Error("a proof that has not begun is pending")
	}
}

// TestProofVerdict: a read that fails when the proof is due fails because of a narrow path,
// if that is there.
func TestProofVerdict(t *testing.T) {
	gone := errors.New("gone")
	synctest.Test(t, func(t *testing.T) {
		p := stillPeer(t)
		on := &checked{paper: newPaper(), answered: 4, rtt: 100 * time.Millisecond}
		s := newSession(p.node, p.led, on, order{})
		if err := s.proof.verdict(gone); err != gone {
			t.Errorf("before it has begun: %v", err)
		}
		pr := &proof{session: s, answered: 4, rtt: on.rtt, due: time.Now()}
		if err := pr.verdict(gone); err != gone {
			t.Errorf("nothing is checked: %v", err)
		}
		on.answered++
		for off, want := range map[time.Duration]error{
			0: ErrNarrowPath, pr.rtt + helloAgain: ErrNarrowPath, -pr.rtt - helloAgain: ErrNarrowPath,
			pr.rtt + helloAgain + 1: gone, -pr.rtt - helloAgain - 1: gone,
		} {
			pr.due = time.Now().Add(off)
			if err := pr.verdict(gone); err != want {
				t.Errorf("due in %v: %v", off, err)
			}
		}
		pr.due = time.Now()
		s.confirmed.Store(true)
		if err := pr.verdict(gone); err != gone {
			t.Errorf("a session that both have: %v", err)
		}
		if !pr.greet() || pr.greet() {
			t.Error("the hello comes once")
		}
		pr.found.Store(findingNarrow)
		if err := pr.verdict(gone); err != ErrNarrowPath || pr.greet() {
			t.Errorf("found narrow: %v", err)
		}
	})
}

// TestRelayStory: what part a relay had in an attempt that failed.
func TestRelayStory(t *testing.T) {
	relay := &turn.Relay{URL: "turn:r1.example"}
	p := stillPeer(t)
	a := &attempt{peer: p, why: ReasonDial, localTypes: candidateTypes{}}
	if got := a.relayStory(); got != "no relay is configured" {
		t.Error(got)
	}
	p.node.cfg.TURN = fixedRelays{}
	if got := a.relayStory(); got != "there was no relay to use" {
		t.Error(got)
	}
	a.why = ReasonDirectPath
	if got := a.relayStory(); got != "only a direct path was tried" {
		t.Error(got)
	}
	a.why, a.relay = ReasonDial, relay
	if got := a.relayStory(); got != "r1.example gave no address" {
		t.Error(got)
	}
	a.localTypes["relay"] = 1
	if got := a.relayStory(); got != "the relay r1.example did not help" {
		t.Error(got)
	}
	for i, c := range []struct {
		answered, relayOnly bool
		why                 Reason
		relay               *turn.Relay
		theirs              string
		waits               bool
	}{
		{true, false, ReasonDial, relay, "", true},
		{true, false, ReasonDial, nil, "r2.example", true},
		{true, false, ReasonDial, nil, "", false},
		{false, false, ReasonDial, relay, "", false},
		{true, true, ReasonDial, relay, "", false},
		{true, false, ReasonStandby, relay, "", false},
	} {
		a := &attempt{peer: p, answered: c.answered, relayOnly: c.relayOnly, why: c.why, relay: c.relay, theirRelay: c.theirs}
		if got := a.fallback() != nil; got != c.waits {
			t.Errorf("%d: takes a relay %v", i, got)
		}
	}
}

// TestMailIsBounded: so many envelopes of each kind wait for a Peer's loop; of those that
// begin something the author learns that there were too many.
func TestMailIsBounded(t *testing.T) {
	p := stillPeer(t)
	n := p.node
	id := newIdentity(t, "agent-b")
	envelope := func(kind signaling.Kind) verified {
		t.Helper()
		e := signaling.Envelope{Kind: kind, Mesh: n.cfg.Mesh, To: "agent-a", Instance: signaling.NewInstance(), Time: n.now(), Generation: 1, Body: []byte{1}}
		if kind == signaling.Candidate {
			e.Ref = signaling.Hash{1}
		}
		s, err := signaling.Seal(id, e)
		if err != nil {
			t.Fatal(err)
		}
		return verified{Sealed: s}
	}
	m := n.peers["agent-b"]
	done := make(chan struct{})
	defer close(done)
	go func() { // in place of the loop, which would take the mail
		for {
			select {
			case <-p.tasks:
			case <-done:
				return
			}
		}
	}()
	for i := range attemptInbox + 2 {
		if got := n.deliver(envelope(signaling.Candidate)); got != (i < attemptInbox) {
			t.Errorf("candidates %d: %v", i, got)
		}
	}
	for i := range maxAttempts + 2 {
		refusals := len(n.refusals)
		if !n.deliver(envelope(signaling.Offer)) {
			t.Error("an offer is to come again")
		}
		if refused := len(n.refusals) > refusals; refused != (i >= maxAttempts) {
			t.Errorf("offer %d: refused %v", i, refused)
		}
	}
	if len(m.mail) != attemptInbox+maxAttempts {
		t.Errorf("%d envelopes wait", len(m.mail))
	}
	if taken := n.takeMail(p); len(taken) != attemptInbox+maxAttempts || len(m.mail) != 0 {
		t.Errorf("%d were taken, %d are left", len(taken), len(m.mail))
	}
	if !n.deliver(envelope(signaling.Candidate)) || len(m.mail) != 1 {
		t.Error("no room when the mail was taken")
	}
	p.shut(goodbyeClosed, net.ErrClosed)
	if taken := n.takeMail(p); taken != nil || len(m.mail) != 1 {
		t.Error("a Peer that closes takes what is the next one's")
	}
	delete(n.peers, "agent-b")
	if n.deliver(envelope(signaling.Candidate)) {
		t.Error("candidates of no negotiation are taken")
	}
}

// TestReplayIsTold: an envelope whose nonce was used, or for which there is no memory, is
// told of; one that comes by two ways is not.
func TestReplayIsTold(t *testing.T) {
	events := &countedEvents{of: map[witness.Name]int{}}
	p := stillPeer(t)
	n := p.node
	n.obs.rec, n.obs.quiet = newEventQueue(events, n.log), false
	go n.obs.rec.run() // until close
	id := newIdentity(t, "agent-b")
	arrive := func(nonce byte, body byte) arrival {
		t.Helper()
		s, err := signaling.Seal(id, signaling.Envelope{Kind: signaling.Offer, Mesh: n.cfg.Mesh, To: "agent-a", Nonce: signaling.Nonce{nonce},
			Instance: signaling.Instance{1}, Time: n.now(), Generation: 1, Body: []byte{body}})
		if err != nil {
			t.Fatal(err)
		}
		return arrival{Sealed: s, via: "hub"}
	}
	first := arrive(1, 1)
	if !n.remembers(first, false) || n.remembers(first, false) {
		t.Error("an envelope is not new once")
	}
	if n.remembers(arrive(1, 2), false) {
		t.Error("a nonce is new twice")
	}
	old := arrive(1, 3)
	if old.stale = true; !n.remembers(old, false) {
		t.Error("a refusal that was waited for is held to be a replay")
	}
	n.obs.rec.close()
	if got := events.count(witness.ReplayRejected); got != 1 {
		t.Errorf("told %d times", got)
	}
}

// TestOneFlow: positions are those of the one flow there is, once.
func TestOneFlow(t *testing.T) {
	one := position{Flow: messageFlow, Credit: DefaultWindow}
	for i, c := range []struct {
		list []position
		ok   bool
	}{{nil, true}, {[]position{one}, true}, {[]position{one, one}, false}, {[]position{{Flow: messageFlow + 1}}, false}} {
		inDuel(t, func(t *testing.T, d *duel) {
			w := d.connect()
			p := d.accept()
			w.put((&positionsFrame{Positions: c.list}).encode())
			if c.ok {
				nothing(t, p)
			} else {
				w.ended(p, ErrProtocol)
			}
		})
		p := stillPeer(t)
		s := deadSession(p, 1, 1)
		h := helloOf(s)
		h.Positions = c.list
		if _, err := p.led.attach(s, h); (err == nil) != c.ok || err != nil && !errors.Is(err, ErrProtocol) {
			t.Errorf("%d: a hello with them: %v", i, err)
		}
		if _, err := p.led.stated(s, c.list); (err == nil) != c.ok {
			t.Errorf("%d: stated: %v", i, err)
		}
	}
}

// TestOwnAddressIsKept: a filtered network binds to the address that it is asked for.
func TestOwnAddressIsKept(t *testing.T) {
	lo, err := LoopbackNet()
	if err != nil {
		t.Fatal(err)
	}
	f, err := FilterNet(lo, NetFilter{Address: netip.Addr.IsLoopback})
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(127, 0, 0, 7)} {
		c, err := f.ListenUDP("udp4", &net.UDPAddr{IP: at})
		if err != nil {
			t.Logf("%v: %v", at, err) // not every system has all of 127/8
			continue
		}
		if got := c.LocalAddr().(*net.UDPAddr); !got.IP.Equal(at) {
			t.Errorf("at %v in place of %v", got, at)
		}
		c.Close()
	}
	a := &net.UDPAddr{IP: net.IPv6loopback, Port: 7}
	if got, err := f.(interface {
		bind(string, *net.UDPAddr) (net.UDPAddr, error)
	}).bind("udp", a); err != nil || !got.IP.Equal(net.IPv6loopback) || got.Port != 7 || &got == a {
		t.Errorf("%v, %v", got, err)
	}
}

// TestClocksPart: when the clocks part, a Peer looks at its relay and its session, and one
// without a session makes one.
func TestClocksPart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := stillPeer(t)
		on := newPaper()
		s := newSession(p.node, p.led, on, order{generation: 1})
		s.bind = binding{remote: p.id, remoteInst: signaling.Instance{1}}
		if err := p.attach(newAttempt(p, s.order, true), s, helloOf(s)); err != nil {
			t.Fatal(err)
		}
		s.owned, s.own = true, &turn.Relay{URL: "turn:r1.example"}
		p.ranked = []turn.Relay{{URL: "turn:r2.example"}}
		frames := len(on.frames)
		p.clocksParted(time.Hour)
		if p.renew.IsZero() {
			t.Error("the relay was not looked at")
		}
		if len(on.frames) != frames+1 {
			t.Errorf("%d frames were sent", len(on.frames)-frames)
		}
		s.doubted.Store(true)
		p.machine.hinted = time.Now()
		if p.clocksParted(time.Hour); !p.machine.hinted.IsZero() && p.machine.hinted.Equal(time.Now()) && len(p.attempts) == 0 {
			t.Error("a session in doubt is left in doubt")
		}
	})
}

// TestFreshAddress: what a change of the network means for a Peer depends on whether it may
// take its path away, or only offers a better one.
func TestFreshAddress(t *testing.T) {
	fresh := []located{{addr: netip.MustParseAddr("192.0.2.9")}}
	for i, c := range []struct {
		c             *change
		session       bool
		relayed       bool
		tries, sooner bool
	}{
		{&change{all: true}, false, false, true, false},
		{&change{rerouted: true}, false, false, true, false},
		{&change{}, false, false, false, false},
		{&change{fresh: fresh}, true, true, false, true},
		{&change{fresh: fresh}, true, false, false, false},
		{&change{}, true, true, false, false},
	} {
		p := stillPeer(t)
		p.machine.dialling = true
		if c.session {
			s := deadSession(p, 1, 1)
			if c.relayed {
				s.relay = "r1.example"
			}
			if err := p.attach(newAttempt(p, s.order, true), s, helloOf(s)); err != nil {
				t.Fatal(err)
			}
		}
		direct := p.machine.direct
		if direct.IsZero() == c.relayed {
			t.Fatalf("%d: a direct path is tried at %v", i, direct)
		}
		p.networkChanged(c.c)
		if got := len(p.attempts) > 0; got != c.tries {
			t.Errorf("%d: %d attempts, %+v", i, len(p.attempts), p.Status())
		}
		if sooner := p.machine.direct.Before(direct); sooner != c.sooner {
			t.Errorf("%d: a direct path is tried at %v in place of %v", i, p.machine.direct, direct)
		}
		p.giveUp(func(*attempt) bool { return true })
	}
}
