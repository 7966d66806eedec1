package mesh

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/turn"
)

// ranking makes a ranking of "name", or "name!" for one that is down, each by UDP and,
// with "+", by TLS as well.
func ranking(names ...string) (ranked []turn.Relay) {
	for _, n := range names {
		n, both := strings.CutSuffix(n, "+")
		host, down := strings.CutSuffix(n, "!")
		ranked = append(ranked, turn.Relay{URL: "turn:" + host + "?transport=udp", Down: down})
		if both {
			ranked = append(ranked, turn.Relay{URL: "turns:" + host})
		}
	}
	return ranked
}

func TestChooseRelay(t *testing.T) {
	for _, c := range []struct {
		ranked, theirs, shunned string
		want                    string
	}{
		{"", "", "", ""},
		{"", "b", "", ""},
		{"a b", "", "", "turn:a?transport=udp"},
		{"a b", "b", "", "turn:b?transport=udp"},   // one server a session
		{"a b", "c", "", "turn:a?transport=udp"},   // theirs is not known here
		{"a b", "b", "b", "turn:a?transport=udp"},  // and theirs did not help lately
		{"a b!", "b", "", "turn:a?transport=udp"},  // and theirs is down
		{"a! b!", "b", "", "turn:b?transport=udp"}, // the same badness
		{"a b", "", "a", "turn:b?transport=udp"},   // what did help
		{"a b", "", "a b", "turn:a?transport=udp"}, // nobody is cut off
		{"a! b", "", "b", "turn:b?transport=udp"},  // down is worse than shunned
		{"a!", "", "a", "turn:a?transport=udp"},    // one is better than none
		{"a!+ b", "a", "b", "turns:a"},             // theirs by another way
		{"a! b!", "", "a", "turn:b?transport=udp"}, //
		{"a+ b", "b", "a b", "turn:b?transport=udp"},
		{"a+", "", "a turn:a?transport=udp", "turns:a"}, // another way to a server that did not help
		{"a+ b", "a", "a turn:a?transport=udp", "turn:b?transport=udp"},
		{"a b+", "a", "transport=udp", "turns:b"},                                // another kind of way
		{"a+ b", "", "transport=udp a turn:a?transport=udp", "turns:a"},          // at the same server
		{"a b", "", "transport=udp", "turn:a?transport=udp"},                     // if there is one
		{"a+ b+", "", "transport=tls transport=udp", "turn:a?transport=udp"},     //
		{"a+ b+", "", "transport=udp a turn:a?transport=udp turns:a", "turns:b"}, //
	} {
		var names []string
		if c.ranked != "" {
			names = strings.Fields(c.ranked)
		}
		got := ""
		if r := choose(ranking(names...), c.theirs, strings.Fields(c.shunned)); r != nil {
			got = r.URL
		}
		if got != c.want {
			t.Errorf("choose(%s; theirs %q; shunned %s): %q, want %q", c.ranked, c.theirs, c.shunned, got, c.want)
		}
	}
}

// TestSecondRelay: a standby session is on a server that works, or on none.
func TestSecondRelay(t *testing.T) {
	const udp = "turn:a?transport=udp"
	for _, c := range []struct{ ranked, url, shunned, want string }{
		{"a+ b", udp, "", "turn:b?transport=udp"}, // another server is better than another way
		{"a+ b", "", "", "turn:b?transport=udp"},
		{"a b! c", udp, "", "turn:c?transport=udp"},
		{"a+ b!", udp, "", "turns:a"},
		{"a+ b", udp, "b", "turns:a"},
		{"a+", "turns:a", "", udp},
		{"a+", "", "", ""}, // which way is in use is the other side's business
		{"a+", udp, "turns:a", ""},
		{"a b!", udp, "", ""},
		{"a b", udp, "b", ""},
		{"a b+", udp, "transport=udp", "turns:b"},
	} {
		got := ""
		if r := second(ranking(strings.Fields(c.ranked)...), "a", c.url, strings.Fields(c.shunned)); r != nil {
			got = r.URL
		}
		if got != c.want {
			t.Errorf("second(%s; %q is in use, %q shunned): %q, want %q", c.ranked, c.url, c.shunned, got, c.want)
		}
	}
}

func TestShunned(t *testing.T) {
	now := time.Now()
	s := shunned{}
	s.add("", now)
	for i := range maxShunned + 10 {
		s.add(strings.Repeat("x", i+1), now.Add(time.Duration(i)))
	}
	s.add("x", now.Add(time.Minute)) // again
	if got := s.list(now.Add(shunFor - 1)); len(got) != maxShunned {
		t.Errorf("%d servers are shunned", len(got))
	}
	if got := s.list(now.Add(time.Minute)); !slices.Equal(got, []string{"x"}) || len(s) != 1 {
		t.Errorf("after their time: %q", got)
	}
}

func TestOutdatedRelay(t *testing.T) {
	now := time.Now()
	used := turn.Relay{URL: "turn:a?transport=udp", Username: "u", Expires: now.Add(time.Hour)}
	newer := used
	newer.Username, newer.Expires = "v", now.Add(2*time.Hour)
	longer := used
	longer.Expires = now.Add(2 * time.Hour)
	other := turn.Relay{URL: "turns:a", Username: "v"}
	ahead := used // the clock was set back
	ahead.Expires = now.Add(365 * 24 * time.Hour)
	for i, c := range []struct {
		ranked []turn.Relay
		most   time.Duration // -1 for never
	}{
		{[]turn.Relay{used}, -1},
		{nil, leaveWithin},
		{ranking("b"), leaveWithin},
		{[]turn.Relay{newer}, 30 * time.Minute},
		{[]turn.Relay{longer}, -1},
		{[]turn.Relay{other}, -1},
		{[]turn.Relay{other, newer}, 30 * time.Minute},
		{ranking("a!"), 30 * time.Minute},
	} {
		at, yes := outdated(c.ranked, used, now, now)
		if late, yes := outdated(c.ranked, ahead, now, now); yes && late.After(now.Add(renewMost)) {
			t.Errorf("%d: %v", i, late.Sub(now))
		}
		if yes != (c.most >= 0) || yes && (at.Before(now) || at.After(now.Add(c.most))) {
			t.Errorf("%d: %v, %v", i, at.Sub(now), yes)
		}
	}
}

// TestDoubtRelay: a path that falls silent makes others be preferred, whoever's relay it
// goes over, and the pool look at this side's.
func TestDoubtRelay(t *testing.T) {
	own := turn.Relay{URL: "turn:a?transport=udp"}
	for _, c := range []struct {
		s       *session
		shunned []string
		doubted int
	}{
		{&session{}, nil, 0},
		{&session{relay: "b"}, []string{"b"}, 0},
		{&session{relay: "b", own: &own}, []string{"b"}, 0},
		{&session{relay: "a", own: &own}, []string{"a", own.URL}, 1},
	} {
		var doubts doubtCount
		p := &Peer{node: &Node{cfg: Config{TURN: &doubts}}, shun: shunned{}}
		p.doubtRelay(c.s)
		got := p.shun.list(time.Now())
		slices.Sort(got)
		if !slices.Equal(got, c.shunned) || int(doubts) != c.doubted {
			t.Errorf("over %q: %q shunned, %d doubts", c.s.relay, got, doubts)
		}
		p.unshun(c.s)
		if len(p.shun) != 0 {
			t.Errorf("over %q: %v shunned for good", c.s.relay, p.shun)
		}
	}
}

// doubtCount counts doubts.
type doubtCount int

func (*doubtCount) Rank(context.Context) []turn.Relay { return nil }
func (*doubtCount) Changed() <-chan struct{}          { return nil }
func (d *doubtCount) Doubt(turn.Relay)                { *d++ }
