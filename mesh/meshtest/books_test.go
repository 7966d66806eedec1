package meshtest

import (
	"fmt"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/mesh"
)

// small is a process with the smallest window, heavy a payload that does not fit into that.
const (
	small = 9
	heavy = smallWindow
)

// ledgerOf is an account into which a test enters by hand.
func ledgerOf() (*books, func(receiver int, id string)) {
	b := new(books)
	b.init(&timeline{began: time.Now()})
	return b, func(receiver int, id string) {
		p := &process{agent: &Agent{name: "b"}, incarnation: receiver, window: mesh.DefaultWindow}
		if receiver == small {
			p.window = smallWindow
		}
		b.arrived(p, mesh.Message{ID: id, Source: "a"})
	}
}

// TestAccountIsHonest: whatever is wrong with what arrives is counted as that, and
// nothing else is.
func TestAccountIsHonest(t *testing.T) {
	first := streamKey{from: "a", incarnation: 1, peer: 1, to: "b"}
	second := streamKey{from: "a", incarnation: 1, peer: 2, to: "b"}
	restarted := streamKey{from: "a", incarnation: 2, peer: 1, to: "b"}
	answers := streamKey{from: "a", incarnation: 1, peer: 1, to: "b", answer: true}
	type step struct {
		sent     streamKey // one more is sent
		size     int       // its payload has so many bytes
		told     []string  // reported
		receiver int
		arrives  []string
	}
	tests := []struct {
		name     string
		steps    []step
		want     Account // but for problems
		problems int
	}{
		{"in order", []step{{sent: first}, {sent: first}, {receiver: 1, arrives: []string{"a.1.1>b#1", "a.1.1>b#2"}}},
			Account{Sent: 2, Delivered: 2}, 0},
		{"answers count apart", []step{{sent: first}, {sent: answers}, {receiver: 1, arrives: []string{"a.1.1>b!1", "a.1.1>b#1"}}},
			Account{Sent: 2, Delivered: 2}, 0},
		{"twice", []step{{sent: first}, {receiver: 1, arrives: []string{"a.1.1>b#1", "a.1.1>b#1"}}},
			Account{Sent: 1, Delivered: 1, Duplicated: 1}, 1},
		{"a gap", []step{{sent: first}, {sent: first}, {receiver: 1, arrives: []string{"a.1.1>b#2"}}},
			Account{Sent: 2, Delivered: 1, Reordered: 1}, 1},
		{"again after a restart", []step{{sent: first}, {receiver: 1, arrives: []string{"a.1.1>b#1"}}, {receiver: 2, arrives: []string{"a.1.1>b#1"}}},
			Account{Sent: 1, Delivered: 1, Again: 1}, 0},
		{"a gap at a restart", []step{{sent: first}, {sent: first}, {sent: first}, {receiver: 1, arrives: []string{"a.1.1>b#1"}}, {receiver: 2, arrives: []string{"a.1.1>b#3"}}},
			Account{Sent: 3, Delivered: 2, Reordered: 1}, 1},
		{"an older process", []step{{sent: first}, {sent: restarted}, {receiver: 1, arrives: []string{"a.2.1>b#1", "a.1.1>b#1"}}},
			Account{Sent: 2, Delivered: 1, Reordered: 1}, 1},
		{"an older Peer", []step{{sent: first}, {sent: second}, {receiver: 1, arrives: []string{"a.1.2>b#1", "a.1.1>b#1"}}},
			Account{Sent: 2, Delivered: 1, Reordered: 1}, 1},
		{"reported and gone", []step{{sent: first}, {sent: first}, {told: []string{"a.1.1>b#1", "a.1.1>b#2"}}, {sent: second}, {receiver: 1, arrives: []string{"a.1.2>b#1"}}},
			Account{Sent: 3, Delivered: 1, Reported: 2}, 0},
		{"reported and there", []step{{sent: first}, {sent: first}, {told: []string{"a.1.1>b#1", "a.1.1>b#2"}}, {receiver: 1, arrives: []string{"a.1.1>b#1"}}},
			Account{Sent: 2, Delivered: 1, Reported: 1}, 0},
		{"reported, a part of it there", []step{{sent: first}, {sent: first}, {told: []string{"a.1.1>b#1"}}, {receiver: 1, arrives: []string{"a.1.1>b#2"}}},
			Account{Sent: 2, Delivered: 1, Reported: 1}, 0},
		{"reported, though it is there", []step{{sent: first}, {receiver: 1, arrives: []string{"a.1.1>b#1"}}, {told: []string{"a.1.1>b#1", "a.1.1>b#1"}}},
			Account{Sent: 1, Delivered: 1}, 0},
		{"reported and twice", []step{{sent: first}, {told: []string{"a.1.1>b#1"}}, {receiver: 1, arrives: []string{"a.1.1>b#1", "a.1.1>b#1"}}},
			Account{Sent: 1, Delivered: 1, Duplicated: 1}, 1},
		{"a report of one hides no gap", []step{{sent: first}, {sent: first}, {sent: first}, {told: []string{"a.1.1>b#1"}}, {receiver: 1, arrives: []string{"a.1.1>b#3"}}},
			Account{Sent: 3, Delivered: 1, Reported: 1, Reordered: 1}, 1},
		{"nobody sent it", []step{{sent: first}, {receiver: 1, arrives: []string{"a.1.1>c#1", "b.1.1>b#1", "a.9.1>b#1", "hello", "a>b#1", "a.1.1>b#x", "#", ""}}},
			Account{Sent: 1}, 8},
		{"too large for the next process, and told", []step{{sent: first}, {sent: first, size: heavy}, {sent: first}, {receiver: 1, arrives: []string{"a.1.1>b#1"}},
			{receiver: small, arrives: []string{"a.1.1>b#3"}}, {told: []string{"a.1.1>b#2"}}}, Account{Sent: 3, Delivered: 2, Reported: 1}, 0},
		{"too large for the next process, and yet there", []step{{sent: first, size: heavy}, {sent: first}, {receiver: small, arrives: []string{"a.1.1>b#2", "a.1.1>b#1"}}},
			Account{Sent: 2, Delivered: 1, Reordered: 1}, 1},
		{"too large, had by the process before", []step{{sent: first}, {sent: first, size: heavy}, {sent: first}, {receiver: 1, arrives: []string{"a.1.1>b#1", "a.1.1>b#2"}},
			{receiver: small, arrives: []string{"a.1.1>b#1", "a.1.1>b#3"}}}, Account{Sent: 3, Delivered: 3, Again: 1}, 0},
		{"it would fit", []step{{sent: first, size: heavy}, {sent: first}, {receiver: 1, arrives: []string{"a.1.1>b#2"}}},
			Account{Sent: 2, Delivered: 1, Reordered: 1}, 1},
		{"too large, but not all of them", []step{{sent: first, size: heavy}, {sent: first}, {sent: first}, {receiver: small, arrives: []string{"a.1.1>b#3"}}},
			Account{Sent: 3, Delivered: 1, Reordered: 1}, 1},
		{"nobody sent what is reported", []step{{told: []string{"hello"}}}, Account{}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b, arrives := ledgerOf()
			for _, s := range tt.steps {
				if s.sent.from != "" {
					b.next(s.sent)
					b.sent(s.sent, s.size)
				}
				b.reported(s.told)
				for _, id := range s.arrives {
					arrives(s.receiver, id)
				}
			}
			got := b.account
			if len(got.Problems) != tt.problems {
				t.Errorf("problems %q, want %d", got.Problems, tt.problems)
			}
			got.Problems = nil
			if g, w := fmt.Sprint(got), fmt.Sprint(tt.want); g != w {
				t.Errorf("got  %s\nwant %s", g, w)
			}
		})
	}
}

// TestLose: what a living process has sent is lost unless it arrived or was reported,
// be it passed over because it was too large.
func TestLose(t *testing.T) {
	b, arrives := ledgerOf()
	u := &Universe{agents: map[string]*Agent{"a": {name: "a", process: &process{incarnation: 2}}}}
	dead, live := streamKey{from: "a", incarnation: 1, peer: 1, to: "b"}, streamKey{from: "a", incarnation: 2, peer: 1, to: "b"}
	over := streamKey{from: "a", incarnation: 2, peer: 1, to: "b", answer: true}
	for range 5 {
		b.sent(dead, 0)
		b.sent(live, 0)
		b.sent(over, heavy)
	}
	arrives(1, "a.2.1>b#1")
	b.sent(over, 0)
	arrives(small, "a.2.1>b!6")
	b.reported([]string{"a.2.1>b#3", "a.2.1>b#5", "a.2.1>b!1", "a.2.1>b!2"})
	b.lose(u)
	if got := b.account; got.Lost != 5 || got.Reported != 4 || len(got.Problems) != 2 {
		t.Errorf("%v, problems %q", got, got.Problems)
	}
}

func TestMessageIDs(t *testing.T) {
	for _, k := range []streamKey{
		{from: "a", incarnation: 1, peer: 2, to: "b"},
		{from: "a.b.c", incarnation: 10, peer: 20, to: "c.1.2", answer: true},
	} {
		if got, n, ok := parseID(k.id(77)); got != k || n != 77 || !ok {
			t.Errorf("%s is read as %v, %d, %v", k.id(77), got, n, ok)
		}
	}
}
