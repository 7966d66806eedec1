package mesh

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/transport/v5"

	"github.com/infrafabric/agentmesh/internal/virtual"
	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/turn"
	"github.com/infrafabric/agentmesh/witness"
)

// fixedRelays are relays of which nothing changes.
type fixedRelays []turn.Relay

func (f fixedRelays) Rank(context.Context) []turn.Relay { return f }
func (fixedRelays) Changed() <-chan struct{}            { return nil }
func (fixedRelays) Doubt(turn.Relay)                    {}

// relay adds a TURN server to the world.
func (w *world) relay() (*virtual.Relay, turn.Relay) {
	w.t.Helper()
	r, err := w.net.Relay(virtual.RelayConfig{Username: "u", Password: "p"})
	if err != nil {
		w.t.Fatal(err)
	}
	return r, turn.Relay{URL: r.URL(), Username: "u", Password: "p"}
}

// capture keeps what a node sends: UDP payloads, what it writes to signaling
// servers, unmasked, and what it writes to peers, before it is encrypted.
type capture struct {
	mu      sync.Mutex
	udp     []byte
	streams []*capturedStream
	frames  []byte
}

// everything returns all of it, by where it went.
func (c *capture) everything() map[string][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := map[string][]byte{"UDP": c.udp, "peers": c.frames}
	for _, s := range c.streams {
		all["signaling"] = append(all["signaling"], unmask(s.sent)...)
	}
	return all
}

// Of a network: the UDP payloads.

type capturedNet struct {
	transport.Net
	c *capture
}

func (n capturedNet) ListenUDP(network string, a *net.UDPAddr) (transport.UDPConn, error) {
	c, err := n.Net.ListenUDP(network, a)
	return capturedUDP{c, n.c}, err
}

func (n capturedNet) ListenPacket(network, address string) (net.PacketConn, error) {
	a, err := n.ResolveUDPAddr(network, address)
	if err != nil {
		return nil, err
	}
	return n.ListenUDP(network, a)
}

type capturedUDP struct {
	transport.UDPConn
	c *capture
}

func (u capturedUDP) WriteTo(b []byte, to net.Addr) (int, error) {
	u.c.mu.Lock()
	u.c.udp = append(u.c.udp, b...)
	u.c.mu.Unlock()
	return u.UDPConn.WriteTo(b, to)
}

func (u capturedUDP) Write([]byte) (int, error) { return 0, errors.New("not captured") }
func (u capturedUDP) WriteToUDP([]byte, *net.UDPAddr) (int, error) {
	return 0, errors.New("not captured")
}

// Of an HTTP client: the streams.

func (c *capture) client(of *http.Client) *http.Client {
	t := of.Transport.(*http.Transport).Clone()
	dial := t.DialContext
	t.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		s := &capturedStream{Conn: conn, of: c}
		c.mu.Lock()
		c.streams = append(c.streams, s)
		c.mu.Unlock()
		return s, nil
	}
	return &http.Client{Transport: t}
}

type capturedStream struct {
	net.Conn
	of   *capture
	sent []byte
}

func (s *capturedStream) Write(b []byte) (int, error) {
	s.of.mu.Lock()
	s.sent = append(s.sent, b...)
	s.of.mu.Unlock()
	return s.Conn.Write(b)
}

// unmask returns a client's WebSocket stream (RFC 6455 §5.2) without its masks.
func unmask(stream []byte) []byte {
	at := bytes.Index(stream, []byte("\r\n\r\n"))
	if at < 0 {
		return stream
	}
	plain := bytes.Clone(stream[:at+4])
	for b := stream[at+4:]; len(b) >= 6; {
		n, head := int(b[1]&0x7f), 2
		switch n {
		case 126:
			n, head = int(binary.BigEndian.Uint16(b[2:])), 4
		case 127:
			n, head = int(binary.BigEndian.Uint64(b[2:])), 10
		}
		mask := b[head : head+4]
		b = b[head+4:]
		n = min(n, len(b))
		for i := range n {
			plain = append(plain, b[i]^mask[i%4])
		}
		b = b[n:]
	}
	return plain
}

// Of a connector: the frames.

type capturedConnector struct {
	connector
	c *capture
}

func (k capturedConnector) New(cert *keys.Certificate, o connOptions) (conn, error) {
	c, err := k.connector.New(cert, o)
	if err != nil {
		return nil, err
	}
	return capturedConn{c, k.c}, nil
}

type capturedConn struct {
	conn
	c *capture
}

func (c capturedConn) Write(b []byte) error {
	c.c.mu.Lock()
	c.c.frames = append(c.c.frames, b...)
	c.c.mu.Unlock()
	return c.conn.Write(b)
}

// forms are how an address may be written: in words, in its four bytes, and as in
// XOR-MAPPED-ADDRESS (RFC 8489 §14.2).
func forms(a netip.Addr) map[string][]byte {
	b := a.As4()
	x := binary.BigEndian.AppendUint32(nil, binary.BigEndian.Uint32(b[:])^0x2112A442)
	return map[string][]byte{"words": []byte(a.String()), "bytes": b[:], "XORed": x}
}

// ownAddresses returns the addresses of a virtual host.
func ownAddresses(t *testing.T, n transport.Net) []netip.Addr {
	t.Helper()
	own := []netip.Addr{netip.MustParseAddr(n.(*virtual.Host).Addr())}
	ifs, err := n.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range ifs {
		addrs, err := i.Addrs()
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addrs {
			if ip, ok := addressOf(a); ok && !ip.IsLoopback() && ip.Is4() {
				own = append(own, ip)
			}
		}
	}
	return own
}

// TestRelayOnlyHides: with the policy that hides addresses, nothing that a node
// sends holds one of its own, whoever offers, over a life with replacements, a
// standby session that takes over and attempts of the other side at a direct path.
// Without the policy the same capture finds them.
func TestRelayOnlyHides(t *testing.T) {
	for _, hides := range []bool{true, false} {
		inWorld(t, virtual.Config{RTT: 20 * time.Millisecond, STUN: true}, func(w *world) {
			r1, one := w.relay()
			_, two := w.relay()
			caught := map[string]*capture{}
			own := map[string][]netip.Addr{}
			set := func(only bool) func(c *Config) {
				return func(c *Config) {
					c.TURN = fixedRelays{one, two}
					c.Paths = Paths{RelayAfter: AtOnce, DirectEvery: time.Second, RelayOnly: only}
					if !only && hides {
						return // the other side hides nothing
					}
					k := new(capture)
					caught[c.Identity.ID()], own[c.Identity.ID()] = k, ownAddresses(t, c.Net)
					c.HTTPClient = k.client(c.HTTPClient)
					// Bound to an address, sockets know it, and so may candidates.
					n, err := FilterNet(capturedNet{c.Net, k}, NetFilter{Address: netip.Addr.Is4})
					if err != nil {
						t.Fatal(err)
					}
					c.Net = n
				}
			}
			nodes := []*Node{w.agent("agent-a", virtual.PortRestricted, set(hides)),
				w.agent("agent-b", virtual.Open, set(hides)), w.agent("agent-c", virtual.Open, set(false))}
			for _, n := range nodes {
				if k := caught[n.ID()]; k != nil {
					n.connector = capturedConnector{n.connector, k}
				}
			}
			var met [][2]*Peer
			for _, pair := range [][2]*Node{{nodes[0], nodes[1]}, {nodes[0], nodes[2]}, {nodes[2], nodes[1]}} {
				p, q := meet(t, pair[0], pair[1])
				met = append(met, [2]*Peer{p, q})
				tell(t, p, "one")
				hear(t, q, "one")
				if hides && (!p.Status().Path.Relayed() || !q.Status().Path.Relayed()) {
					t.Errorf("%s meets %s by %v", pair[0].ID(), pair[1].ID(), p.Status().Path)
				}
				if err := p.Replace(w.t.Context()); err != nil {
					t.Error(err)
				}
				if err := q.Replace(w.t.Context()); err != nil {
					t.Error(err)
				}
				tell(t, q, "two")
				hear(t, p, "two")
			}
			time.Sleep(10 * time.Second) // standby sessions, attempts at direct paths
			r1.Kill()
			for _, m := range met {
				tell(t, m[0], "three")
				hear(t, m[1], "three")
			}
			time.Sleep(10 * time.Second)
			for name, k := range caught {
				found := map[string]bool{}
				for where, sent := range k.everything() {
					if len(sent) < 1000 {
						t.Errorf("%s sent %d bytes to %s", name, len(sent), where)
					}
					for _, a := range own[name] {
						for how, form := range forms(a) {
							if i := bytes.Index(sent, form); i >= 0 {
								found[where] = true
								if hides {
									t.Errorf("%s shows %v in %s to %s: %q", name, a, how, where, sent[max(i-40, 0):min(i+40, len(sent))])
								}
							}
						}
					}
				}
				if hides {
					continue
				}
				// The answers to checks of ICE tell others their addresses.
				for other, theirs := range own {
					found["UDP"] = found["UDP"] || other != name && bytes.Contains(k.everything()["UDP"], forms(theirs[0])["XORed"])
				}
				if !found["signaling"] || !found["peers"] || !found["UDP"] {
					t.Errorf("the capture of %s finds addresses in %v only", name, found)
				}
			}
		})
	}
}

// TestRelayOnlyWithoutRelay: with that policy and no relay there is no connection,
// and the error says so.
func TestRelayOnlyWithoutRelay(t *testing.T) {
	inWorld(t, virtual.Config{STUN: true}, func(w *world) {
		only := func(c *Config) { c.TURN, c.Paths.RelayOnly = fixedRelays{}, true }
		a, b := w.agent("agent-a", virtual.Open, only), w.agent("agent-b", virtual.Open)
		for _, pair := range [][2]*Node{{a, b}, {b, a}} {
			_, err := dialFor(pair[0], pair[1].ID(), 15*time.Second)
			if err == nil || !strings.Contains(err.Error(), "relay") {
				t.Errorf("%s dials: %v", pair[0].ID(), err)
			}
		}
	})
	cfg := Config{Identity: newIdentity(t, "agent-a"), Trust: newBook(), Signaling: []string{"ws://s1/"}, Paths: Paths{RelayOnly: true}}
	var ce *ConfigError
	if _, err := cfg.withDefaults(); !errors.As(err, &ce) || ce.Field != "Paths.RelayOnly" {
		t.Errorf("no relays at all: %v", err)
	}
}

// TestRelayOnlyRefusesDirectPaths: an agent that hides tries no direct path, and one
// that others try ends at once.
func TestRelayOnlyRefusesDirectPaths(t *testing.T) {
	log := new(hostileLog)
	inWorld(t, relayedNet, func(w *world) {
		_, one := w.relay()
		set := func(c *Config) {
			c.TURN, c.Recorder = fixedRelays{one}, log
			c.Paths = Paths{RelayAfter: AtOnce, DirectEvery: 5 * time.Second, RelayOnly: c.Identity.ID() != "agent-c"}
		}
		a, b, c := w.agent("agent-a", virtual.Open, set), w.agent("agent-b", virtual.Open, set), w.agent("agent-c", virtual.Open, set)
		meet(t, a, b)
		time.Sleep(10 * time.Minute)
		if n := log.count("agent-a", witness.WebRTCOfferCreated) + log.count("agent-b", witness.WebRTCOfferCreated); n > 3 {
			t.Errorf("%d offers between agents that hide", n)
		}
		if n := log.count("agent-a", witness.ConnectionStateChanged); n > 4 {
			t.Errorf("%d changes of state", n)
		}
		p, _ := meet(t, c, a)
		ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
		defer cancel()
		var began time.Time
		tried := 0
		for ch := range p.Changes(ctx) {
			switch {
			case ch.State == StateReplacing && ch.Reason == ReasonDirectPath:
				began = time.Now()
				tried++
			case ch.State == StateConnected && ch.Reason == ReasonFailed && time.Since(began) > time.Second:
				t.Errorf("an attempt at a direct path ended after %v", time.Since(began))
			}
		}
		if tried == 0 && !p.lesser() {
			t.Error("nobody tried a direct path")
		}
	})
}
