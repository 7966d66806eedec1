//go:build unix

package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/keys"
)

const (
	// every is the time between two messages of one agent to another.
	every = 5 * time.Millisecond
	// roundLimit is how long it may take until there is traffic again.
	roundLimit = time.Minute
	// askEvery is how often a server is asked who is registered.
	askEvery = 50 * time.Millisecond
)

// town is the processes and what is known of them. The test's goroutine owns it.
type town struct {
	t       *testing.T
	dir     string
	names   []string // of the agents
	addrs   []string // of the servers
	agents  []*proc
	servers []*proc
	tails   map[string]*tail // by name
	books   *books
	round   int // 0 before the first and after the last

	web        *http.Client
	watches    sync.WaitGroup
	unwatch    []context.CancelFunc // of each server, nil when nobody watches it
	mu         sync.Mutex
	registered times           // from a server's restart until every agent is registered with it
	settled    map[string]bool // agents that have said so
}

func newTown(t *testing.T) *town {
	t.Helper()
	w := &town{t: t, dir: t.TempDir(), names: []string{"agent-a", "agent-b", "agent-c"}, addrs: freeAddrs(t, 2),
		tails: map[string]*tail{}, settled: map[string]bool{}, web: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
	w.agents, w.servers = make([]*proc, len(w.names)), make([]*proc, len(w.addrs))
	w.unwatch = make([]context.CancelFunc, len(w.addrs))
	w.books = newBooks(w.names)
	var entries strings.Builder
	for _, name := range w.names {
		id, err := keys.Generate(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := id.Save(w.key(name)); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&entries, name, id.PublicKey())
		w.tails[name] = new(tail)
	}
	if err := os.WriteFile(w.directory(), []byte(entries.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range w.addrs {
		w.tails[serverName(i)] = new(tail)
	}
	t.Cleanup(w.watches.Wait)
	return w
}

func (w *town) key(name string) string { return filepath.Join(w.dir, name+".key") }
func (w *town) directory() string      { return filepath.Join(w.dir, "agents") }
func serverName(i int) string          { return fmt.Sprint("server-", i+1) }

// freeAddrs returns loopback addresses that nobody listens on. Their ports lie
// below those that the kernel gives to outgoing connections (32768 on Linux), so
// that none of these takes the place of a server while it is dead.
func freeAddrs(t *testing.T, n int) []string {
	t.Helper()
	var addrs []string
	for port := 20000 + rand.IntN(10000); len(addrs) < n; port++ {
		if port >= 32768 {
			t.Fatal("no free ports")
		}
		addr := fmt.Sprint("127.0.0.1:", port)
		if l, err := net.Listen("tcp", addr); err == nil {
			l.Close()
			addrs = append(addrs, addr)
		}
	}
	return addrs
}

// begin starts everything and returns when all agents hear each other.
func (w *town) begin() {
	w.t.Helper()
	for i := range w.servers {
		w.startServer(i)
	}
	for i := range w.agents {
		w.startAgent(i)
	}
	w.awaitTraffic(everybody)
}

func (w *town) startServer(i int) {
	w.t.Helper()
	name := serverName(i)
	last := w.tails[name]
	w.servers[i] = start(w.t, processConfig{Server: &serverConfig{Addr: w.addrs[i]}}, last, func(line string) {
		last.add(line)
		if strings.HasPrefix(line, "problem ") {
			w.books.fault("%s: %s", name, line)
		}
	}, func(err error) { w.books.fault("%s has ended: %v", name, err) })
}

func (w *town) startAgent(i int) {
	w.t.Helper()
	name := w.names[i]
	last := w.tails[name]
	p := w.books.started(name)
	cfg := &agentConfig{Name: name, Incarnation: p.incarnation, Key: w.key(name), Directory: w.directory(), Every: every}
	for _, addr := range w.addrs {
		cfg.Servers = append(cfg.Servers, "ws://"+addr+"/")
	}
	for _, peer := range w.names {
		if peer != name {
			cfg.Peers = append(cfg.Peers, peer)
		}
	}
	last.add(fmt.Sprintf("= %v starts", p))
	w.agents[i] = start(w.t, processConfig{Agent: cfg}, last, func(line string) {
		if w.books.enter(p, line) {
			return
		}
		last.add(line)
		if line == "settled" {
			w.mu.Lock()
			w.settled[name] = true
			w.mu.Unlock()
			w.books.wake()
		}
	}, func(err error) { w.books.fault("%v has ended: %v", p, err) })
}

// fatal ends the test with everything that is known.
func (w *town) fatal(format string, args ...any) {
	w.t.Helper()
	for name, last := range w.tails {
		w.t.Logf("%s said last:\n%v", name, last)
	}
	for _, text := range w.books.wrong() {
		w.t.Log("wrong: " + text)
	}
	w.t.Fatalf("seed %d, round %d of %d: %s", *seed, w.round, *rounds, fmt.Sprintf(format, args...))
}

// everybody takes all pairs.
func everybody(from, to string) bool { return true }

// awaitTraffic waits until what is sent from now on arrives, between each pair
// that a filter takes, and returns how long that took.
func (w *town) awaitTraffic(takes func(from, to string) bool) time.Duration {
	w.t.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(w.t.Context(), roundLimit)
	defer cancel()
	if err := w.books.await(ctx, w.books.now(takes)); err != nil {
		w.fatal("after %v: %v", short(time.Since(began)), err)
	}
	return time.Since(began)
}

// pause lets a fault last.
func (w *town) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-w.t.Context().Done():
	}
}

// outcome is what a round shows.
type outcome struct {
	recovery time.Duration
	// gap is the longest time in which nothing was delivered between two agents
	// that the fault does not hit, changes how often one of their Peers changed
	// its state; a busy machine or the round before may be the reason.
	gap     time.Duration
	changes int
}

// run makes one fault and returns when there is traffic again between all. For a
// fault of an agent, recovery is the time from when its process ran again until
// what was sent after that, and so everything before, arrived from it and at it.
// Servers carry no messages: a fault of servers alone hits nobody, and recovery is
// the gap.
func (w *town) run(f fault) (o outcome) {
	w.t.Helper()
	name := w.names[f.agent]
	hit := func(from, to string) bool { return f.ofAgent() && (from == name || to == name) }
	for _, last := range w.tails {
		last.add(fmt.Sprintf("= round %d: %s", w.round, f.words(w.names)))
	}
	w.books.calm()
	switch f.kind {
	case killAgent, killAgentAndServer:
		if f.kind == killAgentAndServer {
			w.killServer(f.server)
		}
		w.agents[f.agent].kill()
		w.pause(f.lasts)
		w.startAgent(f.agent)
		o.recovery = w.awaitTraffic(hit)
		if f.kind == killAgentAndServer {
			w.restartServer(f.server)
		}
	case stopAgent:
		w.signal(w.agents[f.agent].stop)
		w.pause(f.lasts)
		w.signal(w.agents[f.agent].resume)
		o.recovery = w.awaitTraffic(hit)
	case killServer:
		w.killServer(f.server)
		w.pause(f.lasts)
		w.restartServer(f.server)
	case stopServer:
		w.signal(w.servers[f.server].stop)
		w.pause(f.lasts)
		w.signal(w.servers[f.server].resume)
	case killServers:
		for i := range w.servers {
			w.killServer(i)
		}
		w.pause(f.lasts)
		for i := range w.servers {
			w.restartServer(i)
		}
	}
	w.awaitTraffic(everybody)
	o.gap, o.changes = w.books.disturbance(func(from, to string) bool { return !hit(from, to) })
	if !f.ofAgent() {
		o.recovery = o.gap
	}
	return o
}

func (w *town) signal(send func() error) {
	w.t.Helper()
	if err := send(); err != nil {
		w.fatal("%v", err)
	}
}

func (w *town) killServer(i int) {
	if w.unwatch[i] != nil {
		w.unwatch[i]()
		w.unwatch[i] = nil
	}
	w.servers[i].kill()
}

// restartServer starts a server again and watches, beside what follows, when
// every agent has registered with it. A next fault of the server ends the watch.
func (w *town) restartServer(i int) {
	w.t.Helper()
	w.startServer(i)
	began := time.Now()
	ctx, cancel := context.WithCancel(w.t.Context())
	w.unwatch[i] = cancel
	w.watches.Go(func() {
		tick := time.NewTicker(askEvery)
		defer tick.Stop()
		for w.count(ctx, w.addrs[i]) < len(w.names) {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.registered = append(w.registered, time.Since(began))
	})
}

// count asks a server how many agents are registered; -1 is no answer.
func (w *town) count(ctx context.Context, addr string) int {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/stats", nil)
	if err != nil {
		return -1
	}
	resp, err := w.web.Do(req)
	if err != nil {
		return -1
	}
	defer resp.Body.Close()
	var stats struct {
		TotalAgents int `json:"total_agents"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&stats); err != nil {
		return -1
	}
	return stats.TotalAgents
}

// settle ends the traffic, waits until what was sent is delivered, ends all
// processes and returns the account.
func (w *town) settle() *account {
	w.t.Helper()
	for _, cancel := range w.unwatch {
		if cancel != nil {
			cancel()
		}
	}
	w.watches.Wait()
	for _, p := range w.agents {
		w.signal(func() error { return p.order(endOrder) })
	}
	w.awaitSettled()
	for i, p := range append(append([]*proc(nil), w.agents...), w.servers...) {
		if err := p.leave(roundLimit); err != nil {
			w.fatal("process %d leaves: %v", i, err)
		}
	}
	w.books.mu.Lock()
	a := w.books.account
	a.settle(func(p process) bool { return w.books.living[p.name] == p.incarnation })
	w.books.mu.Unlock()
	for _, text := range w.books.wrong() {
		w.t.Error(text)
	}
	return a
}

// awaitSettled waits until every agent has flushed what it sent.
func (w *town) awaitSettled() {
	w.t.Helper()
	deadline := time.NewTimer(roundLimit)
	defer deadline.Stop()
	for {
		more := w.books.wait()
		w.mu.Lock()
		n := len(w.settled)
		w.mu.Unlock()
		if n == len(w.names) {
			return
		}
		if len(w.books.wrong()) > 0 {
			w.fatal("something is wrong")
		}
		select {
		case <-more:
		case <-deadline.C:
			w.fatal("%d of %d agents have flushed", n, len(w.names))
		}
	}
}
