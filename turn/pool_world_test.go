package turn

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/turn/v5"

	"github.com/infrafabric/agentmesh/internal/virtual"
	"github.com/infrafabric/agentmesh/witness"
)

// world is a virtual network with relays and one agent's Pool.
type world struct {
	t      *testing.T
	net    *virtual.Net
	me     *virtual.Host
	relays []*virtual.Relay
	pool   *Pool
	last   *virtual.Host // of the last server

	mu     sync.Mutex
	events []witness.Event
}

// inWorld runs f in a bubble, with a round trip of 50 ms and relays that are
// further away by the given delays. No Pool runs yet.
func inWorld(t *testing.T, delays []time.Duration, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, net: virtual.New(t, virtual.Config{RTT: 50 * time.Millisecond})}
		var err error
		if w.me, err = w.net.Host(virtual.PortRestricted); err != nil {
			t.Fatal(err)
		}
		for _, d := range delays {
			w.relay(d)
		}
		defer func() {
			if w.pool != nil {
				w.close()
			}
		}()
		f(t, w)
	})
}

func (w *world) relay(delay time.Duration) *virtual.Relay {
	w.t.Helper()
	r, err := w.net.Relay(virtual.RelayConfig{Username: testUser, Password: testPassword})
	if err != nil {
		w.t.Fatal(err)
	}
	r.Host().SetDelay(delay)
	w.relays = append(w.relays, r)
	return r
}

func (w *world) endpoint(i int) Endpoint {
	return Endpoint{URL: w.relays[i].URL(), Credentials: Static(testUser, testPassword)}
}

// open starts the Pool with the endpoints, or with one for each relay.
func (w *world) open(endpoints ...Endpoint) {
	w.t.Helper()
	if endpoints == nil {
		for i := range w.relays {
			endpoints = append(endpoints, w.endpoint(i))
		}
	}
	p, err := NewPool(PoolConfig{
		Endpoints: endpoints, Net: w.me, AgentID: "agent", Recorder: w.recorder(),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.pool = p
}

// recorder keeps the events.
func (w *world) recorder() witness.Recorder {
	return witness.RecorderFunc(func(_ context.Context, e witness.Event) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.events = append(w.events, e)
	})
}

// close ends the Pool, which takes no time.
func (w *world) close() {
	w.t.Helper()
	began := time.Now()
	if err := w.pool.Close(); err != nil || time.Since(began) > 10*time.Millisecond {
		w.t.Errorf("Close: %v after %v", err, time.Since(began))
	}
}

// sleep passes virtual time.
//
// bubble: it sleeps.
func (w *world) sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// ranked are the numbers of the relays as Rank returns them: those that are down only
// if all are. They come last.
func (w *world) ranked() []int {
	w.t.Helper()
	up, down := []int{}, []int{}
	for _, r := range w.pool.Rank(w.t.Context()) {
		i := slices.IndexFunc(w.relays, func(v *virtual.Relay) bool { return v.URL() == r.URL })
		switch {
		case r.Down:
			down = append(down, i)
		case len(down) > 0:
			w.t.Errorf("relay %d, which works, comes after one that is down", i)
			fallthrough
		default:
			up = append(up, i)
		}
	}
	if len(up) == 0 {
		return down
	}
	return up
}

func (w *world) want(when string, order ...int) {
	w.t.Helper()
	if got := w.ranked(); !slices.Equal(got, order) {
		w.t.Errorf("%s: ranked %v, want %v; %+v", when, got, order, w.pool.Status())
	}
}

// until waits for the order and returns how long it took.
func (w *world) until(most time.Duration, order ...int) time.Duration {
	w.t.Helper()
	began := time.Now()
	for {
		changed := w.pool.Changed()
		if slices.Equal(w.ranked(), order) {
			return time.Since(began)
		}
		select {
		case <-changed:
		case <-time.After(most - time.Since(began)):
			w.t.Fatalf("not %v within %v but %v; %+v", order, most, w.ranked(), w.pool.Status())
		}
	}
}

// took returns the events since the last call, as words: the name, and relays by
// their number.
func (w *world) took() []string {
	synctest.Wait() // the Recorder has a goroutine of its own
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	number := func(v any) string {
		return fmt.Sprint(" ", slices.IndexFunc(w.relays, func(r *virtual.Relay) bool { return r.URL() == v }))
	}
	for _, e := range w.events {
		s := string(e.Name)
		for _, key := range []string{"url", "from", "to"} {
			if v, ok := e.Metadata[key]; ok {
				s += number(v)
			}
		}
		out = append(out, s)
		if e.AgentID != "agent" || e.Time.IsZero() {
			w.t.Errorf("an event without its agent or time: %+v", e)
		}
	}
	w.events = nil
	return out
}

func (w *world) wantEvents(want ...string) {
	w.t.Helper()
	if got := w.took(); !slices.Equal(got, want) {
		w.t.Errorf("events:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// ready lets the first probes pass and forgets their events.
//
// bubble: it sleeps.
func (w *world) ready(order ...int) {
	w.t.Helper()
	w.sleep(3 * time.Second)
	w.want("in the beginning", order...)
	w.took()
}

func (w *world) doubt(i int) { w.pool.Doubt(Relay{URL: w.relays[i].URL()}) }

// server is a relay with a quota or other settings of its own on a virtual host.
func (w *world) server(change func(*turn.ServerConfig)) (url string, n *allocations) {
	w.t.Helper()
	h, err := w.net.Host(virtual.Open)
	if err != nil {
		w.t.Fatal(err)
	}
	w.last = h
	c, err := h.ListenPacket("udp4", h.Addr()+":3478")
	if err != nil {
		w.t.Fatal(err)
	}
	n = new(allocations)
	cfg := serverConfig(n)
	cfg.PacketConnConfigs = []turn.PacketConnConfig{{PacketConn: c, RelayAddressGenerator: &turn.RelayAddressGeneratorStatic{
		RelayAddress: net.ParseIP(h.Addr()), Address: h.Addr(), Net: h,
	}}}
	if change != nil {
		change(&cfg)
	}
	s, err := turn.NewServer(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = s.Close() })
	return "turn:" + h.Addr() + ":3478", n
}

// restServer makes it one with a shared secret.
func restServer(c *turn.ServerConfig) {
	c.AuthHandler = turn.LongTermTURNRESTAuthHandler("north", c.LoggerFactory.NewLogger("auth"))
}
