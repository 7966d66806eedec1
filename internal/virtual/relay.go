package virtual

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/pion/turn/v5"
)

// realm of the relays; RFC 8489 §9.2 wants one.
const realm = "virtual"

// RelayConfig says who may use a relay.
type RelayConfig struct {
	// Username and Password are the long-term credential of RFC 8489 §9.2 that
	// everybody uses. Both are needed. A user name that continues with a colon is
	// as good.
	Username, Password string
}

func (c RelayConfig) validate() error {
	switch {
	case c.Username == "":
		return errors.New("virtual: RelayConfig.Username: is empty")
	case c.Password == "":
		return errors.New("virtual: RelayConfig.Password: is empty")
	}
	return nil
}

// Relay is a TURN server (RFC 8656) over UDP on a public host of its own. Its
// methods may be called from any goroutine of the bubble.
//
// What is relayed from A to B goes from A to the relay and from the relay to B,
// so a Block between A and B does not stop it. Allocations on the same relay reach
// each other on a third way through the core, from the relay to itself.
type Relay struct {
	cfg    RelayConfig
	host   *Host
	server *turn.Server // guarded by host.net.mu; nil while it is dead
}

// Relay adds a TURN server. Its host counts among MaxHosts.
//
// The errors are those of [Net.Host], and one that names an empty field of cfg.
func (n *Net) Relay(cfg RelayConfig) (*Relay, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	host, err := n.addHost(&Host{net: n, nat: Open, fixed: true})
	if err != nil {
		return nil, err
	}
	r := &Relay{cfg: cfg, host: host}
	if err := r.serve(); err != nil {
		return nil, err
	}
	n.relays = append(n.relays, r)
	return r, nil
}

// serve starts a server; host.net.mu is held.
func (r *Relay) serve() error {
	addr := r.host.Addr()
	server, err := r.host.serve(turn.ServerConfig{
		Realm: realm,
		AuthHandler: func(ra *turn.RequestAttributes) (string, []byte, bool) {
			name, _, _ := strings.Cut(ra.Username, ":")
			return ra.Username, turn.GenerateAuthKey(ra.Username, ra.Realm, r.cfg.Password), name == r.cfg.Username
		},
		PacketConnConfigs: []turn.PacketConnConfig{{
			RelayAddressGenerator: &turn.RelayAddressGeneratorStatic{
				RelayAddress: net.ParseIP(addr),
				Address:      addr,
				Net:          r.host,
			},
		}},
	})
	if err != nil {
		return fmt.Errorf("virtual: relay at %s: %w", addr, err)
	}
	r.server = server
	return nil
}

// URL is where the relay is, such as "turn:1.2.16.1:3478?transport=udp", in the
// form of RFC 7065.
func (r *Relay) URL() string {
	return fmt.Sprintf("turn:%s:%d?transport=udp", r.host.Addr(), stunPort)
}

// Host is the machine of the relay: to block, slow down or unplug. It cannot
// Move.
func (r *Relay) Host() *Host { return r.host }

// Kill ends the server at once. Its allocations are lost, and so is what is under
// way to and from it. Killing a dead one does nothing.
func (r *Relay) Kill() {
	n := r.host.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if r.server == nil {
		return
	}
	n.wire.cut(r.host, killed)
	n.wire.mend(r.host, hung) // what is dead does not hang
	_ = r.server.Close()      // fails only for a socket that is closed already
	r.server = nil
}

// Start brings a killed relay back, at the same address and without its
// allocations. It does nothing if the relay runs. After Close of the network it
// returns an error matching [net.ErrClosed].
func (r *Relay) Start() error {
	n := r.host.net
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.closed:
		return errClosed
	case r.server != nil:
		return nil
	}
	// Other sockets than before: the old server closes its own in goroutines that
	// nobody can wait for. From here on they neither send nor receive.
	at, err := n.attachAt(r.host.at.public)
	if err != nil {
		return err
	}
	n.wire.move(r.host, at)
	if err := r.serve(); err != nil {
		return err
	}
	n.wire.mend(r.host, killed)
	return nil
}

// Hang drops everything to and from the relay, also what is under way, until
// Resume or Kill. The relay keeps its allocations as long as they last, which is
// 10 minutes unless they are refreshed, and 5 for permissions.
func (r *Relay) Hang() { r.host.net.wire.cut(r.host, hung) }

// Resume ends what Hang began.
func (r *Relay) Resume() { r.host.net.wire.mend(r.host, hung) }
