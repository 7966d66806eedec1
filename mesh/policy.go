package mesh

import (
	"context"
	"fmt"
	"time"

	"github.com/infrafabric/agentmesh/turn"
)

// AtOnce is a duration of nothing, for fields whose zero value means a
// default.
const AtOnce time.Duration = -1

// Never switches off what a duration would otherwise schedule.
const Never time.Duration = -2

// Recovery is how a Peer notices that the other side is out of reach, and how
// it gets back. Zero fields mean the documented defaults.
//
// The other side is in doubt when it answered nothing for SuspectAfter (each
// side sends at least once a second, three times within a shorter SuspectAfter, and the
// other answers at once), on a path of more than a second for two round trips, or when
// what was sent stays unacknowledged for four smoothed round trips, one and a half of the
// last and at least AckTimeout, and the transport hands nothing of it over. Then new sessions are tried by every route, one after the other,
// while the present one is kept: if it comes back first, it is used. After
// PartitionAfter without an answer that is a partition, and Attempts further
// ones follow, the first after Backoff, each next one after twice the time, give
// or take a fifth. A sign that the network or the other side is back ends a
// wait. When all have failed the Peer is unreachable.
type Recovery struct {
	// SuspectAfter is how long the other side may answer nothing. Default 3 s;
	// at least 1 s.
	SuspectAfter time.Duration
	// AckTimeout is the least time that a record may stay unacknowledged.
	// Default 500 ms; at least 50 ms.
	AckTimeout time.Duration
	// PartitionAfter is when silence becomes a partition. Default 30 s; not
	// less than SuspectAfter.
	PartitionAfter time.Duration
	// Backoff is the wait before the first attempt after that. Default 1 s; at
	// least 10 ms.
	Backoff time.Duration
	// Attempts is how many there are. Default 10, which takes about 17 minutes;
	// at most 20.
	Attempts int
}

func (r Recovery) withDefaults() (Recovery, error) {
	for _, d := range []struct {
		field     string
		value     *time.Duration
		otherwise time.Duration
		least     time.Duration
	}{
		{"SuspectAfter", &r.SuspectAfter, defaultSuspectAfter, time.Second},
		{"AckTimeout", &r.AckTimeout, 500 * time.Millisecond, 50 * time.Millisecond},
		{"PartitionAfter", &r.PartitionAfter, 30 * time.Second, 0},
		{"Backoff", &r.Backoff, time.Second, 10 * time.Millisecond},
	} {
		if *d.value == 0 {
			*d.value = d.otherwise
		}
		if *d.value < d.least {
			return r, &ConfigError{"Recovery." + d.field, fmt.Sprintf("is less than %v", d.least)}
		}
	}
	if r.PartitionAfter < r.SuspectAfter {
		return r, &ConfigError{"Recovery.PartitionAfter", "is less than SuspectAfter"}
	}
	if r.Attempts == 0 {
		r.Attempts = 10
	}
	if r.Attempts < 0 || r.Attempts > maxLadder {
		return r, &ConfigError{"Recovery.Attempts", fmt.Sprintf("is not between 1 and %d", maxLadder)}
	}
	return r, nil
}

// Paths is which kinds of paths a Peer uses when. It matters only with a
// Config.TURN. Zero fields mean the documented defaults.
type Paths struct {
	// RelayOnly hides this agent's addresses from peers: candidates other than
	// relays' are neither made nor sent, and without a relay there is no connection.
	// The relays see where it is, and so do signaling servers, from which only a
	// proxy hides it (Config.HTTPClient). Default: direct paths are preferred.
	RelayOnly bool
	// RelayAfter is how long first contact waits for a direct path before it
	// takes the relay. Default 5 s; AtOnce for no wait. A session that replaces
	// another waits at most 300 ms, and not at all when that was relayed.
	RelayAfter time.Duration
	// DirectEvery is how long after a relayed session began a direct one is
	// tried; each failure doubles it, up to DirectMost. A change of the network
	// starts afresh. Default 30 s; Never for no such attempts.
	DirectEvery time.Duration
	// DirectMost is the longest pause between such attempts. Default 10 min.
	DirectMost time.Duration
	// StandbyAfter is how long after a session on a relay began a second one is
	// made on another relay, which takes over within about a round trip when the first falls
	// silent. It costs an allocation and, each way, a check and its answer every two seconds. Both
	// agents must want it. Default 1 s; Never for none; AtOnce for no wait.
	StandbyAfter time.Duration
}

func (p Paths) withDefaults() (Paths, error) {
	switch {
	case p.RelayAfter == AtOnce:
		p.RelayAfter = 0
	case p.RelayAfter < 0:
		return p, &ConfigError{"Paths.RelayAfter", "is negative"}
	case p.RelayAfter == 0:
		p.RelayAfter = 5 * time.Second
	}
	switch {
	case p.DirectEvery == Never:
	case p.DirectEvery < 0:
		return p, &ConfigError{"Paths.DirectEvery", "is negative"}
	case p.DirectEvery == 0:
		p.DirectEvery = 30 * time.Second
	}
	switch {
	case p.StandbyAfter == AtOnce:
		p.StandbyAfter = 0
	case p.StandbyAfter == Never:
	case p.StandbyAfter < 0:
		return p, &ConfigError{"Paths.StandbyAfter", "is negative"}
	case p.StandbyAfter == 0:
		p.StandbyAfter = time.Second
	}
	if p.RelayOnly {
		p.DirectEvery = Never
	}
	switch {
	case p.DirectMost == 0:
		p.DirectMost = max(10*time.Minute, p.DirectEvery)
	case p.DirectMost < p.DirectEvery:
		return p, &ConfigError{"Paths.DirectMost", "is less than DirectEvery"}
	}
	return p, nil
}

// Relays knows the TURN servers that this agent may use; [turn.Pool] is one. Its
// methods are called from many goroutines.
type Relays interface {
	// Rank returns the relays to use now, the best first, and none when there is
	// none. It may block for the first credentials; ctx ends after a second.
	Rank(ctx context.Context) []turn.Relay
	// Changed returns a channel that is closed when Rank may answer otherwise
	// than at the time of the call; nil when it never will.
	Changed() <-chan struct{}
	// Doubt tells that a path over the relay has gone silent, or that it gave
	// none. Whose fault that is remains to be seen. It does not block.
	Doubt(r turn.Relay)
}
