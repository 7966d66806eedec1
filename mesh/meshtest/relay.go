package meshtest

import (
	"context"
	"fmt"
	"time"

	"github.com/infrafabric/agentmesh/internal/virtual"
	"github.com/infrafabric/agentmesh/turn"
)

func serverName(i int) string { return fmt.Sprintf("s%d", i+1) }

// relay is a TURN server that can be killed and restarted.
type relay struct {
	u       *Universe
	name    string
	running *virtual.Relay
	extra   time.Duration // by which it is slow
	dead    bool
	stopped bool
}

const relayUser, relayPassword = "meshtest", "virtual"

func (r *relay) create() {
	var err error
	r.running, err = r.u.net.Relay(virtual.RelayConfig{Username: relayUser, Password: relayPassword})
	if err != nil {
		r.u.fatal("relay %s: %v", r.name, err)
	}
}

func (r *relay) kill() {
	if !r.dead {
		r.dead = true
		r.running.Kill()
	}
}

func (r *relay) restart() {
	if r.dead {
		r.dead = false
		if err := r.running.Start(); err != nil {
			r.u.fatal("relay %s: %v", r.name, err)
		}
	}
}

// relays is the choice of every agent: the first one that runs. A test's own
// choice goes into Config.Configure.
type relays struct{ u *Universe }

func (c relays) Rank(context.Context) (ranked []turn.Relay) {
	c.u.line.mu.Lock() // relays are killed by the goroutine of the test
	defer c.u.line.mu.Unlock()
	for _, r := range c.u.ordered {
		if !r.dead && !r.stopped {
			ranked = append(ranked, turn.Relay{URL: r.running.URL(), Username: relayUser, Password: relayPassword})
		}
	}
	return ranked
}

func (relays) Changed() <-chan struct{} { return nil }

func (relays) Doubt(turn.Relay) {}
