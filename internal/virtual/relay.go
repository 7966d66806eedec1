package virtual

import (
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/pion/turn/v5"
)

// RelayConfig holds the long-term credentials that a relay asks for.
type RelayConfig struct{ Username, Password string }

// Relay is a TURN server (RFC 8656) on a public host of its own.
type Relay struct {
	cfg  RelayConfig
	host *Host

	mu     sync.Mutex
	server *turn.Server // nil while it is dead
}

const relayPort = 3478

// Relay adds a relay, which runs. It may be called as long as there is room for
// another host; Close of the Net stops it.
func (n *Net) Relay(cfg RelayConfig) (*Relay, error) {
	h, err := n.Host(Open)
	if err != nil {
		return nil, err
	}
	r := &Relay{cfg: cfg, host: h}
	if err := r.Start(); err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.relays = append(n.relays, r)
	return r, nil
}

// URL is the relay's, in the form of RFC 7065.
func (r *Relay) URL() string {
	return fmt.Sprintf("turn:%s:%d?transport=udp", r.host.Addr(), relayPort)
}

// Host is the machine that the relay runs on. It must not be moved.
func (r *Relay) Host() *Host { return r.host }

// Start starts a relay that is dead, without the allocations that it had.
func (r *Relay) Start() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.server != nil {
		return nil
	}
	addr := r.host.Addr()
	conn, err := r.host.ListenPacket("udp4", fmt.Sprintf("%s:%d", addr, relayPort))
	if err != nil {
		return fmt.Errorf("virtual: relay: %w", err)
	}
	r.server, err = turn.NewServer(turn.ServerConfig{
		Realm: "virtual",
		AuthHandler: func(a *turn.RequestAttributes) (string, []byte, bool) {
			key := turn.GenerateAuthKey(r.cfg.Username, "virtual", r.cfg.Password)
			return a.Username, key, a.Username == r.cfg.Username
		},
		PacketConnConfigs: []turn.PacketConnConfig{{
			PacketConn: conn,
			RelayAddressGenerator: &turn.RelayAddressGeneratorStatic{
				RelayAddress: net.ParseIP(addr), Address: addr, Net: r.host},
		}},
		LoggerFactory: silent(),
	})
	if err != nil {
		return errors.Join(fmt.Errorf("virtual: relay: %w", err), conn.Close())
	}
	return nil
}

// Kill ends the relay at once; its allocations are lost.
func (r *Relay) Kill() {
	_ = r.close() // what a dying server has to say is lost as well
}

func (r *Relay) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.server == nil {
		return nil
	}
	err := r.server.Close()
	r.server = nil
	return err
}

// Hang makes the relay deaf and dumb, with its allocations kept, until Resume.
func (r *Relay) Hang() { r.host.Unplug() }

// Resume ends what Hang began.
func (r *Relay) Resume() { r.host.Plug() }
