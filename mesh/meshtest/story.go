package meshtest

import (
	"fmt"
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
	// Names is Config.Names.
	Names bool
	// Answers names agents whose Handler answers, as Config.Answers.
	Answers []string
	// Windows are mesh.Config.Window of single agents; the default for all others.
	Windows map[string]uint64
	// Every and Burst are the traffic from each agent to each other one.
	Every  time.Duration
	Burst  int
	Events []Event // in the order of their times
	// Length is how long it lasts before everything is mended.
	Length time.Duration
	// Configure is Config.Configure.
	Configure func(name string, c *mesh.Config)
}

// String tells the story, a line for each event.
func (s Story) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: RTT %v, %d servers, %d relays, %d messages every %v each way\n",
		s.Seed, s.RTT, s.Servers, s.Relays, s.Burst, s.Every)
	if s.Names {
		b.WriteString("  servers are known by their names\n")
	}
	for i, n := range s.Agents {
		name := agentName(i)
		fmt.Fprintf(&b, "  %s is %v", name, n)
		if slices.Contains(s.Answers, name) {
			b.WriteString(", answers")
		}
		if w := s.Windows[name]; w > 0 {
			fmt.Fprintf(&b, ", has a window of %d bytes", w)
		}
		b.WriteByte('\n')
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
	configure := func(name string, c *mesh.Config) {
		c.Window = s.Windows[name]
		if s.Configure != nil {
			s.Configure(name, c)
		}
	}
	cfg := Config{RTT: s.RTT, Servers: s.Servers, Relays: s.Relays, Names: s.Names, Seed: s.Seed, Answers: s.Answers, Configure: configure}
	Run(t, cfg, func(u *Universe) {
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
