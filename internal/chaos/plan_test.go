package chaos

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// kind is a kind of fault.
type kind int

const (
	killAgent kind = iota
	stopAgent
	killServer
	stopServer
	killServers
	killAgentAndServer
	kinds // how many there are
)

func (k kind) String() string {
	return [...]string{"agent killed", "agent stopped", "server killed", "server stopped", "both servers killed",
		"agent and server killed"}[k]
}

// lasts is how long a fault of the kind lasts: at least, at most.
func (k kind) lasts() (least, most time.Duration) {
	switch k {
	case stopAgent:
		return 200 * time.Millisecond, 6 * time.Second
	case killServer, stopServer, killServers:
		return 100 * time.Millisecond, 1500 * time.Millisecond
	}
	return 0, 500 * time.Millisecond
}

// fault is what happens in one round.
type fault struct {
	kind   kind
	agent  int           // which, if the kind has one
	server int           // which, if the kind has one
	lasts  time.Duration // how long until the process runs again
}

// plan chooses what happens. As many rounds as there are kinds have each once, in
// any order, so that a short run misses none.
func plan(seed uint64, rounds, agents, servers int) []fault {
	rng := rand.New(rand.NewPCG(seed, 0))
	var faults []fault
	for len(faults) < rounds {
		for _, k := range rng.Perm(int(kinds)) {
			least, most := kind(k).lasts()
			faults = append(faults, fault{kind(k), rng.IntN(agents), rng.IntN(servers),
				least + time.Duration(rng.Int64N(int64(most-least))).Round(time.Millisecond)})
		}
	}
	return faults[:rounds]
}

// words says what happens.
func (f fault) words(agents []string) string {
	switch f.kind {
	case killAgent, stopAgent:
		return fmt.Sprintf("%v: %s for %v", f.kind, agents[f.agent], f.lasts)
	case killServer, stopServer:
		return fmt.Sprintf("%v: server-%d for %v", f.kind, f.server+1, f.lasts)
	case killServers:
		return fmt.Sprintf("%v: for %v", f.kind, f.lasts)
	}
	return fmt.Sprintf("%v: %s for %v, server-%d until it is back", f.kind, agents[f.agent], f.lasts, f.server+1)
}

// ofAgent reports whether an agent is hit.
func (f fault) ofAgent() bool {
	return f.kind == killAgent || f.kind == stopAgent || f.kind == killAgentAndServer
}
