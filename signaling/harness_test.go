package signaling_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/infrafabric/agentmesh/internal/pipenet"
	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
	"github.com/infrafabric/agentmesh/witness"
)

// world is a network with signaling servers and clients, in a synctest bubble.
type world struct {
	*testing.T
	net *pipenet.Net
	log events // what servers and clients record
}

// inWorld runs f in a bubble and stops whatever it started.
func inWorld(t *testing.T, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f(&world{T: t, net: &pipenet.Net{Delay: time.Millisecond}})
	})
}

// events records what happened.
type events struct {
	mu  sync.Mutex
	all []witness.Event
}

func (e *events) Record(_ context.Context, ev witness.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, ev)
}

// named returns the recorded events of one name.
func (e *events) named(name witness.Name) []witness.Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []witness.Event
	for _, ev := range e.all {
		if ev.Name == name {
			out = append(out, ev)
		}
	}
	return out
}

// server is a signaling server that listens in the world.
type server struct {
	*signaling.Server
	listener net.Listener
	http     *http.Server
}

// serve starts a server under name, which is also by what it goes unless cfg says
// otherwise.
func (w *world) serve(name string, cfg signaling.ServerConfig) *server {
	w.Helper()
	if cfg.Names == nil {
		cfg.Names = []string{name}
	}
	cfg.Recorder = &w.log
	s, err := signaling.NewServer(cfg)
	if err != nil {
		w.Fatal(err)
	}
	l, err := w.net.Listen(name)
	if err != nil {
		w.Fatal(err)
	}
	srv := &server{Server: s, listener: l, http: &http.Server{Handler: s}}
	var wg sync.WaitGroup
	wg.Go(func() { srv.http.Serve(l) })
	w.Cleanup(func() { srv.kill(); wg.Wait() })
	return srv
}

// kill ends a server as a crash does: its connections are reset.
func (s *server) kill() {
	s.listener.Close()
	s.Close()
	s.http.Close()
}

// identity returns a new identity.
func (w *world) identity(id string) *keys.Identity {
	w.Helper()
	i, err := keys.Generate(id)
	if err != nil {
		w.Fatal(err)
	}
	return i
}

// client is a signaling client whose events a goroutine collects.
type client struct {
	*signaling.Client
	w  *world
	id *keys.Identity

	mu  sync.Mutex
	all []signaling.Event
}

// client starts a client for a new identity, and reads it.
func (w *world) client(id string, urls ...string) *client {
	w.Helper()
	return w.clientWith(signaling.ClientConfig{Identity: w.identity(id), URLs: urls})
}

func (w *world) clientWith(cfg signaling.ClientConfig) *client {
	w.Helper()
	c := w.unread(cfg)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			e, err := c.Receive(context.Background())
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					w.Errorf("Receive: %v", err)
				}
				return
			}
			c.mu.Lock()
			c.all = append(c.all, e)
			c.mu.Unlock()
		}
	})
	w.Cleanup(func() { c.Close(); wg.Wait() })
	return c
}

// unread starts a client that nobody reads.
func (w *world) unread(cfg signaling.ClientConfig) *client {
	w.Helper()
	if cfg.Mesh == "" {
		cfg.Mesh = "m"
	}
	if cfg.HTTPClient == nil {
		cfg.HTTPClient = w.net.HTTPClient()
	}
	cfg.Recorder = &w.log
	c, err := signaling.NewClient(cfg)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { c.Close() })
	return &client{Client: c, w: w, id: cfg.Identity}
}

// ready waits until the client is registered.
//
// bubble: it settles.
func (c *client) ready() *client {
	c.w.Helper()
	ctx, cancel := context.WithTimeout(c.w.Context(), time.Minute)
	defer cancel()
	if err := c.WaitReady(ctx); err != nil {
		c.w.Fatal(err)
	}
	settle()
	return c
}

// settle lets everything that is on the way arrive.
//
// bubble: it sleeps in virtual time.
func settle() {
	time.Sleep(50 * time.Millisecond)
	synctest.Wait()
}

// events returns what has been received of one kind.
func (c *client) events(kind signaling.EventKind) []signaling.Event {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []signaling.Event
	for _, e := range c.all {
		if e.Kind == kind {
			out = append(out, e)
		}
	}
	return out
}

// codes returns the codes of the notices received.
func (c *client) codes() []signaling.Code {
	var out []signaling.Code
	for _, e := range c.events(signaling.EventNotice) {
		out = append(out, e.Notice.Code)
	}
	return out
}

// bodies returns the bodies of the envelopes received.
func (c *client) bodies() []string {
	c.w.Helper()
	var out []string
	for _, e := range c.events(signaling.EventEnvelope) {
		s, err := signaling.Parse(e.Envelope)
		if err != nil {
			c.w.Fatal(err)
		}
		if err := s.Verify(); err != nil {
			c.w.Error(err)
		}
		out = append(out, string(s.Body))
	}
	return out
}

// state returns the state of the client's connection to the i-th server.
func (c *client) state(i int) signaling.State { return c.Servers()[i].State }

// offer returns an offer of c; change may change it before it is sealed.
func (c *client) offer(to, body string, change func(*signaling.Envelope)) *signaling.Sealed {
	c.w.Helper()
	e := signaling.Envelope{Kind: signaling.Offer, Mesh: "m", To: to, Instance: c.Instance(), Body: []byte(body)}
	if change != nil {
		change(&e)
	}
	s, err := signaling.Seal(c.id, e)
	if err != nil {
		c.w.Fatal(err)
	}
	return s
}

// send sends an offer and lets it arrive.
//
// bubble: it settles.
func (c *client) send(to, body string, change func(*signaling.Envelope)) *signaling.Sealed {
	c.w.Helper()
	s := c.offer(to, body, change)
	if _, err := c.Send(c.w.Context(), s.Bytes(), 0); err != nil {
		c.w.Fatal(err)
	}
	settle()
	return s
}

// want fails the test unless got equals want.
func want[T comparable](t testing.TB, what string, got []T, want ...T) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// names returns the agents of presence events.
func names(evs []signaling.Event) []string {
	var out []string
	for _, e := range evs {
		out = append(out, e.Agent)
	}
	slices.Sort(out)
	return out
}
