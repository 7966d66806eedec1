package meshtest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// Random makes a story of three to six agents, with one to three servers and in
// half of the cases one to three relays, in which four to twelve things go wrong
// within two minutes, and with relays one to four more of those. In half of the stories
// servers are known by their names. In every tenth all signaling servers are gone from
// some moment until the end. A third of the agents answer, and a sixth has the smallest
// window. The same seed makes the same story.
func Random(seed uint64) Story {
	r := rand.New(rand.NewPCG(seed, 0))
	s := Story{
		Seed: seed, RTT: time.Duration(5+r.IntN(100)) * 2 * time.Millisecond,
		Servers: 1 + r.IntN(3), Every: 1800 * time.Millisecond, Burst: 1 + r.IntN(2),
		Length: time.Duration(60+r.IntN(60)) * time.Second,
	}
	if r.IntN(2) == 0 {
		s.Relays = 1 + r.IntN(3)
	}
	for range 3 + r.IntN(4) {
		n := NAT(r.IntN(int(Symmetric) + 1))
		if s.Relays == 0 && slices.ContainsFunc(s.Agents, func(m NAT) bool { return !n.meets(m) }) {
			n = FullCone
		}
		s.Agents = append(s.Agents, n)
	}
	s.Names = r.IntN(2) == 0
	w := writer{r: r, s: &s}
	w.habits()
	for range 4 + r.IntN(9) {
		switch r.IntN(5) {
		case 0, 1:
			w.trouble()
		case 2, 3:
			w.wireTrouble()
		default:
			w.loadTrouble()
		}
	}
	if s.Relays > 0 {
		for range 1 + r.IntN(4) {
			w.relayTrouble()
		}
	}
	if r.IntN(10) == 0 {
		w.noServers()
	}
	slices.SortStableFunc(s.Events, func(x, y Event) int { return int(x.At - y.At) })
	return s
}

// writer writes random stories.
type writer struct {
	r *rand.Rand
	s *Story
}

// when is when something goes wrong, and when that ends. Most troubles are short, some
// last to the end.
func (w *writer) when() (begin, end time.Duration) {
	begin = time.Duration(w.r.Int64N(int64(w.s.Length * 3 / 4))).Truncate(time.Millisecond)
	return begin, begin + time.Duration(w.r.ExpFloat64()*float64(12*time.Second)).Truncate(time.Millisecond)
}

// add adds an event, unless everything is mended by then.
func (w *writer) add(at time.Duration, e Event) {
	if e.At = at; at < w.s.Length {
		w.s.Events = append(w.s.Events, e)
	}
}

// habits decides what the agents are like.
func (w *writer) habits() {
	for i := range w.s.Agents {
		name := agentName(i)
		if w.r.IntN(3) == 0 {
			w.s.Answers = append(w.s.Answers, name)
		}
		if w.r.IntN(6) == 0 {
			if w.s.Windows == nil {
				w.s.Windows = map[string]uint64{}
			}
			w.s.Windows[name] = smallWindow
		}
	}
}

// noServers kills all servers for good, at some moment of the second half.
func (w *writer) noServers() {
	begin := w.s.Length/2 + time.Duration(w.r.Int64N(int64(w.s.Length/2))).Truncate(time.Millisecond)
	for i := range w.s.Servers {
		w.add(begin, Event{Verb: Kill, Who: []string{serverName(i)}})
	}
	// Those that would come back do not.
	w.s.Events = slices.DeleteFunc(w.s.Events, func(e Event) bool {
		return e.Verb == Restart && e.At >= begin && slices.ContainsFunc(w.servers(), func(s string) bool { return e.Who[0] == s })
	})
}

// relayTrouble adds something that goes wrong at a relay.
func (w *writer) relayTrouble() {
	r := w.r
	begin, end := w.when()
	relay := []string{fmt.Sprintf("r%d", 1+r.IntN(w.s.Relays))}
	switch r.IntN(5) {
	case 0:
		w.add(begin, Event{Verb: Kill, Who: relay})
		w.add(end, Event{Verb: Restart, Who: relay})
	case 1:
		w.add(begin, Event{Verb: Stop, Who: relay})
		w.add(end, Event{Verb: Continue, Who: relay})
	case 2:
		w.add(begin, Event{Verb: Lose, Who: relay, Part: 5 + r.IntN(25)})
		w.add(end, Event{Verb: Lose, Who: relay})
	case 3:
		w.add(begin, Event{Verb: Slow, Who: relay, Extra: time.Duration(r.IntN(300)) * time.Millisecond})
		w.add(end, Event{Verb: Slow, Who: relay})
	default: // one that comes and goes
		for range 2 + r.IntN(3) {
			w.add(begin, Event{Verb: Kill, Who: relay})
			w.add(begin+3*time.Second, Event{Verb: Restart, Who: relay})
			begin += 6 * time.Second
		}
	}
}

// trouble adds something that goes wrong, and in most cases its end.
func (w *writer) trouble() {
	r, add := w.r, w.add
	begin, end := w.when()
	agent, other := w.two()
	any := w.host()
	switch r.IntN(14) {
	case 0, 1:
		add(begin, Event{Verb: Kill, Who: []string{any}})
		add(end, Event{Verb: Restart, Who: []string{any}})
	case 2:
		add(begin, Event{Verb: Stop, Who: []string{any}})
		add(end, Event{Verb: Continue, Who: []string{any}})
	case 3, 4:
		one, rest := w.groups()
		add(begin, Event{Verb: Partition, Who: one, Whom: rest})
		add(end, Event{Verb: Heal})
	case 5:
		add(begin, Event{Verb: OneWay, Who: []string{agent}, Whom: []string{other}})
		add(end, Event{Verb: Heal})
	case 6:
		add(begin, Event{Verb: Move, Who: []string{agent}})
	case 7:
		add(begin, Event{Verb: MoveUnseen, Who: []string{agent}})
	case 8:
		add(begin, Event{Verb: Slow, Who: []string{agent}, Extra: time.Duration(r.IntN(300)) * time.Millisecond})
		add(end, Event{Verb: Slow, Who: []string{agent}})
	case 9:
		add(begin, Event{Verb: Lose, Who: []string{agent}, Part: 5 + r.IntN(25)})
		add(end, Event{Verb: Lose, Who: []string{agent}})
	case 10: // both sides at one instant
		add(begin, Event{Verb: Replace, Who: []string{agent}, Whom: []string{other}})
		add(begin, Event{Verb: Replace, Who: []string{other}, Whom: []string{agent}})
	case 11: // two at once
		for _, who := range []string{agent, other} {
			add(begin, Event{Verb: Kill, Who: []string{who}})
			add(end, Event{Verb: Restart, Who: []string{who}})
		}
	case 12: // in the middle of a replacement
		add(begin, Event{Verb: Replace, Who: []string{other}, Whom: []string{agent}})
		begin += time.Duration(r.Int64N(int64(4 * w.s.RTT)))
		add(begin, Event{Verb: Kill, Who: []string{agent}})
		add(max(begin, end), Event{Verb: Restart, Who: []string{agent}})
	default: // a link that comes and goes
		for range 2 + r.IntN(5) {
			add(begin, Event{Verb: Partition, Who: []string{agent}, Whom: []string{other}})
			add(begin+2*time.Second, Event{Verb: Heal})
			begin += 4 * time.Second
		}
	}
}

// two picks two agents.
func (w *writer) two() (string, string) {
	p := w.r.Perm(len(w.s.Agents))
	return agentName(p[0]), agentName(p[1])
}

// host picks any host.
func (w *writer) host() string {
	names := w.names()
	return names[w.r.IntN(len(names))]
}

func (w *writer) names() []string { return slices.Concat(w.hosts(), w.servers()) }

// hosts are those that speak by datagrams.
func (w *writer) hosts() (names []string) {
	for i := range w.s.Agents {
		names = append(names, agentName(i))
	}
	for i := range w.s.Relays {
		names = append(names, fmt.Sprintf("r%d", i+1))
	}
	return names
}

func (w *writer) servers() (names []string) {
	for i := range w.s.Servers {
		names = append(names, serverName(i))
	}
	return names
}

// groups divides everybody in two, each with at least one agent.
func (w *writer) groups() (one, other []string) {
	a, b := w.two()
	for _, n := range w.names() {
		switch {
		case n == a:
			one = append(one, n)
		case n == b || w.r.IntN(2) == 0:
			other = append(other, n)
		default:
			one = append(one, n)
		}
	}
	return one, other
}
