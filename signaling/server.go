package signaling

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"

	"github.com/infrafabric/agentmesh/witness"
)

// errServerClosed is why connections end at Close.
var errServerClosed = fmt.Errorf("signaling server closed: %w", net.ErrClosed)

// Server relays envelopes between the agents that are registered with it. It
// is an [http.Handler] with these paths:
//
//	GET /         the WebSocket of agents; see the package comment
//	GET /health   {"status":"ok"}, or status 503 and {"status":"draining"}
//	GET /stats    {"total_agents":N,"agents":["a",…],"connections":N}
//	GET /agents   {"total":N,"agents":[{"mesh":…,"agent":…,"key":…,"instance":…,"since":…},…]}
//	GET /metrics  ServerConfig.MetricsHandler
//
// It keeps nothing that a restart would lose: agents come back by themselves.
// Serve it with TLS, or behind something that does; otherwise everybody on the
// way sees who talks to whom, and see ServerConfig.Names. An [http.Server]
// around it needs a ReadHeaderTimeout and no other timeouts: a WebSocket lives
// as long as its agent.
//
// All methods may be called concurrently. Close or Shutdown must be called
// when it is no longer used; [http.Server.Shutdown] knows nothing of
// WebSockets.
type Server struct {
	cfg    ServerConfig
	mux    *http.ServeMux
	tokens []meshToken
	reg    *registry
	broker BrokerMember // nil without a broker

	ctx    context.Context // ends when every connection must
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup // connections and the recheck loop

	mu       sync.Mutex
	conns    map[*conn]struct{}
	opening  int // WebSockets that are not yet registered
	draining bool
	drain    chan struct{} // closed with draining

	announcing sync.Mutex // taken before the registry's lock
	announced  map[Registration]*announcement

	ended chan struct{} // closed when Close or Shutdown is done
	once  sync.Once
}

// NewServer validates cfg, joins the broker and starts the loop that asks
// Trust again. The error matches [*ConfigError] or is the broker's.
func NewServer(cfg ServerConfig) (*Server, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("signaling: %w", err)
	}
	s := &Server{
		cfg:       cfg,
		tokens:    hashTokens(cfg.Tokens),
		reg:       newRegistry(),
		conns:     make(map[*conn]struct{}),
		drain:     make(chan struct{}),
		announced: make(map[Registration]*announcement),
		ended:     make(chan struct{}),
	}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	s.mux = s.routes()
	if cfg.Broker != nil {
		s.broker, err = cfg.Broker.Join(BrokerHandler{Presence: s.remotePresence, Envelope: s.remoteEnvelope})
		if err != nil {
			s.cancel(nil)
			return nil, fmt.Errorf("signaling: join broker: %w", err)
		}
	}
	if cfg.Trust != nil {
		s.wg.Go(s.watchTrust)
	}
	s.record(witness.Event{Name: witness.SignalingServerStarted, Metadata: map[string]any{"names": slices.Clone(cfg.Names)}})
	return s, nil
}

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// Shutdown stops admitting agents, tells those that are registered that the
// server is draining, sends what waits for them, closes their connections and
// waits until they are closed. Agents that have other servers lose nothing.
// When ctx ends the rest is closed at once, and the error is that of ctx.
func (s *Server) Shutdown(ctx context.Context) error {
	for _, c := range s.startDraining() {
		c.finish(CodeDraining, "the server is shutting down")
	}
	done := make(chan struct{})
	go func() { // ends with the connections, which ctx bounds below
		s.wg.Wait()
		close(done)
	}()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = fmt.Errorf("signaling: shutdown: %w", context.Cause(ctx))
	}
	s.cancel(errServerClosed)
	<-done
	return errors.Join(err, s.end())
}

// Close closes every connection at once and waits until they are closed. It is
// idempotent.
func (s *Server) Close() error {
	s.startDraining()
	s.cancel(errServerClosed)
	s.wg.Wait()
	return s.end()
}

// startDraining refuses new connections and returns the registered ones.
func (s *Server) startDraining() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.draining {
		s.draining = true
		close(s.drain)
	}
	conns := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	return conns
}

// end leaves the broker, when no connection is left.
func (s *Server) end() error {
	var err error
	s.once.Do(func() {
		if s.broker != nil {
			if err = s.broker.Close(); err != nil {
				err = fmt.Errorf("signaling: leave broker: %w", err)
			}
		}
		close(s.ended)
	})
	<-s.ended
	return err
}

// Why a connection is not admitted.
var (
	errDrainingNow = errors.New("draining")
	errFull        = errors.New("too many connections")
)

// open reserves a place for a connection. Whoever gets one calls s.wg.Done.
func (s *Server) open() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.draining:
		return errDrainingNow
	case s.opening+len(s.conns) >= s.cfg.Limits.Connections:
		return errFull
	}
	s.opening++
	s.wg.Add(1)
	return nil
}

// opened turns the place into that of a registered connection, or gives it up
// when c is nil or the server drains.
func (s *Server) opened(c *conn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opening--
	if c == nil {
		return nil
	}
	if s.draining {
		return errDrainingNow
	}
	s.conns[c] = struct{}{}
	return nil
}

// forget gives up the place of a registered connection.
func (s *Server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// remotePresence is what the broker calls.
func (s *Server) remotePresence(r Registration, present bool) {
	if !s.reg.setRemote(r, present) {
		s.cfg.Logger.Error("too many agents at other servers", "limit", MaxRemote)
	}
}

// remoteEnvelope is what the broker calls. Another server checked the sender,
// but the format is checked here: the broker's transport may be broken.
func (s *Server) remoteEnvelope(r Registration, envelope []byte) {
	e, err := Parse(envelope)
	if err != nil || e.Mesh != r.Mesh || e.To != r.Agent {
		s.cfg.Logger.Error("broker delivered what is no envelope for its recipient", "error", err)
		return
	}
	for _, to := range s.reg.find(r.Mesh, r.Agent, r.Key) {
		if to.conn == nil {
			continue
		}
		if ok, _ := to.conn.out.pushEnvelope(encodeEnvelopeMsg(envelope), e.Key); !ok {
			s.cfg.Logger.Warn("queue is full", "agent", r.Agent, "from", e.From)
		}
	}
}

// notice returns a notice as a message, with the time of this server.
func (s *Server) notice(n Notice) []byte {
	n.Time = s.cfg.Time()
	return n.encode()
}

func (s *Server) record(e witness.Event) {
	e.Time = s.cfg.Time()
	s.cfg.Recorder.Record(s.ctx, e)
}
