package mesh

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	fx "github.com/fxamacker/cbor/v2"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/infrafabric/agentmesh/internal/virtual"
	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
	"github.com/infrafabric/agentmesh/witness"
)

// liar is a signaling server that lies: a man in the middle between agents,
// who dial it by the name for which they sign, and a real server behind it,
// which believes to have that name. Every message passes its hooks.
type liar struct {
	w      *world
	url    string
	behind string // address of the real server
	log    hostileLog
	stops  []func()

	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu      sync.Mutex
	clients []*liarClient
	up      liarHook // from an agent
	down    liarHook // to an agent
	seen    []*signaling.Sealed
}

// liarHook returns what arrives instead of a message. The agent is empty
// before it has registered.
type liarHook func(agent string, m wireMessage) [][]byte

type liarClient struct {
	agent string // guarded by the liar's mutex
	ws    *websocket.Conn
}

// The protocol's message types, from the table in package signaling.
const (
	wireRegister = 2
	wireWelcome  = 3
	wireEnvelope = 4
	wirePresence = 5
	wireNotice   = 6
)

// wireMessage is a message of the signaling protocol.
type wireMessage struct {
	kind   uint64
	fields []any
	raw    []byte
}

var wireMode = func() fx.EncMode {
	m, err := fx.CoreDetEncOptions().EncMode()
	if err != nil {
		panic(err)
	}
	return m
}()

func wire(fields ...any) []byte {
	b, err := wireMode.Marshal(fields)
	if err != nil {
		panic(err)
	}
	return b
}

func parseWire(b []byte) (wireMessage, error) {
	m := wireMessage{raw: b}
	if err := fx.Unmarshal(b, &m.fields); err != nil {
		return m, err
	}
	m.kind, _ = m.fields[1].(uint64)
	return m, nil
}

func wireOf(envelope []byte) []byte { return wire(1, wireEnvelope, envelope) }

func wirePresent(joined bool, agent string, key keys.PublicKey) []byte {
	change := 2
	if joined {
		change = 1
	}
	return wire(1, wirePresence, change, []any{[]any{agent, key.Bytes()}})
}

// onEnvelopes makes a hook that sees envelopes only.
func onEnvelopes(f func(agent string, e *signaling.Sealed) [][]byte) liarHook {
	return func(agent string, m wireMessage) [][]byte {
		if m.kind != wireEnvelope {
			return [][]byte{m.raw}
		}
		raw, _ := m.fields[2].([]byte)
		e, err := signaling.Parse(raw)
		if err != nil {
			return [][]byte{m.raw}
		}
		var out [][]byte
		for _, b := range f(agent, e) {
			out = append(out, wireOf(b))
		}
		return out
	}
}

// The fields of an envelope's payload, by their place.
const (
	fieldKind = iota
	fieldMesh
	fieldFrom
	fieldTo
	fieldKey
	fieldToKey
	fieldInstance
	fieldGeneration
	fieldNonce
	fieldTime
	fieldRef
	fieldBody
)

// alter changes fields of an envelope and leaves its signature as it is.
func alter(raw []byte, change func(fields []any)) []byte {
	var outer, payload []any
	if err := fx.Unmarshal(raw, &outer); err != nil {
		panic(err)
	}
	if err := fx.Unmarshal(outer[1].([]byte), &payload); err != nil {
		panic(err)
	}
	change(payload)
	outer[1] = wire(payload...)
	return wire(outer...)
}

// newLiar starts a liar; its caller stops it before the world ends.
func newLiar(w *world, name string) *liar {
	w.t.Helper()
	l := &liar{w: w, url: "ws://" + name + "/", behind: "behind." + name}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	honest, err := signaling.NewServer(signaling.ServerConfig{
		Names: []string{name}, Recorder: &l.log, Limits: signaling.ServerLimits{Idle: 24 * time.Hour},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	l.serve(l.behind, honest)
	l.serve(name, l)
	l.stops = append(l.stops, func() {
		if err := honest.Close(); err != nil {
			w.t.Error(err)
		}
	})
	return l
}

// serve runs an HTTP server until the liar stops.
func (l *liar) serve(addr string, h http.Handler) {
	l.w.t.Helper()
	ln, err := l.w.pipes.Listen(addr)
	if err != nil {
		l.w.t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	l.work.Go(func() {
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			l.w.t.Error(err)
		}
	})
	l.stops = append(l.stops, func() {
		if err := srv.Close(); err != nil {
			l.w.t.Error(err)
		}
	})
}

// stop closes the world's nodes, whose errors the world reports, and then the
// liar, so that no node begins to look for it.
func (l *liar) stop() {
	l.w.mu.Lock()
	nodes := slices.Clone(l.w.nodes)
	l.w.mu.Unlock()
	for _, n := range nodes {
		n.Close()
	}
	synctest.Wait()
	l.cancel()
	for _, f := range l.stops {
		f()
	}
	l.work.Wait()
}

// agent starts a trusted agent that knows no other server.
func (l *liar) agent(name string, change ...func(*Config)) *Node {
	l.w.t.Helper()
	return l.w.agent(name, virtual.Open, append([]func(*Config){l.only}, change...)...)
}

// only is the Config of an agent that knows no other server.
func (l *liar) only(c *Config) {
	c.Signaling, c.Recorder, c.STUN = []string{l.url}, &l.log, nil
}

func (l *liar) set(up, down liarHook) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.up, l.down = up, down
}

// ServeHTTP is one agent's connection.
func (l *liar) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	l.work.Add(1)
	defer l.work.Done()
	agent, err := websocket.Accept(rw, r, nil)
	if err != nil {
		return
	}
	defer agent.CloseNow()
	ctx, cancel := context.WithCancel(l.ctx)
	defer cancel()
	server, _, err := websocket.Dial(ctx, "ws://"+l.behind+"/", &websocket.DialOptions{HTTPClient: l.w.http})
	if err != nil {
		return
	}
	defer server.CloseNow()
	agent.SetReadLimit(-1)
	server.SetReadLimit(-1)
	c := &liarClient{ws: agent}
	l.mu.Lock()
	l.clients = append(l.clients, c)
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		l.clients = slices.DeleteFunc(l.clients, func(x *liarClient) bool { return x == c })
		l.mu.Unlock()
	}()
	var pumps sync.WaitGroup
	pumps.Go(func() {
		defer cancel()
		l.pump(ctx, c, agent, server, true)
	})
	l.pump(ctx, c, server, agent, false)
	cancel()
	pumps.Wait()
}

// pump passes messages of one direction through its hook.
func (l *liar) pump(ctx context.Context, c *liarClient, from, to *websocket.Conn, up bool) {
	for {
		_, b, err := from.Read(ctx)
		if err != nil {
			return
		}
		m, err := parseWire(b)
		if err != nil {
			l.w.t.Errorf("a message that is no CBOR: %v", err)
			return
		}
		l.mu.Lock()
		if up && m.kind == wireRegister {
			c.agent, _ = m.fields[3].(string)
		}
		if up && m.kind == wireEnvelope {
			if e, err := signaling.Parse(m.fields[2].([]byte)); err == nil {
				l.seen = append(l.seen, e)
			}
		}
		hook, agent := l.down, c.agent
		if up {
			hook = l.up
		}
		l.mu.Unlock()
		out := [][]byte{b}
		if hook != nil {
			out = hook(agent, m)
		}
		for _, b := range out {
			if to.Write(ctx, websocket.MessageBinary, b) != nil {
				return
			}
		}
	}
}

// tell sends messages to every connection of an agent.
func (l *liar) tell(agent string, msgs ...[]byte) {
	l.mu.Lock()
	clients := slices.Clone(l.clients)
	names := make([]string, len(clients))
	for i, c := range clients {
		names[i] = c.agent
	}
	l.mu.Unlock()
	for i, c := range clients {
		if names[i] != agent {
			continue
		}
		for _, b := range msgs {
			if c.ws.Write(l.ctx, websocket.MessageBinary, b) != nil {
				return
			}
		}
	}
}

// inject sends envelopes to an agent as if they had been relayed.
func (l *liar) inject(agent string, envelopes ...[]byte) {
	for _, b := range envelopes {
		l.tell(agent, wireOf(b))
	}
}

// hangUp ends every connection to the agents.
func (l *liar) hangUp() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.clients {
		c.ws.CloseNow()
	}
}

// sent returns the envelopes of one kind that an agent has sent.
func (l *liar) sent(from string, kind signaling.Kind) (out []*signaling.Sealed) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.seen {
		if e.From == from && e.Kind == kind {
			out = append(out, e)
		}
	}
	return out
}

// hostileLog records events.
type hostileLog struct {
	mu  sync.Mutex
	all []witness.Event
}

func (h *hostileLog) Record(_ context.Context, e witness.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, e)
}

// count returns how many events of a name an agent reported, whatever they
// are about.
func (h *hostileLog) count(agent string, name witness.Name) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.all {
		if e.AgentID == agent && e.Name == name {
			n++
		}
	}
	return n
}

// charged checks that an agent's security events of a name are about who
// delivered, and returns how many there are.
func (h *hostileLog) charged(t testing.TB, agent string, name witness.Name, via string) (n int) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.all {
		if e.AgentID != agent || e.Name != name {
			continue
		}
		n++
		if e.Metadata["via"] != via {
			t.Errorf("%s of %s is charged to %v, want %s", name, agent, e.Metadata["via"], via)
		}
	}
	return n
}

// hostileMeter reads a node's counters.
type hostileMeter struct{ reader *metric.ManualReader }

func newHostileMeter() hostileMeter { return hostileMeter{metric.NewManualReader()} }

func (h hostileMeter) config(c *Config) {
	c.MeterProvider = metric.NewMeterProvider(metric.WithReader(h.reader))
}

// count returns the sum of a counter.
func (h hostileMeter) count(t testing.TB, name string) (sum int64) {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := h.reader.Collect(context.Background(), &all); err != nil {
		t.Fatal(err)
	}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			if data, ok := m.Data.(metricdata.Sum[int64]); ok && m.Name == name {
				for _, p := range data.DataPoints {
					sum += p.Value
				}
			}
		}
	}
	return sum
}

// connectedTo returns the agents with which a node has a connected Peer.
func connectedTo(n *Node) (out []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for id, m := range n.peers {
		if m.connected {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}
