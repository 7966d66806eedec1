package mesh

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
	"github.com/infrafabric/agentmesh/witness"
)

// said is a log of which a test reads the messages, or the reasons that they give.
type said struct{ all []string }

func (s *said) Enabled(context.Context, slog.Level) bool { return true }
func (s *said) WithAttrs([]slog.Attr) slog.Handler       { return s }
func (s *said) WithGroup(string) slog.Handler            { return s }

func (s *said) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "reason" {
			text = a.Value.String()
		}
		return true
	})
	s.all = append(s.all, text)
	return nil
}

// learning is a policy that learns.
type learning struct{ keys.Trust }

func (learning) Learn(context.Context, keys.Claim) error { return nil }

// TestTheDoor: what becomes of an envelope before trust is asked, and what is said of it.
func TestTheDoor(t *testing.T) {
	const judged = "judged"
	away := func(n *Node, e *signaling.Sealed, d keys.Decision) {
		n.verdicts.put(author{e.From, e.Key}, keys.Verdict{Decision: d})
		n.rejects.SetLimit(0)
		n.rejects.SetBurst(0)
	}
	old := func(e *signaling.Envelope) { e.Time = e.Time.Add(-freshness - time.Second) }
	kind := func(k signaling.Kind) func(e *signaling.Envelope) {
		return func(e *signaling.Envelope) { e.Kind, e.Ref = k, signaling.Hash{7} }
	}
	both := func(all ...func(e *signaling.Envelope)) func(e *signaling.Envelope) {
		return func(e *signaling.Envelope) {
			for _, f := range all {
				f(e)
			}
		}
	}
	for name, c := range map[string]struct {
		change func(e *signaling.Envelope)
		before func(p *Peer, e *signaling.Sealed)
		forge  bool
		want   string // "" is silence
	}{
		"an offer":               {want: judged},
		"an ask":                 {change: func(e *signaling.Envelope) { e.Kind = signaling.Ask }, want: judged},
		"at the last moment":     {change: func(e *signaling.Envelope) { e.Time = e.Time.Add(-freshness + time.Second) }, want: judged},
		"at the first":           {change: func(e *signaling.Envelope) { e.Time = e.Time.Add(freshness - time.Second) }, want: judged},
		"an old offer":           {change: old, want: judged + ", stale"},
		"an offer of the future": {change: func(e *signaling.Envelope) { e.Time = e.Time.Add(freshness + time.Minute) }, want: judged + ", stale"},
		"an old offer of one who is known": {change: old, before: func(p *Peer, e *signaling.Sealed) {
			p.node.replays.remember(p.node.now(), e.Key, [16]byte{8}, signaling.Hash{8}, p.node.now())
		}, want: string(witness.ReplayRejected)},
		"too many old offers": {change: old, before: func(p *Peer, _ *signaling.Sealed) { p.node.stales.SetLimit(0); p.node.stales.SetBurst(0) },
			want: string(witness.ReplayRejected)},
		"an old candidate":         {change: both(old, kind(signaling.Candidate)), before: theirs, want: string(witness.ReplayRejected)},
		"an old reject of nothing": {change: both(old, kind(signaling.Reject)), before: theirs, want: string(witness.ReplayRejected)},
		"an old reject that is awaited": {change: both(old, kind(signaling.Reject)), before: func(p *Peer, e *signaling.Sealed) {
			theirs(p, e)
			p.node.awaited[signaling.Hash{7}] = p
		}, want: judged + ", stale"},
		"an old candidate for what is awaited": {change: both(old, kind(signaling.Candidate)), before: func(p *Peer, e *signaling.Sealed) {
			theirs(p, e)
			p.node.awaited[signaling.Hash{7}] = p
		}, want: string(witness.ReplayRejected)},
		"again": {before: func(p *Peer, e *signaling.Sealed) {
			p.node.replays.remember(p.node.now(), e.Key, e.Nonce, e.Hash(), e.Time)
		}},
		"again, of a stranger": {before: func(p *Peer, e *signaling.Sealed) {
			p.node.strangers.remember(p.node.now(), e.Key, e.Nonce, e.Hash(), e.Time)
		}},
		"again, and old": {change: old, before: func(p *Peer, e *signaling.Sealed) {
			p.node.strangers.remember(p.node.now(), e.Key, e.Nonce, e.Hash(), e.Time)
		}, want: string(witness.ReplayRejected)},
		"a nonce again": {before: func(p *Peer, e *signaling.Sealed) {
			p.node.replays.remember(p.node.now(), e.Key, e.Nonce, signaling.Hash{9}, e.Time)
		}, want: string(witness.ReplayRejected)},
		"a generation far ahead":   {change: func(e *signaling.Envelope) { e.Generation = 1 << 50 }, want: "generation in the future"},
		"a candidate of nothing":   {change: kind(signaling.Candidate), before: func(p *Peer, _ *signaling.Sealed) { delete(p.node.peers, p.id) }},
		"a candidate":              {change: kind(signaling.Candidate), before: theirs, want: judged},
		"too many bad signatures":  {before: func(p *Peer, e *signaling.Sealed) { spent(p.node, "hub", e.Key) }, want: "too many bad signatures"},
		"too many, by another way": {before: func(p *Peer, e *signaling.Sealed) { spent(p.node, "other", e.Key) }, want: judged},
		"too many, of another key": {before: func(p *Peer, _ *signaling.Sealed) { spent(p.node, "hub", keyOfNobody()) }, want: judged},
		"forged":                   {forge: true, want: string(witness.SignatureVerificationFailed)},
		"refused lately": {before: func(p *Peer, e *signaling.Sealed) {
			p.node.verdicts.put(author{e.From, e.Key}, keys.Verdict{Decision: keys.Refused})
		}, want: judged},
		"refused lately, and no answer": {before: func(p *Peer, e *signaling.Sealed) { away(p.node, e, keys.Refused) }, want: string(witness.UnauthorizedConnectionAttempt)},
		"unknown lately, and no answer": {before: func(p *Peer, e *signaling.Sealed) { away(p.node, e, keys.Unknown) }, want: string(witness.UnauthorizedConnectionAttempt)},
		"a friend, and no answer":       {before: func(p *Peer, e *signaling.Sealed) { away(p.node, e, keys.Yes) }, want: judged},
		"to be learned, and no answer": {before: func(p *Peer, e *signaling.Sealed) {
			away(p.node, e, keys.Unknown)
			p.node.cfg.Trust = learning{p.node.cfg.Trust}
		}, want: judged},
		"to be learned, not dialled": {before: func(p *Peer, e *signaling.Sealed) {
			away(p.node, e, keys.Unknown)
			p.node.cfg.Trust = learning{p.node.cfg.Trust}
			p.node.peers[p.id].dialled = false
		}, want: string(witness.UnauthorizedConnectionAttempt)},
		"too many keys":         {before: func(p *Peer, _ *signaling.Sealed) { noNewKeys(p.node) }, want: "too many envelopes under new keys"},
		"too many keys, a Peer": {before: func(p *Peer, e *signaling.Sealed) { theirs(p, e); noNewKeys(p.node) }, want: judged},
		"too many keys, refused": {before: func(p *Peer, e *signaling.Sealed) {
			noNewKeys(p.node)
			p.node.verdicts.put(author{e.From, e.Key}, keys.Verdict{Decision: keys.Refused})
		}, want: judged},
		"no room":                    {before: func(p *Peer, _ *signaling.Sealed) { p.node.gate.strangers.bytes = maxJudgingBytes }, want: "too many envelopes wait"},
		"no room for strangers only": {before: func(p *Peer, e *signaling.Sealed) { theirs(p, e); p.node.gate.strangers.bytes = maxJudgingBytes }, want: judged},
	} {
		p := stillPeer(t)
		n := p.node
		log := new(said)
		n.obs.log = slog.New(log)
		var got []string
		n.gate.judge = func(a arrival) {
			text := judged
			if a.stale {
				text += ", stale"
			}
			if a.via != "hub" || a.carrier != "agent-c" || a.From != "agent-b" {
				t.Errorf("%s: it came by %q and %q", name, a.via, a.carrier)
			}
			got = append(got, text)
		}
		e := signaling.Envelope{Kind: signaling.Offer, Mesh: n.cfg.Mesh, To: "agent-a", Instance: signaling.NewInstance(),
			Time: n.now(), Generation: 1, Body: []byte("body of an envelope")}
		if c.change != nil {
			c.change(&e)
		}
		sealed, err := signaling.Seal(newIdentity(t, "agent-b"), e)
		if err != nil {
			t.Fatal(err)
		}
		raw := slices.Clone(sealed.Bytes())
		if c.forge {
			raw[len(raw)-1] ^= 1
		}
		if c.before != nil {
			c.before(p, sealed)
		}
		n.admit(raw, "hub", "agent-c")
		n.work.Wait()
		got = append(got, log.all...)
		if text := strings.Join(got, "; "); text != c.want {
			t.Errorf("%s: %q, want %q", name, text, c.want)
		}
		if charged := n.failures.ways["hub"] != nil; charged != (c.forge || name == "too many bad signatures" || name == "too many, of another key") {
			t.Errorf("%s: charged %v", name, charged)
		}
	}
}

// theirs makes the author of an envelope the Peer's other side.
func theirs(p *Peer, e *signaling.Sealed) { p.key = e.Key }

// noNewKeys takes the places of new keys away.
func noNewKeys(n *Node) {
	n.newKeys.SetLimit(0)
	n.newKeys.SetBurst(0)
}

// spent charges a key, by one way, with as many failures as it may have.
func spent(n *Node, via string, key keys.PublicKey) {
	later := time.Now().Add(time.Hour) // until then nothing of it comes back
	for range 2 * keyFailuresPerSecond {
		n.failures.charge(later, via, key)
	}
}

// TestSenderResumes: from where a sender goes on, by what the receiver's hello says.
func TestSenderResumes(t *testing.T) {
	const size = 10 + recordOverhead
	for name, c := range map[string]struct {
		drop         int // records that were delivered before
		pos          *position
		same         bool
		unknown      []string
		delivered    int
		base, cursor uint64
		high, acked  uint64
		skip         bool
		credit       uint64
	}{
		"all three arrived":       {0, &position{Received: 3, Delivered: 0, Credit: 900}, true, nil, 0, 1, 4, 3, 3, false, 1000},
		"two arrived":             {0, &position{Received: 2, Delivered: 1, Credit: 2000}, true, nil, 1, 2, 3, 3, 2, false, 2000},
		"nothing arrived":         {0, &position{}, true, nil, 0, 1, 1, 3, 0, false, 1000},
		"less than was delivered": {2, &position{}, true, nil, 0, 3, 3, 3, 2, true, 1000},
		"one less than delivered": {2, &position{Received: 1}, true, nil, 0, 3, 3, 3, 2, true, 1000},
		"as much as delivered":    {2, &position{Received: 2}, true, nil, 0, 3, 3, 3, 2, false, 1000},
		"it forgot":               {0, nil, true, []string{"1", "2", "3"}, 0, 4, 4, 3, 3, true, 3*size + 500},
		"it forgot, one was left": {2, nil, true, []string{"3"}, 0, 4, 4, 3, 3, true, 3*size + 500},
		"it forgot, none was":     {3, nil, true, nil, 0, 4, 4, 3, 3, true, 3*size + 500},
		"another one":             {0, nil, false, nil, 0, 1, 1, 0, 0, false, 500},
		"another one, later":      {2, nil, false, nil, 0, 3, 3, 2, 2, true, 2*size + 500},
	} {
		s := newSender(messageFlow, 1<<16, 0, 0)
		s.credit = 1000
		for _, id := range []string{"1", "2", "3", "4", "5"} {
			s.push(id, make([]byte, 10), time.Time{})
		}
		if _, recs := s.travel(3, 1<<20); len(recs) != 3 {
			t.Fatal(len(recs))
		}
		if c.drop > 0 {
			s.drop(c.drop)
		}
		delivered, unknown, err := s.resume(c.pos, c.same, 500)
		if err != nil || !slices.Equal(unknown, c.unknown) || len(delivered) != c.delivered {
			t.Errorf("%s: %v, unknown %q, %d delivered", name, err, unknown, len(delivered))
		}
		if s.base() != c.base || s.cursor != c.cursor || s.high != c.high || s.acked != c.acked || s.skip != c.skip || s.credit != c.credit || s.next != 6 {
			t.Errorf("%s: base %d, cursor %d, high %d, acked %d, skip %v, credit %d", name, s.base(), s.cursor, s.high, s.acked, s.skip, s.credit)
		}
		if want := 5*size - (c.base-1)*size; s.bytes != want {
			t.Errorf("%s: %d bytes are held, want %d", name, s.bytes, want)
		}
	}
	s := newSender(messageFlow, 1<<16, 0, 0)
	for what, f := range map[string]func() error{
		"a position of another": func() error { _, _, err := s.resume(&position{}, false, 1); return err },
		"more than was sent":    func() error { _, err := s.position(position{Received: 1}); return err },
		"more than arrived":     func() error { _, err := s.position(position{Delivered: 1}); return err },
	} {
		if err := f(); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestDoubtsOfALedger: up to which message Flush has to say that the outcome is not known, or that a
// message was too large.
func TestDoubtsOfALedger(t *testing.T) {
	for name, c := range map[string]struct {
		hello          helloBody
		unknown, large int
		doubt          uint64
		is             error
		displaced      bool
	}{
		"it goes on":           {helloBody{FromInstance: [16]byte{1}, State: 1, Window: 1 << 20, Credit: 1 << 20, Positions: []position{{Flow: messageFlow, Received: 2}}}, 0, 0, 0, nil, false},
		"it forgot":            {helloBody{FromInstance: [16]byte{1}, State: 2, Window: 1 << 20, Credit: 1 << 20}, 2, 0, 2, ErrOutcomeUnknown, false},
		"it has less room":     {helloBody{FromInstance: [16]byte{1}, State: 1, Window: 2000, Credit: 2000}, 0, 1, 4, ErrTooLarge, false},
		"another, with less":   {helloBody{FromInstance: [16]byte{2}, State: 2, Window: 2000, Credit: 2000}, 0, 1, 4, ErrTooLarge, true},
		"another, that is all": {helloBody{FromInstance: [16]byte{2}, State: 2, Window: 1 << 20, Credit: 1 << 20}, 0, 0, 0, nil, true},
	} {
		p, s := metPeer(t, 5)
		l := p.led
		l.mu.Lock()
		for i, size := range []int{10, 10, 3000, 10} {
			l.out.push(string(rune('1'+i)), make([]byte, size), time.Now())
		}
		l.out.credit = 1 << 20
		l.out.travel(2, 1<<20)
		l.mu.Unlock()
		next := deadSession(p, 6, c.hello.FromInstance[0])
		next.told = s.told
		got, err := l.attach(next, &c.hello)
		if err != nil || len(got.oversized) != c.large || got.displaced != c.displaced || len(got.unknown) != c.unknown {
			t.Errorf("%s: %v, %+v", name, err, got)
		}
		if !errors.Is(l.doubtful, c.is) || l.doubt != c.doubt {
			t.Errorf("%s: up to %d %v", name, l.doubt, l.doubtful)
		}
		p.sessions = nil
		p.setTop()
	}
}

// TestStandbyFails: a standby that failed is not held any more, another one is; only where there was
// a relay is it blamed.
func TestStandbyFails(t *testing.T) {
	for _, own := range []bool{true, false} {
		p, _ := metPeer(t, 5)
		a, other := newAttempt(p, order{}, true), newAttempt(p, order{}, true)
		p.spare.held = a
		if !own {
			p.spare.held = other
		}
		a.err = errNoRelay
		p.standbyFailed(a)
		if (p.spare.held == nil) != own {
			t.Errorf("own %v: held %v", own, p.spare.held != nil)
		}
		p.sessions = nil
		p.setTop()
	}
}

// TestProofBegins: what a proof compares with is as it was when the hello left.
func TestProofBegins(t *testing.T) {
	p := stillPeer(t)
	for rtt, wait := range map[time.Duration]time.Duration{
		100 * time.Millisecond: helloWait + helloRoundTrips*100*time.Millisecond,
		time.Hour:              helloWait + helloRoundTrips*maxRTT,
	} {
		on := &checked{paper: newPaper(), answered: 4, received: 9, rtt: rtt}
		s := newSession(p.node, p.led, on, order{})
		before := time.Now()
		s.proof.begin(s, 1200)
		if pr := &s.proof; pr.answered != 4 || pr.received != 9 || pr.rtt != rtt || pr.hello != 1200 || pr.session != s ||
			pr.due.Before(before.Add(wait)) || pr.due.After(time.Now().Add(wait)) {
			t.Errorf("%v: %d answered, %d received, %v, due after %v", rtt, pr.answered, pr.received, pr.rtt, pr.due.Sub(before))
		}
		on.Close()
	}
}
