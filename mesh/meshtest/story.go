package meshtest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/mesh"
)

// Story is a universe and what happens in it.
type Story struct {
	Seed    uint64
	RTT     time.Duration
	Agents  []NAT // named "a", "b", …
	Servers int
	Relays  int
	// Every and Burst are the traffic from each agent to each other one.
	Every  time.Duration
	Burst  int
	Events []Event // in the order of their times
	// Length is how long it lasts before everything is mended.
	Length time.Duration
	// Configure is Config.Configure.
	Configure func(name string, c *mesh.Config)
}

// Event is one verb at its time. Which fields it uses depends on the verb.
type Event struct {
	At    time.Duration
	Verb  Verb
	Who   []string      // one name; for Partition the first group
	Whom  []string      // for OneWay and Replace one name; for Partition the other group
	Extra time.Duration // for Slow
	Part  int           // for Lose, in a hundred
}

// Verb is what happens to whom; the package comment describes each.
type Verb string

// The verbs.
const (
	Kill       Verb = "kill"
	Restart    Verb = "restart"
	Stop       Verb = "stop"
	Continue   Verb = "continue"
	Partition  Verb = "partition"
	OneWay     Verb = "one-way"
	Heal       Verb = "heal"
	Move       Verb = "move"
	MoveUnseen Verb = "move unseen"
	Slow       Verb = "slow"
	Lose       Verb = "lose"
	Replace    Verb = "replace"
)

func (e Event) String() string {
	s := stamp(e.At) + "  " + strings.TrimSpace(string(e.Verb)+" "+strings.Join(e.Who, " "))
	switch e.Verb {
	case Partition:
		s += " | " + strings.Join(e.Whom, " ")
	case OneWay, Replace:
		s += " → " + strings.Join(e.Whom, " ")
	case Slow:
		s += fmt.Sprintf(" by %v", e.Extra)
	case Lose:
		s += fmt.Sprintf(" %d %%", e.Part)
	}
	return s
}

// String tells the story, a line for each event.
func (s Story) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: RTT %v, %d servers, %d relays, %d messages every %v each way\n",
		s.Seed, s.RTT, s.Servers, s.Relays, s.Burst, s.Every)
	for i, n := range s.Agents {
		fmt.Fprintf(&b, "  %s is %v\n", agentName(i), n)
	}
	for _, e := range s.Events {
		fmt.Fprintln(&b, e)
	}
	fmt.Fprintf(&b, "%s  mend", stamp(s.Length))
	return b.String()
}

func agentName(i int) string { return string(rune('a' + i)) }

// Run plays the story in a universe of its own and returns what became of the
// messages. A failure shows the story and what happened.
func (s Story) Run(t *testing.T) (account Account) {
	t.Helper()
	Run(t, Config{RTT: s.RTT, Servers: s.Servers, Relays: s.Relays, Seed: s.Seed, Configure: s.Configure}, func(u *Universe) {
		defer func() {
			if t.Failed() {
				t.Logf("the story:\n%v", s)
			}
		}()
		for i, n := range s.Agents {
			u.Agent(agentName(i), n)
		}
		for i := range s.Agents {
			for j := range s.Agents {
				if i != j {
					u.Traffic(agentName(i), agentName(j), s.Every, s.Burst)
				}
			}
		}
		for _, e := range s.Events {
			time.Sleep(e.At - time.Since(u.began))
			u.Do(e)
		}
		time.Sleep(s.Length - time.Since(u.began))
		account = u.Settle()
	})
	return account
}

// Do does what an event says, now.
func (u *Universe) Do(e Event) {
	who := strings.Join(e.Who, " ")
	whom := strings.Join(e.Whom, " ")
	switch e.Verb {
	case Kill:
		u.Kill(who)
	case Restart:
		u.Restart(who)
	case Stop:
		u.Stop(who)
	case Continue:
		u.Continue(who)
	case Partition:
		u.Partition(e.Who, e.Whom)
	case OneWay:
		u.OneWay(who, whom)
	case Heal:
		u.Heal()
	case Move:
		u.Move(who)
	case MoveUnseen:
		u.MoveUnseen(who)
	case Slow:
		u.Slow(who, e.Extra)
	case Lose:
		u.Lose(who, e.Part)
	case Replace:
		u.Replace(who, whom)
	default:
		u.fatal("there is no verb %q", e.Verb)
	}
}

// Random makes a story of three to six agents, with one to three servers and in
// half of the cases one to three relays, in which four to twelve things go wrong
// within two minutes, and with relays one to four more of those. The same seed makes the same story.
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
	w := writer{r: r, s: &s}
	for range 4 + r.IntN(9) {
		w.trouble()
	}
	if s.Relays > 0 {
		for range 1 + r.IntN(4) {
			w.relayTrouble()
		}
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
	switch r.IntN(12) {
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

func (w *writer) names() []string {
	var names []string
	for i := range w.s.Agents {
		names = append(names, agentName(i))
	}
	for i := range w.s.Servers {
		names = append(names, serverName(i))
	}
	for i := range w.s.Relays {
		names = append(names, fmt.Sprintf("r%d", i+1))
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
