package mesh

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/turn"
)

// TestAvoids: what an offer tells of paths that did no good, and what follows from that
// here and at the other side.
func TestAvoids(t *testing.T) {
	udp := &turn.Relay{URL: "turn:r1.example", Username: "u", Password: "p"}
	down := &turn.Relay{URL: "turn:r1.example", Username: "u", Password: "p", Down: true}
	kind := shunnedKind("udp")
	for i, c := range []struct {
		why                        Reason
		asks, relayOnly            bool
		relay                      *turn.Relay
		narrow, shunned            []string
		avoid                      avoid
		smallAnywhere, avoidDirect bool
	}{
		{why: ReasonDial},
		{why: ReasonDial, narrow: []string{pathDirect}, avoid: avoidFullDirect},
		{why: ReasonDial, narrow: []string{pathDirect}, relayOnly: true},
		{why: ReasonDial, narrow: []string{pathDirect, pathAny}, avoid: avoidFull, smallAnywhere: true},
		{why: ReasonDial, narrow: []string{pathDirect, pathAny}, relay: udp, avoid: avoidFullDirect},
		{why: ReasonDial, narrow: []string{pathDirect, pathAny}, relay: down, avoid: avoidFull, smallAnywhere: true},
		{why: ReasonDial, narrow: []string{pathDirect, kind}, shunned: []string{kind}, relay: udp, avoid: avoidFull, smallAnywhere: true},
		{why: ReasonDial, narrow: []string{kind}, relay: udp, relayOnly: true, avoid: avoidFull, smallAnywhere: true},
		{why: ReasonDial, narrow: []string{pathAny}, relay: udp, relayOnly: true, avoid: avoidFull, smallAnywhere: true},
		{why: ReasonDial, narrow: []string{pathDirect}, relay: udp, relayOnly: true},
		{why: ReasonDial, narrow: []string{kind, pathAny}},
		{why: ReasonSilence, asks: true, narrow: []string{pathDirect, pathAny}, avoid: avoidFullDirect, smallAnywhere: true},
		{why: ReasonDirectPath, narrow: []string{pathDirect, pathAny}, shunned: []string{pathDirect}, smallAnywhere: true},
		{why: ReasonDial, shunned: []string{pathDirect}, avoid: avoidDirect},
		{why: ReasonDial, shunned: []string{pathDirect}, relay: udp, avoid: avoidDirect, avoidDirect: true},
		{why: ReasonDial, shunned: []string{pathDirect, "turn:r1.example"}, relay: udp, avoid: avoidDirect},
		{why: ReasonDial, shunned: []string{pathDirect, "r1.example"}, relay: udp, avoid: avoidDirect},
		{why: ReasonDial, shunned: []string{pathDirect}, relay: down, avoid: avoidDirect},
		{why: ReasonStandby, shunned: []string{pathDirect}, relay: udp},
		{why: ReasonDial, shunned: []string{pathDirect}, narrow: []string{pathDirect}, avoid: avoidDirect | avoidFullDirect},
	} {
		a := &attempt{why: c.why, asks: c.asks, relayOnly: c.relayOnly, relay: c.relay, narrow: c.narrow, shunned: c.shunned}
		a.avoids()
		if a.avoid != c.avoid || a.smallAnywhere() != c.smallAnywhere || a.avoidsDirect() != c.avoidDirect {
			t.Errorf("%d: avoid %d, small anywhere %v, avoids the direct path %v", i, a.avoid, a.smallAnywhere(), a.avoidsDirect())
		}
	}
	for i, c := range []struct {
		why       Reason
		relayOnly bool
		narrow    []string
		theirs    avoid
		slim      bool
	}{
		{why: ReasonDial},
		{why: ReasonDial, theirs: avoidFull, slim: true},
		{why: ReasonDirectPath, theirs: avoidFull},
		{why: ReasonDial, theirs: avoidFull, relayOnly: true, slim: true},
		{why: ReasonDial, theirs: avoidFullDirect, slim: true},
		{why: ReasonDial, theirs: avoidFullDirect, relayOnly: true},
		{why: ReasonDial, theirs: avoidDirect, narrow: []string{pathDirect}},
		{why: ReasonDial, narrow: []string{pathDirect}, slim: true},
		{why: ReasonDial, narrow: []string{pathDirect}, relayOnly: true},
		{why: ReasonDial, narrow: []string{pathAny}},
		{why: ReasonDial, theirs: avoidDirect, narrow: []string{pathDirect, pathAny}, slim: true},
	} {
		a := &attempt{why: c.why, relayOnly: c.relayOnly, narrow: c.narrow}
		if a.answerSlim(c.theirs); a.slim != c.slim {
			t.Errorf("answer %d: small packets %v", i, a.slim)
		}
	}
}

// TestKnowPaths: an attempt knows what the Peer does, but a change of the network makes it
// all worth another try.
func TestKnowPaths(t *testing.T) {
	for _, why := range []Reason{ReasonDial, ReasonNetwork} {
		p := stillPeer(t)
		p.isNarrow([]string{pathDirect, pathAny, pathDirect})
		p.shunKinds([]string{pathDirect, "r1.example"})
		p.shun["r2.example"] = time.Now().Add(-time.Second)
		a := &attempt{why: why}
		p.knowPaths(a)
		slices.Sort(a.shunned)
		narrow, shunned := []string{pathDirect, pathAny}, []string{pathAny, pathDirect, pathDirect, "r1.example"}
		if why == ReasonNetwork {
			narrow, shunned = nil, []string{"r1.example"}
		}
		if !slices.Equal(a.narrow, narrow) || !slices.Equal(a.shunned, shunned) {
			t.Errorf("%v: narrow %q, shunned %q", why, a.narrow, a.shunned)
		}
		if len(p.shun) > 2 {
			t.Errorf("%v: what is over is kept: %v", why, p.shun)
		}
	}
	p := stillPeer(t)
	for i := range maxShunned + 5 {
		p.isNarrow([]string{fmt.Sprint(i)})
		p.shunKinds([]string{fmt.Sprint(i)})
	}
	if len(p.narrows) != maxShunned || len(p.shun) != maxShunned {
		t.Errorf("%d are narrow, %d shunned", len(p.narrows), len(p.shun))
	}
	was := p.shun["0"].Add(-time.Second)
	p.shun["0"] = was
	if p.shunKinds([]string{"0", ""}); !p.shun["0"].After(was) || len(p.shun) != maxShunned {
		t.Error("what is shunned is not shunned anew")
	}
}

// path is a connection with a path.
type path struct {
	*deadConn
	local, remote string
}

func (p *path) Path() (local, remote string) { return p.local, p.remote }

// TestPathKinds: the kinds of a path are those of its ends.
func TestPathKinds(t *testing.T) {
	relay := &turn.Relay{URL: "turns:r1.example"}
	for _, c := range []struct {
		local, remote, theirs string
		relay                 *turn.Relay
		want                  []string
	}{
		{"host", "host", "r2.example", relay, []string{pathDirect}},
		{"host", "host", "", nil, []string{pathDirect}},
		{"relay", "host", "", relay, []string{shunnedKind("tls")}},
		{"relay", "relay", "r2.example", relay, []string{shunnedKind("tls"), "r2.example"}},
		{"host", "relay", "r2.example", relay, []string{"r2.example"}},
		{"host", "relay", "", relay, []string{pathDirect}},
		{"relay", "prflx", "r2.example", nil, []string{pathDirect}},
	} {
		a := &attempt{conn: &path{newDeadConn(), c.local, c.remote}, relay: c.relay, theirRelay: c.theirs}
		if got := a.pathKinds(); !slices.Equal(got, c.want) {
			t.Errorf("%s to %s: %q", c.local, c.remote, got)
		}
	}
}

// under adds an attempt to a Peer without a loop, and tells when it was given up.
func under(p *Peer, why Reason, generation uint64) (a *attempt, givenUp func() bool) {
	a = newAttempt(p, order{generation: generation}, true)
	a.why = why
	ctx, cancel := context.WithCancelCause(context.Background())
	a.cancel = cancel
	p.attempts = append(p.attempts, a)
	return a, func() bool { return errors.Is(context.Cause(ctx), errSuperseded) }
}

// TestStandbyPlans: failures double the pause before the next standby up to its limit, what
// has no standby gets none, and news of relays shorten a long pause.
func TestStandbyPlans(t *testing.T) {
	now := time.Unix(1e9, 0)
	var s standby
	if s.failed(now); !s.due.IsZero() {
		t.Error("one is planned for who has none")
	}
	s.begin(now, 3*time.Second)
	if !s.due.Equal(now.Add(3*time.Second)) || s.pause != 0 {
		t.Errorf("%+v", s)
	}
	if s.hurry(now); !s.due.Equal(now.Add(3 * time.Second)) {
		t.Error("the first one is hurried")
	}
	for pause := standbyPause; pause < 2*standbyPauseMost; pause *= 2 {
		if s.failed(now); s.pause != min(pause, standbyPauseMost) || !s.due.Equal(now.Add(s.pause)) {
			t.Errorf("%+v after %v", s, pause)
		}
	}
	if s.hurry(now); !s.due.Equal(now.Add(standbyPause)) {
		t.Errorf("hurried: %+v", s)
	}
	s.due = now.Add(time.Second)
	if s.hurry(now); !s.due.Equal(now.Add(time.Second)) {
		t.Errorf("hurried to a later time: %+v", s)
	}
	if s.end(); !s.due.IsZero() || s.pause != 0 {
		t.Errorf("%+v", s)
	}
}

// TestStandbyHeld: one standby is held; it goes when it is one no longer, and takes over
// for every reason but those that want something else.
func TestStandbyHeld(t *testing.T) {
	mine := turn.Relay{URL: "turn:r1.example"}
	for _, c := range []struct {
		relay string // of the session in use
		own   string
		goes  bool
	}{
		{"", "", true},
		{"r1.example", "turn:r1.example", true},
		{"r2.example", "turn:r2.example", false},
		{"r2.example", "", false},
	} {
		p := stillPeer(t)
		s := deadSession(p, 1, 1)
		s.relay, s.owned, s.own = c.relay, c.own != "", &turn.Relay{URL: c.own}
		p.sessions = []*session{s}
		p.setTop()
		other, otherGone := under(p, ReasonStandby, 5)
		dial, dialGone := under(p, ReasonDirectPath, 6)
		a, gone := under(p, ReasonStandby, 7)
		a.relay = &mine
		p.spare.begin(time.Now(), time.Hour)
		p.held(a)
		if !otherGone() || dialGone() || gone() != c.goes || (p.spare.held == a) == c.goes {
			t.Errorf("%+v: given up %v, %v, %v, held %v", c, otherGone(), dialGone(), gone(), p.spare.held == a)
		}
		if slices.Contains(p.attempts, other) || !slices.Contains(p.attempts, dial) || slices.Contains(p.attempts, a) == c.goes {
			t.Errorf("%+v: %d attempts are under way", c, len(p.attempts))
		}
		gaveUp, _ := under(p, ReasonStandby, 9)
		p.attempts = p.attempts[:len(p.attempts)-1]
		before := p.spare.held
		if p.held(gaveUp); p.spare.held != before {
			t.Errorf("%+v: one is held that was given up", c)
		}
		p.sessions = nil
		p.setTop()
	}
	for why := range reasonEnd {
		p := stillPeer(t)
		if p.promote(why) {
			t.Errorf("%v: none takes over", why)
		}
		a, _ := under(p, ReasonStandby, 7)
		p.spare.held = a
		other := why == ReasonNetwork || why == ReasonRequested || why == ReasonDirectPath || why == ReasonRelay
		if p.promote(why) == other || a.taking == other || (p.spare.held == nil) == other {
			t.Errorf("%v: takes over %v, held %v", why, a.taking, p.spare.held == a)
		}
		select {
		case <-a.promoted:
			if other {
				t.Errorf("%v: it was told to", why)
			}
		default:
			if !other {
				t.Errorf("%v: it was not told", why)
			}
		}
	}
}

// TestPromotionTime: four round trips within limits.
func TestPromotionTime(t *testing.T) {
	p := stillPeer(t)
	if got := p.promotionTime(); got != min(max(4*firstRTT, promotionLeast), promotionMost) {
		t.Errorf("without a session: %v", got)
	}
	s := deadSession(p, 1, 1)
	p.sessions = []*session{s}
	p.setTop()
	for rtt, want := range map[time.Duration]time.Duration{
		time.Millisecond: 750 * time.Millisecond, 200 * time.Millisecond: 800 * time.Millisecond, time.Second: 3 * time.Second,
	} {
		s.rtt.Store(int64(rtt))
		if got := p.promotionTime(); got != want {
			t.Errorf("at %v: %v", rtt, got)
		}
	}
	p.sessions = nil
	p.setTop()
}

// TestStandbyDue: none is due beside another attempt, but one at a direct path, nor while
// the session is in doubt.
func TestStandbyDue(t *testing.T) {
	at := time.Unix(1e9, 0)
	for s := range StateClosed + 1 {
		p := stillPeer(t)
		p.sessions = []*session{deadSession(p, 1, 1)}
		p.setTop()
		p.machine.state, p.spare.due = s, at
		due := s == StateConnected || s == StateReplacing
		if got := p.standbyDue(); got.Equal(at) != due {
			t.Errorf("%v: %v", s, got)
		}
		under(p, ReasonDirectPath, 1)
		if got := p.standbyDue(); got.Equal(at) != due {
			t.Errorf("%v beside a direct attempt: %v", s, got)
		}
		under(p, ReasonRequested, 2)
		if got := p.standbyDue(); !got.IsZero() {
			t.Errorf("%v beside an attempt: %v", s, got)
		}
		p.attempts, p.sessions = nil, nil
		p.setTop()
		if got := p.standbyDue(); !got.IsZero() {
			t.Errorf("%v without a session: %v", s, got)
		}
	}
}
