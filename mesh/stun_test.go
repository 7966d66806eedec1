package mesh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/transport/v5"

	"github.com/infrafabric/agentmesh/internal/virtual"
	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/turn"
)

// TestSTUNURLs: Listen says what is wrong with which.
func TestSTUNURLs(t *testing.T) {
	for url, why := range map[string]string{
		"":                                    "is empty",
		"stun.l.google.com:19302":             `does not begin with "stun:"`,
		"http://stun.example.org/":            `does not begin with "stun:"`,
		"turn:turn.example.org":               "belongs to TURN",
		"stuns:stun.example.org":              "TLS",
		"stun:":                               "no host",
		"stun:host:port":                      `"port"`,
		"stun:host:99999999":                  "99999999",
		"stun:2001:db8::1":                    "brackets",
		"stun://stun.example.org":             `"//"`,
		"stun:host?transport=udp":             "a query",
		"stun:ann:a-secret@stun.example.org":  "a user",
		"stun:stun.example.org, stun:b:34788": "no number",
	} {
		_, err := Listen(t.Context(), Config{Identity: newIdentity(t, "a"), Trust: keys.TrustAny,
			STUN: []string{"stun:good.example.org", url}, Signaling: []string{"ws://hub.invalid/"}})
		var e *ConfigError
		if !errors.As(err, &e) || e.Field != "STUN" || !strings.HasPrefix(e.Reason, "[1] ") || !strings.Contains(e.Reason, why) ||
			strings.Contains(err.Error(), "a-secret") {
			t.Errorf("%q: %v; want %s", url, err, why)
		}
	}
	many := slices.Repeat([]string{"stun:stun.example.org"}, maxSTUN+1)
	if _, err := parseSTUN(many); err == nil || !strings.Contains(err.Error(), fmt.Sprint(maxSTUN)) {
		t.Errorf("%d servers: %v", len(many), err)
	}
	if s, err := parseSTUN(many[1:]); err != nil || len(s) != 1 {
		t.Errorf("one server many times: %v, %v", s, err)
	}
}

// names is a network with a name server, to which pion must give no names. It looks
// up "A.example" as the addresses of A; without a map it is dead.
type names struct {
	transport.Net

	mu     sync.Mutex
	of     map[string][]string
	asked  int
	leaked []string
}

func (n *names) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	n.mu.Lock()
	n.asked++
	of := n.of
	n.mu.Unlock()
	if of == nil {
		<-ctx.Done()
		return nil, &net.DNSError{Err: "i/o timeout", Name: host, IsTimeout: true}
	}
	var out []netip.Addr
	for _, a := range of[host] {
		if ip := netip.MustParseAddr(a); ip.Is4() == (network == "ip4") {
			out = append(out, ip)
		}
	}
	if out == nil {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return out, nil
}

func (n *names) look(address string) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	if _, err := netip.ParseAddr(host); err != nil {
		n.mu.Lock()
		n.leaked = append(n.leaked, address)
		n.mu.Unlock()
	}
}

func (n *names) ResolveUDPAddr(network, address string) (*net.UDPAddr, error) {
	n.look(address)
	return n.Net.ResolveUDPAddr(network, address)
}

func (n *names) ResolveTCPAddr(network, address string) (*net.TCPAddr, error) {
	n.look(address)
	return n.Net.ResolveTCPAddr(network, address)
}

func (n *names) ResolveIPAddr(network, address string) (*net.IPAddr, error) {
	n.look(address)
	return n.Net.ResolveIPAddr(network, address)
}

func (n *names) Dial(network, address string) (net.Conn, error) {
	n.look(address)
	return n.Net.Dial(network, address)
}

func (n *names) CreateDialer(d *net.Dialer) transport.Dialer {
	return dialerFunc(func(network, address string) (net.Conn, error) {
		n.look(address)
		return n.Net.CreateDialer(d).Dial(network, address)
	})
}

type dialerFunc func(network, address string) (net.Conn, error)

func (f dialerFunc) Dial(network, address string) (net.Conn, error) { return f(network, address) }

// check fails when a name was given to the network.
func (n *names) check(t *testing.T) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.leaked) > 0 {
		t.Errorf("looked up without a context: %v", n.leaked)
	}
}

// TestNameServerHangs: a dial keeps to its context, goes on without what has no
// address, and says so; closing waits for nobody.
func TestNameServerHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := virtual.New(t, virtual.Config{RTT: 50 * time.Millisecond})
		defer world.Close()
		h := newHub(25 * time.Millisecond)
		relays := fixedRelays{{URL: "turn:relay.example", Username: "u", Password: "p"},
			{URL: "turns:relay.example", Username: "u", Password: "p"}}
		start := func(name string, log *bytes.Buffer) (*Node, *names) {
			host, err := world.Host(virtual.Open)
			if err != nil {
				t.Fatal(err)
			}
			n := &names{Net: host}
			return startNode(t, h, nil, Config{Identity: newIdentity(t, name), Trust: keys.TrustAny, Net: n, TURN: relays,
				STUN: []string{"stun:stun.example", "stun:other.example:3479"}, Logger: slog.New(slog.NewTextHandler(log, nil))}), n
		}
		var log bytes.Buffer
		a, netA := start("a", &log)
		b, netB := start("b", new(bytes.Buffer))
		const slack = 300 * time.Millisecond

		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		if _, err := a.Dial(ctx, "nobody"); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > slack+500*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		began = time.Now()
		p, err := a.Dial(t.Context(), "b")
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 2*nameWait+slack { // of one side after the other
			t.Errorf("dialled in %v", took)
		}
		began = time.Now()
		if err := p.Close(); err != nil || time.Since(began) > slack {
			t.Errorf("closing a Peer: %v after %v", err, time.Since(began))
		}
		time.Sleep(20 * time.Second) // by now the resolver has given up
		began = time.Now()
		if _, err = a.Dial(t.Context(), "b"); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > slack+600*time.Millisecond {
			t.Errorf("dialled again in %v", took)
		}
		for _, n := range []*Node{a, b} {
			began = time.Now()
			if err := n.Close(); err != nil || time.Since(began) > time.Second {
				t.Errorf("closing %s: %v after %v", n.ID(), err, time.Since(began))
			}
			synctest.Wait()
		}
		netA.check(t)
		netB.check(t)
		for _, text := range []string{"relay.example", "stun.example", "other.example"} {
			if !strings.Contains(log.String(), text) {
				t.Errorf("the log does not tell of %s:\n%s", text, &log)
			}
		}
	})
}

// TestNameIsTold: a dial that fails says which names were not known.
func TestNameIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := virtual.New(t, virtual.Config{RTT: 50 * time.Millisecond})
		defer world.Close()
		h := newHub(25 * time.Millisecond)
		start := func(name string) *Node {
			host, err := world.Host(virtual.Symmetric)
			if err != nil {
				t.Fatal(err)
			}
			return startNode(t, h, nil, Config{Identity: newIdentity(t, name), Trust: keys.TrustAny,
				Net:  &names{Net: host, of: map[string][]string{}},
				TURN: fixedRelays{{URL: "turn:relay.example", Username: "u", Password: "p"}},
				STUN: []string{"stun:stun.example"}})
		}
		a, b := start("a"), start("b")
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		_, err := a.Dial(ctx, "b")
		for _, text := range []string{"look up relay.example", "look up stun.example", "no such host"} {
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("%q is not told: %v", text, err)
			}
		}
		for _, n := range []*Node{a, b} {
			if err := n.Close(); err != nil {
				t.Error(err)
			}
			synctest.Wait()
		}
	})
}

// TestServersByName: behind NATs that only a STUN server, or a relay, helps through,
// whose names have dead addresses too.
func TestServersByName(t *testing.T) {
	for _, c := range []struct {
		name  string
		nat   virtual.NAT
		kinds []string
	}{
		{"STUN", virtual.PortRestricted, []string{"srflx", "prflx"}},
		{"relay", virtual.Symmetric, []string{"relay"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				world := virtual.New(t, virtual.Config{RTT: 50 * time.Millisecond})
				defer world.Close()
				relay, err := world.Relay(virtual.RelayConfig{Username: "u", Password: "p"})
				if err != nil {
					t.Fatal(err)
				}
				stunAt := strings.Split(world.STUNServer(), ":")[1]
				h := newHub(25 * time.Millisecond)
				start := func(name string) (*Node, *names) {
					host, err := world.Host(c.nat)
					if err != nil {
						t.Fatal(err)
					}
					n := &names{Net: host, of: map[string][]string{
						"stun.example":  {"203.0.113.1", stunAt, "2001:db8::1"},
						"relay.example": {relay.Host().Addr(), "2001:db8::1"},
					}}
					return startNode(t, h, nil, Config{Identity: newIdentity(t, name), Trust: keys.TrustAny, Net: n,
						STUN: []string{"stun:stun.example", "stun:unknown.example"},
						// The first has no address, so the next is taken.
						TURN: fixedRelays{{URL: "turn:gone.example", Username: "u", Password: "p"},
							{URL: "turn:relay.example", Username: "u", Password: "p"}},
						Paths: Paths{RelayAfter: time.Second, StandbyAfter: Never, DirectEvery: Never}}), n
				}
				a, netA := start("a")
				b, netB := start("b")
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				p, err := a.Dial(ctx, "b")
				if err != nil {
					t.Fatal(err)
				}
				if local, remote := p.top().conn.Path(); !slices.Contains(c.kinds, local) && !slices.Contains(c.kinds, remote) {
					t.Errorf("from %s to %s", local, remote)
				}
				for _, n := range []*Node{a, b} {
					if err := n.Close(); err != nil {
						t.Error(err)
					}
					synctest.Wait()
				}
				netA.check(t)
				netB.check(t)
			})
		})
	}
}

// TestRelayAddressOfPool: what the pool measured is used, and nothing looked up.
func TestRelayAddressOfPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, err := newNode(Config{Identity: newIdentity(t, "a"), Trust: keys.TrustAny, Signaling: []string{"ws://hub.invalid/"}, Net: &names{}})
		if err != nil {
			t.Fatal(err)
		}
		defer n.names.Close()
		at, err := n.relayAt(t.Context(), &turn.Relay{URL: "turns:relay.example:443", Address: netip.MustParseAddr("2001:db8::7")})
		if err != nil || at != netip.MustParseAddrPort("[2001:db8::7]:443") {
			t.Errorf("%v, %v", at, err)
		}
		at, err = n.relayAt(t.Context(), &turn.Relay{URL: "turn:192.0.2.1"})
		if err != nil || at != netip.MustParseAddrPort("192.0.2.1:3478") {
			t.Errorf("%v, %v", at, err)
		}
	})
}
