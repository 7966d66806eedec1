package meshtest

import (
	"fmt"
	"time"

	"github.com/pion/transport/v5"

	"github.com/infrafabric/agentmesh/internal/virtual"
	"github.com/infrafabric/agentmesh/mesh"
	"github.com/infrafabric/agentmesh/turn"
	"github.com/infrafabric/agentmesh/witness"
)

func serverName(i int) string { return fmt.Sprintf("s%d", i+1) }

// relay is a TURN server that can be killed and restarted.
type relay struct {
	u       *Universe
	name    string
	running *virtual.Relay
	extra   time.Duration // by which it is slow
	dead    bool
}

// The credential of every relay.
const (
	RelayUser     = "meshtest"
	RelayPassword = "virtual"
)

func (r *relay) create() {
	var err error
	r.running, err = r.u.net.Relay(virtual.RelayConfig{Username: RelayUser, Password: RelayPassword})
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

// Carrier returns the name of the relay that carries a Peer's session, "" for a
// direct path or none.
func (u *Universe) Carrier(p *mesh.Peer) string {
	for _, r := range u.ordered {
		if r.running.Host().Addr() == p.Status().Path.Relay {
			return r.name
		}
	}
	return ""
}

// RelayURL returns where a relay is, for a pool of a test's own. Its credential is
// RelayUser, alone or followed by a colon and anything, and RelayPassword.
func (u *Universe) RelayURL(name string) string {
	u.check("relay", name)
	return u.relays[name].running.URL()
}

// pool makes the pool of an agent's process, of all relays.
func (u *Universe) pool(agent string, n transport.Net, r witness.Recorder) (*turn.Pool, error) {
	cfg := turn.PoolConfig{AgentID: agent, Net: n, Recorder: r}
	for _, r := range u.ordered {
		url := r.running.URL()
		if u.cfg.Names {
			url = "turn:" + r.name + topLevel + "?transport=udp"
		}
		cfg.Endpoints = append(cfg.Endpoints, turn.Endpoint{URL: url, Credentials: turn.Static(RelayUser, RelayPassword)})
	}
	return turn.NewPool(cfg)
}
