package meshtest

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/infrafabric/agentmesh/internal/pipenet"
	"github.com/infrafabric/agentmesh/internal/virtual"
	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/mesh"
	"github.com/infrafabric/agentmesh/signaling"
)

// Config says what a universe is like. Zero fields mean their defaults.
type Config struct {
	// RTT is the round trip between any two hosts, and between an agent and a
	// signaling server, so that an envelope from agent to agent takes one RTT.
	// Default 50 ms.
	RTT time.Duration
	// Servers is how many signaling servers there are; they share presence and
	// routes only through the agents that are registered with several. Default 1.
	Servers int
	// Relays is how many TURN servers there are. Every agent has a turn.Pool of
	// them, unless Configure sets a TURN. Default none.
	Relays int
	// Names makes agents know servers by names and look them up: the STUN server,
	// "stun.test", relays, "r1.test", and signaling servers, "s1.test". Otherwise they know
	// addresses, but for signaling servers, whose names then need no look-up.
	Names bool
	// Seed is what keys and loss follow from.
	Seed uint64
	// Answers names agents whose Handler answers each message of the traffic with
	// another before it returns.
	Answers []string
	// Configure changes an agent's configuration before each of its processes
	// starts. Identity, Net, HTTPClient, NetworkChanged and Time are the universe's, as is the
	// Handler of an agent of Answers; Net is there to be used.
	// A Recorder gets every event beside the timeline.
	Configure func(name string, c *mesh.Config)
}

// Universe is what Run hands to a test. Its methods are for the goroutine of the
// test, as those of testing.T that fail it are.
type Universe struct {
	t     testing.TB
	cfg   Config
	net   *virtual.Net
	pipes *pipenet.Net
	began time.Time

	agents  map[string]*Agent
	names   []string // of the agents, in the order of their start
	servers map[string]*server
	relays  map[string]*relay
	ordered []*relay
	cuts    []cut
	paths   map[path]bool // with a fault of their own

	line  timeline
	books books

	trust trust
	work  sync.WaitGroup // of killed agents
}

// Run runs f in a universe of its own, in a synctest bubble, and stops everything
// that f started. A goroutine that f leaves behind fails the test.
func Run(t *testing.T, cfg Config, f func(u *Universe)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		u := create(t, cfg)
		defer u.close()
		f(u)
	})
}

func create(t testing.TB, cfg Config) *Universe {
	if cfg.RTT == 0 {
		cfg.RTT = 50 * time.Millisecond
	}
	if cfg.Servers == 0 {
		cfg.Servers = 1
	}
	if cfg.Servers > MaxServers || cfg.Relays > MaxRelays || cfg.Servers < 0 || cfg.Relays < 0 {
		t.Fatalf("meshtest: %d servers, %d relays", cfg.Servers, cfg.Relays)
	}
	u := &Universe{
		t: t, cfg: cfg, began: time.Now(),
		net:    virtual.New(t, virtual.Config{RTT: cfg.RTT, STUN: true}),
		pipes:  pipenet.New(),
		agents: map[string]*Agent{}, servers: map[string]*server{}, relays: map[string]*relay{}, paths: map[path]bool{},
		trust: trust{keys: map[string]keys.PublicKey{}},
	}
	u.line.began = u.began
	u.books.init(&u.line)
	// To the server and on to the other agent: half of a round trip each.
	u.pipes.Delay = cfg.RTT / 4
	for i := range cfg.Servers {
		s := &server{u: u, name: fmt.Sprintf("s%d", i+1)}
		u.servers[s.name] = s
		s.start()
	}
	for i := range cfg.Relays {
		r := &relay{u: u, name: fmt.Sprintf("r%d", i+1)}
		u.relays[r.name] = r
		u.ordered = append(u.ordered, r)
		r.create()
	}
	u.nameServers()
	return u
}

// close stops everything, the agents one after the other: two that end one
// connection at one instant get into each other's way.
//
// bubble: for what is closed takes virtual time to end.
func (u *Universe) close() {
	u.books.stop()
	for _, name := range u.names {
		a := u.agents[name]
		a.halt()
		synctest.Wait()
	}
	u.work.Wait()
	for _, s := range u.servers {
		u.pipes.Resume(s.addr())
		s.kill()
	}
	// What a closed TURN client still waits for is given up by then.
	time.Sleep(lingerTime)
	if err := u.net.Close(); err != nil {
		u.t.Error(err)
	}
}

// Timeline returns what has happened so far, a line for each verb, each change of
// a Peer and each problem, with the virtual time since the universe began.
func (u *Universe) Timeline() string { return u.line.String() }

// Datagrams counts the datagrams of all hosts so far, those that were lost
// included. What travels over byte streams does not count.
func (u *Universe) Datagrams() uint64 { return u.net.Datagrams() }

// Note adds a line to the timeline.
func (u *Universe) Note(format string, args ...any) { u.line.add(fmt.Sprintf(format, args...)) }

// fatal fails the test and shows how it came to it.
func (u *Universe) fatal(format string, args ...any) {
	u.t.Helper()
	u.t.Logf("what happened:\n%s", u.Timeline())
	u.t.Fatalf("meshtest: "+format, args...)
}

// identity is an agent's, the same for one seed and name.
func (u *Universe) identity(name string) *keys.Identity {
	seed := sha256.Sum256(fmt.Appendf(nil, "meshtest %d %s", u.cfg.Seed, name))
	id, err := keys.NewIdentity(name, ed25519.NewKeyFromSeed(seed[:]))
	if err != nil {
		u.fatal("agent %q: %v", name, err)
	}
	return id
}

// trust holds the key of each agent.
type trust struct {
	mu   sync.Mutex
	keys map[string]keys.PublicKey
}

func (t *trust) add(id *keys.Identity) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.keys[id.ID()] = id.PublicKey()
}

func (t *trust) Check(_ context.Context, c keys.Claim) (keys.Verdict, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if k, ok := t.keys[c.ID]; ok && k == c.Key {
		return keys.Verdict{Decision: keys.Yes}, nil
	}
	return keys.Verdict{Decision: keys.Refused}, nil
}

// server is a signaling server that can be killed and restarted.
type server struct {
	u    *Universe
	name string

	running *signaling.Server // nil while it is dead
	web     *http.Server
	served  chan struct{}
	muddle  muddle
}

func (s *server) addr() string { return s.name + ".test:80" }
func (s *server) url() string  { return "ws://" + s.name + ".test/" }

func (s *server) start() {
	l, err := s.u.pipes.Listen(s.addr())
	if err != nil {
		s.u.fatal("server %s: %v", s.name, err)
	}
	if s.running, err = signaling.NewServer(signaling.ServerConfig{Names: []string{s.name + ".test"}}); err != nil {
		s.u.fatal("server %s: %v", s.name, err)
	}
	s.web, s.served = &http.Server{Handler: s.muddle.handler(s.running)}, make(chan struct{})
	go func() {
		defer close(s.served)
		if err := s.web.Serve(l); !errors.Is(err, http.ErrServerClosed) && s.running == nil {
			s.u.t.Error(err)
		}
	}()
}

// kill ends the server; its connections break.
func (s *server) kill() {
	if s.running == nil {
		return
	}
	// Closing the listener first resets every connection: nobody gets a goodbye.
	if err := s.web.Close(); err != nil {
		s.u.t.Logf("close %s: %v", s.name, err)
	}
	if err := s.running.Close(); err != nil {
		s.u.t.Errorf("close %s: %v", s.name, err)
	}
	<-s.served
	s.running = nil
}
