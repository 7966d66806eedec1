package mesh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/transport/v5"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
	"github.com/infrafabric/agentmesh/turn"
)

// TestChangesMissed: a reader that is too slow hears how many changes it missed, once, and
// then every one in order; a new reader begins with the present state.
func TestChangesMissed(t *testing.T) {
	l := new(changeLog)
	if c := l.last(); c.State != StateConnecting || c.From != StateConnecting {
		t.Errorf("before the first change: %+v", c)
	}
	const more = 5
	for i := range maxChanges + more {
		l.add(Change{Attempt: i})
	}
	next := 2 // two were read before
	for i := range maxChanges {
		c, after, wait, over := l.from(next)
		want := Change{Attempt: more + i}
		if i == 0 {
			want.Missed = more - 2
		}
		if c != want || wait != nil || over || after != more+i+1 {
			t.Fatalf("%d: %+v, then from %d", i, c, after)
		}
		next = after
	}
	if _, after, wait, over := l.from(next); wait == nil || over || after != next {
		t.Errorf("at the end: %d, %v", after, over)
	}
	if c := l.last(); c.Attempt != maxChanges+more-1 {
		t.Errorf("the last is %+v", c)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for c := range l.all(ctx) {
		if c.Attempt != maxChanges+more-1 || c.Missed != 0 {
			t.Errorf("a new reader begins with %+v", c)
		}
		cancel()
	}
	for range l.all(ctx) {
		break
	}
	l.end()
	if _, _, _, over := l.from(next); !over {
		t.Error("the end is not told")
	}
	n := 0
	for range l.all(t.Context()) {
		n++
	}
	if n != 1 {
		t.Errorf("a reader after the end hears %d changes", n)
	}
}

// TestStories: in what words an attempt that failed tells how far it came.
func TestStories(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lost := errors.New("the line is gone")
		for want, change := range map[string]func(a *attempt){
			"offer not sent; the line is gone":                            func(a *attempt) { a.offerer = true },
			"offer sent through ws://s1/; the line is gone":               func(a *attempt) { a.offerer, a.server = true, "ws://s1/" },
			"wish for an offer sent through ws://s1/; the line is gone":   func(a *attempt) { a.asks, a.server = true, "ws://s1/" },
			"answer to its offer sent through ws://s1/; the line is gone": func(a *attempt) { a.server = "ws://s1/" },
			"offer not sent; no answer within 3s":                         func(a *attempt) { a.offerer, a.err = true, errAttemptTimeout },
			"offer sent through x; no answer within 3s":                   func(a *attempt) { a.offerer, a.server, a.err = true, "x", errAbandoned },
			"answer to its offer not sent; no answer within 3s":           func(a *attempt) { a.err = context.DeadlineExceeded },
			"connected, but the line is gone":                             func(a *attempt) { a.offerer, a.answered, a.connectedPath = true, true, true },
			"nobody: " + ErrAbsent.Error():                                func(a *attempt) { a.offerer, a.err = true, fmt.Errorf("nobody: %w", ErrAbsent) },
			errYielded.Error():                                            func(a *attempt) { a.offerer, a.err = true, errYielded },
			"offer not sent; no path found between local candidates (2 host, 1 relay) and remote ones (none), and no relay is configured": func(a *attempt) {
				a.offerer, a.answered = true, true
				a.localTypes["host"], a.localTypes["relay"] = 2, 1
			},
		} {
			p := stillPeer(t)
			a := newAttempt(p, order{}, false)
			a.err = lost
			change(a)
			time.Sleep(3 * time.Second)
			if got := a.story(); got != want {
				t.Errorf("%q, want %q", got, want)
			}
		}
		for want, change := range map[string]func(a *attempt){
			"only a direct path was tried":        func(a *attempt) { a.why = ReasonDirectPath },
			"there was no relay to use":           func(*attempt) {},
			"turn.example gave no address":        func(a *attempt) { a.relay = &turn.Relay{URL: "turn:turn.example"} },
			"the relay turn.example did not help": func(a *attempt) { a.relay, a.localTypes["relay"] = &turn.Relay{URL: "turn:turn.example"}, 1 },
		} {
			p := stillPeer(t)
			p.node.cfg.TURN = fixedRelays{}
			a := newAttempt(p, order{}, true)
			change(a)
			if got := a.relayStory(); !strings.HasPrefix(got, want) {
				t.Errorf("%q, want %q", got, want)
			}
		}
	})
}

// TestWhoWithdraws: only the other side, in the process that it was when it answered, withdraws.
func TestWhoWithdraws(t *testing.T) {
	for name, c := range map[string]struct {
		change func(e *signaling.Envelope, key *keys.PublicKey)
		ends   bool
	}{
		"a reject":            {func(*signaling.Envelope, *keys.PublicKey) {}, true},
		"a candidate":         {func(e *signaling.Envelope, _ *keys.PublicKey) { e.Kind = signaling.Candidate }, false},
		"under another key":   {func(_ *signaling.Envelope, k *keys.PublicKey) { *k = keyOfNobody() }, false},
		"of another instance": {func(e *signaling.Envelope, _ *keys.PublicKey) { e.Instance[0] = 9 }, false},
		"all of that": {func(e *signaling.Envelope, k *keys.PublicKey) {
			e.Kind, e.Instance[0], *k = signaling.Answer, 9, keyOfNobody()
		}, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			a := newAttempt(stillPeer(t), order{}, true)
			a.key, a.bind.remoteInst = keyOfNobody(), signaling.Instance{1}
			v := verified{Sealed: &signaling.Sealed{Envelope: signaling.Envelope{Kind: signaling.Reject, From: "agent-b",
				Instance: a.bind.remoteInst, Body: (&rejectBody{Code: rejectBusy, Text: "closing"}).encode()}}}
			v.Key = a.key
			c.change(&v.Envelope, &v.Key)
			ctx, cancel := context.WithCancelCause(t.Context())
			ended := make(chan struct{})
			go func() { a.heed(ctx, cancel); close(ended) }()
			a.deliver(v)
			synctest.Wait()
			var r *rejectedError
			if got := errors.As(context.Cause(ctx), &r); got != c.ends || (ctx.Err() != nil) != c.ends {
				t.Errorf("%s: %v", name, context.Cause(ctx))
			}
			cancel(nil)
			<-ended
		})
	}
}

// TestUndial: what is given up when nobody waits for a dial any more.
func TestUndial(t *testing.T) {
	const nothing, ends, stays = "nothing", "ends", "stays"
	for name, c := range map[string]struct {
		change func(p *Peer, m *member)
		want   string
	}{
		"nobody waits":          {func(*Peer, *member) {}, ends},
		"somebody waits":        {func(_ *Peer, m *member) { m.waiters = 1 }, nothing},
		"it is connected":       {func(_ *Peer, m *member) { m.connected = true }, nothing},
		"it is not the node's":  {func(p *Peer, _ *member) { delete(p.node.peers, p.id) }, nothing},
		"it is another's place": {func(p *Peer, _ *member) { p.node.peers[p.id] = &member{} }, nothing},
		"it has ended":          {func(p *Peer, _ *member) { p.cancel(net.ErrClosed) }, nothing},
		"the other side dials":  {func(p *Peer, _ *member) { answering(p) }, stays},
		"the other side waits": {func(p *Peer, _ *member) {
			p.deferred = &deferredOffer{v: wished(signaling.Offer, ReasonDial, 9, 1), at: time.Now().Add(time.Hour)}
		}, stays},
		"that, but too many are there": {func(p *Peer, _ *member) { answering(p); p.node.incoming = maxIncoming }, ends},
		"that, and there is one place": {func(p *Peer, _ *member) { answering(p); p.node.incoming = maxIncoming - 1 }, stays},
	} {
		p := stillPeer(t)
		a, _ := under(p, ReasonDial, 3)
		var cause error
		a.cancel = func(err error) { cause = err }
		m := p.node.peers[p.id]
		c.change(p, m)
		before := p.node.incoming
		own := p.undial()
		got := nothing
		switch {
		case m.abandoned:
			got = ends
		case !m.dialled:
			got = stays
		}
		if got != c.want || slices.Contains(own, a) != (c.want != nothing) {
			t.Errorf("%s: %s, %d attempts of its own", name, got, len(own))
		}
		if (p.node.incoming == before+1) != (got == stays) || errors.Is(cause, errAbandoned) != (got == stays) || slices.Contains(p.attempts, a) == (got == stays) {
			t.Errorf("%s: %d incoming, %v", name, p.node.incoming, cause)
		}
		if c.want == ends && !errors.Is(context.Cause(p.ctx), errAbandoned) {
			t.Errorf("%s: %v", name, context.Cause(p.ctx))
		}
		for _, a := range own {
			if a.answers != nil && got == stays {
				t.Errorf("%s: the other side's attempt was given up", name)
			}
		}
		p.deferred = nil
		p.giveUp(func(*attempt) bool { return true })
	}
}

// answering has an attempt of the other side's under way.
func answering(p *Peer) *attempt {
	a, _ := under(p, ReasonDial, 4)
	a.offerer, a.answers = false, wished(signaling.Offer, ReasonDial, 4, 1).Sealed
	return a
}

// TestStandbyRelays: which relay a standby takes, beside the way that the session in use has.
func TestStandbyRelays(t *testing.T) {
	r := func(url string, down bool) turn.Relay {
		return turn.Relay{URL: url, Username: "u", Password: "p", Down: down}
	}
	udp, tcp, other := r("turn:192.0.2.1", false), r("turn:192.0.2.1?transport=tcp", false), r("turn:192.0.2.2", false)
	for name, c := range map[string]struct {
		ranked fixedRelays
		theirs string
		beside *session
		want   string
	}{
		"none is offered":               {nil, "192.0.2.1", nil, ""},
		"theirs":                        {fixedRelays{other, udp}, "192.0.2.1", nil, udp.URL},
		"another one only":              {fixedRelays{other}, "192.0.2.1", nil, ""},
		"theirs is down":                {fixedRelays{r("turn:192.0.2.1", true)}, "192.0.2.1", nil, ""},
		"theirs, another way":           {fixedRelays{udp, tcp}, "192.0.2.1", &session{own: &udp}, tcp.URL},
		"theirs, no way but this":       {fixedRelays{udp}, "192.0.2.1", &session{own: &udp}, ""},
		"theirs, and the other is used": {fixedRelays{udp, tcp}, "192.0.2.1", &session{own: &other}, udp.URL},
		"theirs, and none is used":      {fixedRelays{udp, tcp}, "192.0.2.1", &session{}, udp.URL},
	} {
		p := stillPeer(t)
		p.node.cfg.TURN = c.ranked
		a := newAttempt(p, order{}, false)
		a.why, a.theirRelay, a.beside = ReasonStandby, c.theirs, c.beside
		got := ""
		if r := a.besideRelay(t.Context()); r != nil {
			got = r.URL
		}
		if got != c.want {
			t.Errorf("%s: %q", name, got)
		}
		if c.beside == nil {
			if r := a.secondRelay(t.Context()); r != nil {
				t.Errorf("%s: %v beside nothing", name, r)
			}
		}
		a.offerer = true
		if _, err := a.options(t.Context()); c.beside == nil && !errors.Is(err, errNoRelay) {
			t.Errorf("%s: offered beside nothing: %v", name, err)
		}
		a.offerer = false
		p.node.cfg.Paths.RelayOnly = true
		if o, err := a.options(t.Context()); errors.Is(err, errNoRelay) != (c.want == "") || c.want != "" && o.relay.URL != c.want {
			t.Errorf("%s: with relays only: %v", name, err)
		}
	}
}

// TestLongReason: what is told of a refusal has a limit and no character that a terminal obeys.
func TestLongReason(t *testing.T) {
	p := stillPeer(t)
	for text, want := range map[string]string{
		"short":                          "short",
		strings.Repeat("x", maxReason):   strings.Repeat("x", maxReason),
		strings.Repeat("x", maxReason+1): strings.Repeat("x", maxReason),
	} {
		p.node.refuse(refusal{to: "agent-b"}, rejectBusy, text)
		r := <-p.node.refusals
		if r.body.Text != want || r.body.Code != rejectBusy || r.to != "agent-b" {
			t.Errorf("%+v", r)
		}
	}
	p.node.rejects.SetLimit(0)
	p.node.rejects.SetBurst(0)
	p.node.refuse(refusal{to: "agent-b"}, rejectBusy, "x")
	if n := len(p.node.refusals); n != 0 {
		t.Errorf("%d beyond the rate", n)
	}
}

// takingConn takes candidates.
type takingConn struct {
	*deadConn
	taken []string
}

func (c *takingConn) AddCandidate(s string) error {
	c.taken = append(c.taken, s)
	return nil
}

// TestWhoseCandidates: candidates are used when they are the other side's, of the process that
// answered, and make sense.
func TestWhoseCandidates(t *testing.T) {
	const good = "candidate:1 1 udp 2130706431 192.0.2.7 4711 typ host"
	for name, c := range map[string]struct {
		change func(v *verified)
		taken  int
	}{
		"its own":             {func(*verified) {}, 1},
		"under another key":   {func(v *verified) { v.Key = keyOfNobody() }, 0},
		"of another instance": {func(v *verified) { v.Instance[0] = 9 }, 0},
		"junk":                {func(v *verified) { v.Body = []byte{0xff} }, 0},
		"one of two": {func(v *verified) {
			v.Body = (&candidateBody{Candidates: []string{"candidate:nonsense", good}}).encode()
		}, 1},
	} {
		conn := &takingConn{deadConn: newDeadConn()}
		a := newAttempt(stillPeer(t), order{}, true)
		a.conn, a.key, a.bind.remoteInst = conn, keyOfNobody(), signaling.Instance{1}
		v := verified{Sealed: &signaling.Sealed{Envelope: signaling.Envelope{Kind: signaling.Candidate, From: "agent-b",
			Instance: a.bind.remoteInst, Body: (&candidateBody{Candidates: []string{good}}).encode()}}}
		v.Key = a.key
		c.change(&v)
		a.addCandidates(v)
		if len(conn.taken) != c.taken || a.remoteTypes["host"] != c.taken || c.taken == 1 && conn.taken[0] != good {
			t.Errorf("%s: %q, %v", name, conn.taken, a.remoteTypes)
		}
	}
}

// TestMalformedAnswer: an answer that cannot be read ends the attempt with an error, and what is bound
// to it stays as it was.
func TestMalformedAnswer(t *testing.T) {
	a := newAttempt(stillPeer(t), order{}, true)
	a.conn = newDeadConn()
	v := wished(signaling.Answer, ReasonDial, 1, 1)
	v.Body = []byte{0xff}
	if err := a.accept(v); err == nil || a.answered || a.bind.remoteInst != (signaling.Instance{}) {
		t.Errorf("%v, answered %v", err, a.answered)
	}
}

// TestWhereARelayIs: it is where it was measured, otherwise at an address of its name of a
// family that this machine has.
func TestWhereARelayIs(t *testing.T) {
	n := stillPeer(t).node
	for name, c := range map[string]struct {
		relay turn.Relay
		want  string // "" is an error
	}{
		"measured":    {turn.Relay{URL: "turn:r.invalid:5000", Address: netip.MustParseAddr("192.0.2.5")}, "192.0.2.5:5000"},
		"an address":  {turn.Relay{URL: "turns:192.0.2.6"}, "192.0.2.6:5349"},
		"no TURN URL": {turn.Relay{URL: "http://192.0.2.6"}, ""},
		"no name":     {turn.Relay{URL: "turn:r..invalid"}, ""},
	} {
		at, err := n.relayAt(t.Context(), &c.relay)
		if (err != nil) != (c.want == "") || c.want != "" && at.String() != c.want {
			t.Errorf("%s: %v, %v", name, at, err)
		}
	}
}

// TestHostNetKeepsItsList: a list that was good stays while there is none to be had, and one that was made
// of routes is made again.
func TestHostNetKeepsItsList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newHostNet()
		broken := errors.New("netlink is not allowed")
		n.list = func() ([]*transport.Interface, error) { return interfaces(lanHardware), nil }
		expectAddresses(t, "good", n, "10.0.0.2/24")
		n.list = func() ([]*transport.Interface, error) { return nil, syscall.EMFILE }
		for range 3 {
			n.refresh()
			expectAddresses(t, "no descriptor", n, "10.0.0.2/24")
			time.Sleep(2 * interfacesFresh)
		}
		if n.shortOf() != nil {
			t.Errorf("short of %v", n.shortOf())
		}
		// The first list of a machine that has none.
		n = newHostNet()
		route := netip.MustParseAddr("10.0.0.9")
		n.route = func(six bool) netip.Addr {
			if six {
				return netip.Addr{}
			}
			return route
		}
		n.list = func() ([]*transport.Interface, error) { return nil, broken }
		if got := addressesOf(t, n); !slices.ContainsFunc(got, func(a string) bool { return strings.HasPrefix(a, "10.0.0.9") }) || !errors.Is(n.shortOf(), broken) {
			t.Errorf("%v, short of %v", got, n.shortOf())
		}
		route = netip.MustParseAddr("10.0.0.10")
		time.Sleep(interfacesFresh)
		if got := addressesOf(t, n); !slices.ContainsFunc(got, func(a string) bool { return strings.HasPrefix(a, "10.0.0.10") }) {
			t.Errorf("later %v", got)
		}
	})
}

// TestAddressesOfInterfaces: what is the address of an interface, and what is none.
func TestAddressesOfInterfaces(t *testing.T) {
	for _, c := range []struct {
		a    net.Addr
		want string // "" is none
	}{
		{&net.IPNet{IP: net.IPv4(192, 0, 2, 1), Mask: net.CIDRMask(24, 32)}, "192.0.2.1"},
		{&net.IPAddr{IP: net.ParseIP("2001:db8::1")}, "2001:db8::1"},
		{&net.IPNet{}, ""},
		{&net.UnixAddr{Name: "x"}, ""},
	} {
		got, ok := addressOf(c.a)
		if ok != (c.want != "") || ok && got.String() != c.want {
			t.Errorf("%v: %v, %v", c.a, got, ok)
		}
	}
	var r *lastRefusal
	r.note(errors.New("x")) // of a network that does not ask
	r = new(lastRefusal)
	before := time.Now()
	r.note(net.ErrClosed)
	if !errors.Is(r.since(before), net.ErrClosed) || r.since(time.Now().Add(time.Second)) != nil {
		t.Error("the last refusal is not that of its time")
	}
}

// TestNothingKnown: news of what is not known change nothing.
func TestNothingKnown(t *testing.T) {
	p, s := metPeer(t, 5)
	a, gone := under(p, ReasonLost, 6)
	p.absent(signaling.Hash{9}, "ws://s1/")
	if len(p.missing) != 0 || len(a.absent) != 0 || gone() {
		t.Errorf("of another offer: %q", a.absent)
	}
	p.relaysChanged(nil, []turn.Relay{})
	if gone() || p.ranked != nil {
		t.Error("there are no relays, and that has ended an attempt")
	}
	other := newAttempt(p, order{generation: 7}, true)
	p.lastErr = nil
	p.promotionLate(other)
	if other.late || p.lastErr != nil {
		t.Error("a standby that was given up is late")
	}
	p.held(other)
	if p.spare.held != nil || gone() {
		t.Error("a standby that was given up is held")
	}
	if err := p.led.skipTo(s, &skipFrame{Flow: messageFlow + 1}); err == nil || !strings.Contains(err.Error(), "unknown flow") {
		t.Errorf("a skip on another flow: %v", err)
	}
	former := deadSession(p, 6, 2) // of an instance that is not the other side's
	_, stated := p.led.stated(former, []position{{Flow: messageFlow}})
	for what, err := range map[string]error{
		"skip":     p.led.skipTo(former, &skipFrame{Flow: messageFlow, Number: 2}),
		"position": stated,
		"record":   p.led.accept(former, []Message{{SequenceNum: 1}}, [][]byte{{1}}),
	} {
		if !errors.Is(err, ErrReplaced) {
			t.Errorf("a %s of another instance: %v", what, err)
		}
	}
	r := newReplayMemory()
	r.sweep(time.Now(), keyOfNobody())
	r.expire(time.Now(), keyOfNobody())
	if len(r.keys) != 0 {
		t.Error("a key that was never seen is remembered")
	}
	ls := p.node.ledgers
	ls.release(&ledger{remote: "agent-z"})
	ls.release(&ledger{remote: p.id})
	if ls.lookup(p.id) != p.led || ls.idle.Len() != 0 {
		t.Error("the ledger of another was released")
	}
}

// TestNobodyAccepts: a Peer for which there is no room before Accept is closed with the reason, and
// one that was dialled, or that a Handler serves, needs none.
func TestNobodyAccepts(t *testing.T) {
	for name, c := range map[string]struct {
		dialled, handled, full bool
		waits, ended           bool
	}{
		"room":         {waits: true},
		"none":         {full: true, ended: true},
		"dialled":      {dialled: true, full: true},
		"with Handler": {handled: true, full: true},
	} {
		p := stillPeer(t)
		n := p.node
		n.peers[p.id].dialled = c.dialled
		if c.handled {
			n.cfg.Handler = func(context.Context, *Peer, Message) {}
		}
		n.incoming = 1
		for c.full && len(n.accepted) < cap(n.accepted) {
			n.accepted <- p
		}
		before := len(n.accepted)
		if !n.connected(p) || n.connected(p) {
			t.Errorf("%s: not the first session, or twice", name)
		}
		if (len(n.accepted) == before+1) != c.waits || errors.Is(context.Cause(p.ctx), ErrTooMany) != c.ended || (n.incoming == 0) == c.dialled {
			t.Errorf("%s: %d wait, %v, %d incoming", name, len(n.accepted), context.Cause(p.ctx), n.incoming)
		}
	}
}

// TestJoined: parts that do not make up one batch are a protocol error.
func TestJoined(t *testing.T) {
	for name, parts := range map[string][]partFrame{
		"as small as a frame": {{Total: maxFrame, Bytes: []byte("x")}},
		"too large":           {{Total: maxJoined + 1, Bytes: []byte("x")}},
		"an empty part":       {{Total: maxFrame + 1}},
		"not from the start":  {{Total: maxFrame + 1, Offset: 1, Bytes: []byte("x")}},
		"a gap":               {{Total: maxFrame + 2, Bytes: []byte("x")}, {Total: maxFrame + 2, Offset: 2, Bytes: []byte("x")}},
		"another total":       {{Total: maxFrame + 2, Bytes: []byte("x")}, {Total: maxFrame + 3, Offset: 1, Bytes: []byte("x")}},
		"more than the total": {{Total: maxFrame + 1, Bytes: make([]byte, maxFrame)}, {Total: maxFrame + 1, Offset: maxFrame, Bytes: []byte("xy")}},
		"no frame":            {{Total: maxFrame + 1, Bytes: make([]byte, maxFrame)}, {Total: maxFrame + 1, Offset: maxFrame, Bytes: []byte("x")}},
	} {
		s := newSession(stillPeer(t).node, nil, newDeadConn(), order{})
		for i, f := range parts {
			err := s.part(f.encode())
			if last := i == len(parts)-1; errors.Is(err, ErrProtocol) != last || !last && err != nil {
				t.Errorf("%s, part %d: %v", name, i, err)
			}
		}
	}
}

func (c *takingConn) Accept(string) error { return nil }

// TestCandidatesBeforeTheAnswer: candidates that overtake the answer are kept, as many as are used, and
// used when it has come.
func TestCandidatesBeforeTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := stillPeer(t)
		conn := &takingConn{deadConn: newDeadConn()}
		a := newAttempt(p, order{generation: 5}, true)
		a.why, a.conn, a.key = ReasonDial, conn, keyOfNobody()
		offer, err := signaling.Seal(newIdentity(t, "agent-a"), signaling.Envelope{Kind: signaling.Offer, Mesh: "m", To: "agent-b",
			Instance: signaling.NewInstance(), Generation: 5, Body: []byte("x")})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- a.connect(ctx, offer) }()
		candidate := func(i int) verified {
			v := verified{Sealed: &signaling.Sealed{Envelope: signaling.Envelope{Kind: signaling.Candidate, From: "agent-b", Instance: signaling.Instance{1},
				Body: (&candidateBody{Candidates: []string{fmt.Sprintf("candidate:1 1 udp 2130706431 192.0.2.%d 4711 typ host", i+1)}}).encode()}}}
			v.Key = a.key
			return v
		}
		for i := range maxRemoteCandidates + 10 {
			a.deliver(candidate(i))
			synctest.Wait()
		}
		if len(conn.taken) != 0 {
			t.Errorf("%d are used before the answer", len(conn.taken))
		}
		answer := wished(signaling.Answer, ReasonDial, 5, 1)
		answer.Key, answer.Body = a.key, wished(signaling.Offer, ReasonDial, 5, 1).Body
		a.deliver(answer)
		synctest.Wait()
		if len(conn.taken) != maxHostAddresses && len(conn.taken) != maxRemoteCandidates {
			t.Errorf("%d are used", len(conn.taken))
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	})
}
