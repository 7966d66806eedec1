package mesh

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
	"github.com/infrafabric/agentmesh/turn"
)

// TestPlacesOfPeers: there are so many Peers and no more. A dial beyond that closes the one
// that is unreachable for the longest time and that nobody dialled, and asks to try again.
func TestPlacesOfPeers(t *testing.T) {
	p := stillPeer(t)
	n := p.node
	now := time.Now()
	var old, older, dialled, reached *Peer
	for i := range maxPeers - 1 {
		id := fmt.Sprint("agent-", i+1000)
		led, tenancy := n.ledgers.acquire(id)
		o := newPeer(n, id, led, tenancy)
		m := &member{peer: o}
		n.peers[id] = m
		switch i {
		case 0:
			old, m.unreachable = o, now.Add(-time.Minute)
		case 1:
			older, m.unreachable = o, now.Add(-2*time.Minute)
		case 2:
			dialled, m.unreachable, m.dialled = o, now.Add(-3*time.Minute), true
		case 3:
			reached = o
		}
	}
	for i, gone := range []*Peer{older, old, nil} {
		if _, err := n.want("agent-x"); err != ErrTooMany {
			t.Errorf("%d: %v", i, err)
		}
		if gone != nil && !errors.Is(context.Cause(gone.ctx), errGaveWay) {
			t.Errorf("%d: another one gave way", i)
		}
	}
	for _, stays := range []*Peer{p, dialled, reached} {
		if stays.ctx.Err() != nil {
			t.Errorf("%s gave way", stays.id)
		}
	}
	// One that exists needs no place.
	m, err := n.want(p.id)
	if err != nil || m.waiters != 1 {
		t.Errorf("%+v, %v", m, err)
	}
	if m, err = n.want(reached.id); err != nil || !m.dialled || m.waiters != 1 {
		t.Errorf("%+v, %v", m, err)
	}
	n.peers = map[string]*member{p.id: n.peers[p.id]}
}

// TestForThisAgent: an envelope for another mesh, agent or key, or one that this agent's
// own key has signed under another name, is not judged at all.
func TestForThisAgent(t *testing.T) {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	n := stillPeer(t).node
	if n.cfg.Identity, err = keys.NewIdentity("agent-a", private); err != nil {
		t.Fatal(err)
	}
	judged := 0
	n.gate.judge = func(arrival) { judged++ }
	admit := func(by *keys.Identity, change func(e *signaling.Envelope)) int {
		t.Helper()
		e := signaling.Envelope{Kind: signaling.Offer, Mesh: n.cfg.Mesh, To: "agent-a", Instance: signaling.NewInstance(),
			Time: n.now(), Generation: 1, Body: []byte{1}}
		change(&e)
		sealed, err := signaling.Seal(by, e)
		if err != nil {
			t.Fatal(err)
		}
		judged = 0
		n.admit(sealed.Bytes(), "hub", "")
		n.work.Wait()
		return judged
	}
	b := newIdentity(t, "agent-b")
	own, err := keys.NewIdentity("agent-b", private)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		by     *keys.Identity
		change func(e *signaling.Envelope)
		want   int
	}{
		"for this agent":    {b, func(*signaling.Envelope) {}, 1},
		"for its key":       {b, func(e *signaling.Envelope) { e.ToKey = n.cfg.Identity.PublicKey() }, 1},
		"for another mesh":  {b, func(e *signaling.Envelope) { e.Mesh = "other" }, 0},
		"for another agent": {b, func(e *signaling.Envelope) { e.To = "agent-c" }, 0},
		"for another key":   {b, func(e *signaling.Envelope) { e.ToKey = b.PublicKey() }, 0},
		"under its own key": {own, func(*signaling.Envelope) {}, 0},
	} {
		if got := admit(c.by, c.change); got != c.want {
			t.Errorf("%s: judged %d times", name, got)
		}
	}
	judged = 0
	if n.admit([]byte("junk"), "hub", ""); judged != 0 {
		t.Error("junk is judged")
	}
}

// TestManyNewKeys: signatures under keys that nobody knows are checked at a bounded rate.
func TestManyNewKeys(t *testing.T) {
	n := stillPeer(t).node
	n.newKeys.SetBurst(3)
	n.newKeys.SetLimit(0)
	for i := range 6 {
		id := newIdentity(t, fmt.Sprint("stranger-", i))
		sealed, err := signaling.Seal(id, signaling.Envelope{Kind: signaling.Offer, Mesh: n.cfg.Mesh, To: "agent-a",
			Instance: signaling.NewInstance(), Time: n.now(), Generation: 1, Body: []byte{1}})
		if err != nil {
			t.Fatal(err)
		}
		n.gate.judge = func(arrival) {}
		n.admit(sealed.Bytes(), "hub", "")
		n.work.Wait()
		if got := n.newKeys.Tokens(); int(got) != max(2-i, 0) {
			t.Errorf("%d: %v places are left", i, got)
		}
	}
}

// TestRelayInUse: when the session's relay, or that of the standby, is to be left.
func TestRelayInUse(t *testing.T) {
	now := time.Now()
	here, other := turn.Relay{URL: "turn:r1.example"}, turn.Relay{URL: "turn:r2.example"}
	for i, c := range []struct {
		ranked      []turn.Relay
		owned       bool
		spare       *turn.Relay
		renew, gone bool
	}{
		{nil, true, &other, false, false},
		{[]turn.Relay{here, other}, true, &other, false, false},
		{[]turn.Relay{other}, true, &other, true, false},
		{[]turn.Relay{other}, false, &other, false, false},
		{[]turn.Relay{here}, true, &other, false, true},
		{[]turn.Relay{{URL: "turn:r3.example"}}, true, &other, true, true},
		{[]turn.Relay{here}, true, nil, false, false},
	} {
		p := stillPeer(t)
		s := deadSession(p, 1, 1)
		s.owned, s.own = c.owned, &here
		p.sessions = []*session{s}
		p.setTop()
		if c.spare != nil {
			a, _ := under(p, ReasonStandby, 2)
			a.relay, p.spare.held = c.spare, a
		}
		p.ranked = c.ranked
		p.checkRelay(now)
		if p.renew.IsZero() == c.renew || p.spare.until.IsZero() == c.gone {
			t.Errorf("%d: renew %v, until %v", i, p.renew, p.spare.until)
		}
		for _, at := range []time.Time{p.renew, p.spare.until} {
			if !at.IsZero() && (at.Before(now) || at.After(now.Add(leaveWithin))) {
				t.Errorf("%d: %v", i, at.Sub(now))
			}
		}
		// Later is not put off, sooner counts, and what is well again is not left.
		far, near := now.Add(time.Hour), now.Add(-time.Hour)
		p.renew, p.spare.until = far, far
		p.checkRelay(now)
		if c.renew && !p.renew.Before(far) || !c.renew && !p.renew.IsZero() || c.gone && !p.spare.until.Before(far) || !c.gone && !p.spare.until.IsZero() {
			t.Errorf("%d: renew %v, until %v", i, p.renew, p.spare.until)
		}
		p.renew, p.spare.until = near, near
		p.checkRelay(now)
		if c.renew && !p.renew.Equal(near) || c.gone && !p.spare.until.Equal(near) {
			t.Errorf("%d: put off to %v and %v", i, p.renew, p.spare.until)
		}
		p.sessions, p.attempts = nil, nil
		p.setTop()
	}
}

// TestPointless: what is made with a relay is pointless when that is down and another is not.
func TestPointless(t *testing.T) {
	up, down, other := turn.Relay{URL: "turn:r1.example"}, turn.Relay{URL: "turn:r1.example", Down: true}, turn.Relay{URL: "turn:r2.example"}
	otherDown := other
	otherDown.Down = true
	for i, c := range []struct {
		ranked []turn.Relay
		used   *turn.Relay
		want   bool
	}{
		{nil, &up, false}, {[]turn.Relay{other, down}, nil, false}, {[]turn.Relay{other, down}, &up, true},
		{[]turn.Relay{other, up}, &up, false}, {[]turn.Relay{otherDown, down}, &up, false}, {[]turn.Relay{other}, &up, false},
	} {
		if got := pointless(c.ranked, c.used); got != c.want {
			t.Errorf("%d: %v", i, got)
		}
	}
}

// TestHandlerNode: where messages go to a Handler nobody else receives or accepts.
func TestHandlerNode(t *testing.T) {
	p := stillPeer(t)
	p.node.cfg.Handler = func(context.Context, *Peer, Message) {}
	if _, err := p.Receive(t.Context()); !errors.Is(err, ErrHandler) {
		t.Errorf("Receive: %v", err)
	}
	if _, err := p.node.Accept(t.Context()); !errors.Is(err, ErrHandler) {
		t.Errorf("Accept: %v", err)
	}
	type traced struct{}
	ctx := context.WithValue(t.Context(), traced{}, "abc")
	id := func(ctx context.Context) string { return fmt.Sprint(ctx.Value(traced{})) }
	for own, want := range map[string]string{"": "abc", "own": "own"} {
		m, err := Message{TraceID: own}.prepare(ctx, "agent-a", "agent-b", time.Now(), id)
		if err != nil || m.TraceID != want {
			t.Errorf("%q: %q, %v", own, m.TraceID, err)
		}
	}
	if _, err := Dial(t.Context(), "agent-b", Config{}); err == nil {
		t.Error("Dial without a configuration succeeds")
	}
}
