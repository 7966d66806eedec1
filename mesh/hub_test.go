package mesh

import (
	"bytes"
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
)

// hub is signaling reduced to its promise: envelopes reach the agent they name
// after a delay, or somebody interferes. Tests against the real server stand
// in integration tests; here the subject is what a Node does with envelopes.
type hub struct {
	delay time.Duration
	dead  atomic.Bool // nothing can be sent any more

	mu     sync.Mutex
	ends   map[string]*hubEnd
	tamper func(e *signaling.Sealed, raw []byte) [][]byte // what arrives instead; nil leaves all as it is
	seen   []*signaling.Sealed
}

func newHub(delay time.Duration) *hub { return &hub{delay: delay, ends: map[string]*hubEnd{}} }

// hubEnd is one agent's signaler.
type hubEnd struct {
	hub    *hub
	name   string
	events chan signaling.Event
	done   chan struct{}
	once   sync.Once
}

func (h *hub) end(name string) *hubEnd {
	e := &hubEnd{hub: h, name: name, events: make(chan signaling.Event, 1024), done: make(chan struct{})}
	h.mu.Lock()
	h.ends[name] = e
	var others []*hubEnd
	for n, o := range h.ends {
		if n != name {
			others = append(others, o)
		}
	}
	h.mu.Unlock()
	for _, o := range others {
		o.put(signaling.Event{Kind: signaling.EventJoined, Agent: name, Server: "hub"})
	}
	return e
}

func (e *hubEnd) put(ev signaling.Event) {
	select {
	case e.events <- ev:
	case <-e.done:
	}
}

func (e *hubEnd) Refresh() {}

func (e *hubEnd) Probe() {}

func (e *hubEnd) SendTo(ctx context.Context, raw []byte, _ string) error {
	_, err := e.Send(ctx, raw, 0)
	return err
}

func (e *hubEnd) Servers() []signaling.ServerStatus {
	return []signaling.ServerStatus{{URL: "hub", State: signaling.StateOpen}}
}

func (e *hubEnd) Wait(ctx context.Context, f func([]signaling.ServerStatus) bool) error {
	if f(e.Servers()) {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

func (e *hubEnd) WaitReady(context.Context) error { return nil }

func (e *hubEnd) Send(_ context.Context, raw []byte, _ int) (string, error) {
	env, err := signaling.Parse(raw)
	if err != nil {
		return "", err
	}
	h := e.hub
	if h.dead.Load() {
		return "", signaling.ErrNoServer
	}
	h.mu.Lock()
	h.seen = append(h.seen, env)
	tamper := h.tamper
	to := h.ends[env.To]
	h.mu.Unlock()
	if to == nil {
		e.put(signaling.Event{Kind: signaling.EventNotice, Server: "hub",
			Notice: signaling.Notice{Code: signaling.CodeNotRegistered, Ref: env.Hash()}})
		return "hub", nil
	}
	out := [][]byte{bytes.Clone(raw)}
	if tamper != nil {
		out = tamper(env, raw)
	}
	for _, b := range out {
		time.AfterFunc(h.delay, func() {
			to.put(signaling.Event{Kind: signaling.EventEnvelope, Server: "hub", Envelope: b})
		})
	}
	return "hub", nil
}

func (e *hubEnd) Receive(ctx context.Context) (signaling.Event, error) {
	select {
	case ev := <-e.events:
		return ev, nil
	case <-e.done:
		return signaling.Event{}, net.ErrClosed
	case <-ctx.Done():
		return signaling.Event{}, ctx.Err()
	}
}

func (e *hubEnd) Close() error {
	e.once.Do(func() {
		e.hub.mu.Lock()
		if e.hub.ends[e.name] == e {
			delete(e.hub.ends, e.name)
		}
		e.hub.mu.Unlock()
		close(e.done)
	})
	return nil
}

// inject delivers bytes to an agent as if a server had relayed them.
func (h *hub) inject(to string, raw []byte) {
	h.mu.Lock()
	e := h.ends[to]
	h.mu.Unlock()
	e.put(signaling.Event{Kind: signaling.EventEnvelope, Server: "hub", Envelope: raw})
}

// book is a Trust made of a map, which tests may change.
type book struct {
	mu   sync.Mutex
	keys map[string]keys.PublicKey
}

func newBook(ids ...*keys.Identity) *book {
	b := &book{keys: map[string]keys.PublicKey{}}
	for _, id := range ids {
		b.keys[id.ID()] = id.PublicKey()
	}
	return b
}

func (b *book) Check(_ context.Context, c keys.Claim) (keys.Verdict, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch k, ok := b.keys[c.ID]; {
	case !ok:
		return keys.Verdict{Decision: keys.Unknown}, nil
	case k == c.Key:
		return keys.Verdict{Decision: keys.Yes}, nil
	}
	return keys.Verdict{Decision: keys.Refused}, nil
}

func (b *book) remove(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.keys, id)
}

func newIdentity(t testing.TB, name string) *keys.Identity {
	t.Helper()
	id, err := keys.Generate(name)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// startNode makes a Node that signals through the hub.
func startNode(t testing.TB, h *hub, c connector, cfg Config) *Node {
	t.Helper()
	if cfg.Signaling == nil {
		cfg.Signaling = []string{"ws://hub.invalid/"}
	}
	n, err := newNode(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if c == nil {
		if cfg.Net == nil {
			if cfg.Net, err = LoopbackNet(); err != nil {
				t.Fatal(err)
			}
		}
		if c, err = newWebRTCConnector(connectorConfig{net: cfg.Net, log: n.log}); err != nil {
			t.Fatal(err)
		}
	}
	n.run(c, h.end(n.ID()))
	return n
}
