package turn

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/internal/resolve"
	"github.com/infrafabric/agentmesh/internal/virtual"
)

// named is a host that has a name server.
type named struct {
	*virtual.Host

	mu    sync.Mutex
	addrs []string // of every name; none means that the name server is dead
}

func (n *named) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	n.mu.Lock()
	addrs := n.addrs
	n.mu.Unlock()
	if addrs == nil {
		<-ctx.Done()
		return nil, &net.DNSError{Err: "i/o timeout", Name: host, IsTimeout: true}
	}
	var out []netip.Addr
	for _, a := range addrs {
		if ip := netip.MustParseAddr(a); ip.Is4() == (network == "ip4") {
			out = append(out, ip)
		}
	}
	return out, nil
}

func (n *named) set(addrs ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.addrs = addrs
}

const namedURL = "turn:relays.example?transport=udp"

// named is the agent's network with a name server, by which all relays have one name.
func (w *world) named() *named {
	n := &named{Host: w.me}
	for _, r := range w.relays {
		n.addrs = append(n.addrs, r.Host().Addr())
	}
	return n
}

// openNamed starts a Pool of that name.
func (w *world) openNamed(n *named) {
	w.t.Helper()
	p, err := NewPool(PoolConfig{Net: n, Endpoints: []Endpoint{{URL: namedURL, Credentials: Static(testUser, testPassword)}}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.pool = p
}

// at waits until the Pool hands out an address, and returns how long it took.
func (w *world) at(most time.Duration, addr string) time.Duration {
	w.t.Helper()
	began := time.Now()
	for {
		changed := w.pool.Changed()
		if r := w.pool.Rank(w.t.Context()); len(r) == 1 && r[0].URL == namedURL && !r[0].Down && r[0].Address.IsValid() && r[0].Address.String() == addr {
			return time.Since(began)
		}
		select {
		case <-changed:
		case <-time.After(most - time.Since(began)):
			w.t.Fatalf("not at %s within %v; %+v", addr, most, w.pool.Status())
		}
	}
}

// TestPoolAddresses: of several addresses of one name those that are dead do no harm.
func TestPoolAddresses(t *testing.T) {
	inWorld(t, []time.Duration{0, 0, 0}, func(t *testing.T, w *world) {
		n := w.named()
		w.relays[0].Hang()
		w.relays[1].Kill()
		w.openNamed(n)
		live := n.addrs[2]
		took := w.at(2*time.Second, live)
		t.Logf("found after %v", took)
		if s := w.pool.Status()[0]; s.Health != Healthy || s.Err != nil || s.Address.String() != live || s.Latency != 75*time.Millisecond {
			t.Errorf("%+v", s)
		}
		// The other way round, with a doubt.
		if err := w.relays[1].Start(); err != nil {
			t.Fatal(err)
		}
		w.sleep(time.Minute)
		w.at(0, live) // who works is not left
		w.relays[2].Hang()
		w.pool.Doubt(Relay{URL: namedURL})
		t.Logf("moved after %v", w.at(1500*time.Millisecond, n.addrs[1]))
		if s := w.pool.Status()[0]; s.Health != Healthy || s.Failures != 0 {
			t.Errorf("%+v", s)
		}
		// Another machine takes over the name.
		n.set(n.addrs[0])
		w.relays[1].Kill()
		w.relays[0].Kill()
		if err := w.relays[0].Start(); err != nil {
			t.Fatal(err)
		}
		w.sleep(time.Minute)
		w.pool.Doubt(Relay{URL: namedURL})
		w.at(2*time.Second, n.addrs[0])
	})
}

// TestPoolAddressesDead: the error tells of each.
func TestPoolAddressesDead(t *testing.T) {
	inWorld(t, []time.Duration{0, 0}, func(t *testing.T, w *world) {
		n := w.named()
		n.set(append(n.addrs, "2001:db8::1")...) // where nothing leads
		w.relays[0].Hang()
		w.relays[1].Hang()
		w.openNamed(n)
		w.sleep(10 * time.Second)
		s := w.pool.Status()[0]
		if s.Health != Unhealthy || !errors.Is(s.Err, ErrUnreachable) {
			t.Errorf("%+v", s)
		}
		for _, a := range n.addrs {
			if strings.Count(s.Error, a) != 1 {
				t.Errorf("%s is not told: %s", a, s.Error)
			}
		}
	})
}

// TestPoolRefusedAtOne: a refusal says more than silence.
func TestPoolRefusedAtOne(t *testing.T) {
	inWorld(t, []time.Duration{0, 0}, func(t *testing.T, w *world) {
		n := w.named()
		w.relays[0].Hang()
		_, err := Probe(t.Context(), n, Relay{URL: namedURL, Username: testUser, Password: "wrong"})
		var e *ProbeError
		if !errors.Is(err, ErrCredentials) || errors.Is(err, ErrUnreachable) || !errors.As(err, &e) || e.URL != namedURL {
			t.Errorf("%v", err)
		}
		if _, err := Probe(t.Context(), n, Relay{URL: namedURL, Username: testUser, Password: testPassword}); err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		given := errors.New("given up")
		time.AfterFunc(100*time.Millisecond, func() { cancel(given) })
		began := time.Now()
		if _, err := Probe(ctx, n, Relay{URL: namedURL, Username: testUser, Password: testPassword}); !errors.Is(err, given) || time.Since(began) > 100*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// TestPoolDeadNameServer: nothing waits for it, and what was known serves on.
func TestPoolDeadNameServer(t *testing.T) {
	inWorld(t, []time.Duration{0}, func(t *testing.T, w *world) {
		n := w.named()
		addr := n.addrs[0]
		n.set()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		_, err := Probe(ctx, n, Relay{URL: namedURL, Username: testUser, Password: testPassword})
		var unknown *resolve.Error
		if !errors.Is(err, ErrUnreachable) || !errors.As(err, &unknown) || time.Since(began) != time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		w.openNamed(n)
		w.sleep(7 * time.Second)
		if s := w.pool.Status()[0]; s.Health != Unhealthy || !errors.As(s.Err, &unknown) || unknown.Host != "relays.example" {
			t.Errorf("%+v", s)
		}
		w.close() // takes no time
		w.openNamed(n)
		w.sleep(time.Minute)
		n.set(addr)
		t.Logf("found after %v", w.at(25*time.Second, addr))
		n.set()
		w.sleep(time.Hour)
		if s := w.pool.Status()[0]; s.Health != Healthy || s.Failures != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// TestPoolURLs: what is wrong with a URL is said, and no password.
func TestPoolURLs(t *testing.T) {
	for url, why := range map[string]string{
		"turn.example.org:3478":                `"turn.example.org:3478" does not begin with "turn:"`,
		"stun:turn.example.org":                "a STUN URL",
		"turns:turn.example.org?transport=udp": "TLS over UDP",
		"turn:turn.example.org:99999999":       "99999999",
		"turn:2001:db8::1":                     "brackets",
		"turn:ann:secret@turn.example.org":     "a user",
		"turn:" + strings.Repeat("x", maxURL):  fmt.Sprint("longer than ", maxURL),
	} {
		_, err := NewPool(PoolConfig{Endpoints: []Endpoint{{URL: url, Credentials: Static("u", "p")}}})
		var e *ConfigError
		if !errors.As(err, &e) || e.Field != "Endpoint.URL" || !strings.Contains(e.Reason, why) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", url, err)
		}
	}
}
