package signaling

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"go.opentelemetry.io/otel/metric"
	"golang.org/x/time/rate"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/metrics"
	"github.com/infrafabric/agentmesh/witness"
)

// Why the server ends a connection without a notice.
var (
	errSlow = errors.New("client is too slow")
	errIdle = errors.New("nothing came from the client")
)

// conn is one registered connection of the server. Its goroutines are the
// reader, which is the HTTP handler's, and the writer.
type conn struct {
	s        *Server
	ws       *websocket.Conn
	reg      Registration
	instance Instance
	yields   bool // it leaves another instance in its place
	since    time.Time
	remote   string // address, for the log
	out      *outbox

	ctx       context.Context
	cancel    context.CancelCauseFunc
	finishing chan struct{} // closed when only the queue is still to be sent
	finishOne sync.Once

	last atomic.Pointer[NoticeError] // what the client is told at the end, if anything

	idle     *time.Timer // closes the connection; the reader resets it
	offences int         // owned by the reader
	asked    time.Time   // when trust last gave an answer; owned by the recheck loop, monotonic
}

// serveWebSocket is the life of a connection.
func (s *Server) serveWebSocket(w http.ResponseWriter, r *http.Request) {
	if !s.admit(w, r) {
		return
	}
	defer s.wg.Done()

	// From here on the request's context says nothing: the connection is
	// hijacked.
	ctx, cancel := context.WithCancelCause(s.ctx)
	defer cancel(nil)
	idle := time.AfterFunc(time.Hour, func() { cancel(errIdle) })
	defer idle.Stop()
	alive := func() { idle.Reset(s.cfg.Limits.Idle) }
	alive()
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		InsecureSkipVerify: true, // admit checked the origin
		CompressionMode:    websocket.CompressionDisabled,
		OnPingReceived:     func(context.Context, []byte) bool { alive(); return true },
	})
	if err != nil {
		s.opened(nil)
		return
	}
	defer ws.CloseNow()
	ws.SetReadLimit(MaxMessage)

	c := &conn{s: s, ws: ws, remote: r.RemoteAddr, ctx: ctx, cancel: cancel, idle: idle,
		out: newOutbox(s.cfg.Limits.Queue), finishing: make(chan struct{})}
	if err := c.handshake(s.namesFor(r)); err != nil {
		s.opened(nil)
		c.refuse(err)
		return
	}
	if err := s.opened(c); err != nil {
		c.refuse(&NoticeError{Notice{Code: CodeDraining, Text: "the server is shutting down"}})
		return
	}
	defer s.forget(c)
	c.serve()
}

// handshake challenges the client and checks its registration, which must be for
// one of the names.
func (c *conn) handshake(names []string) error {
	ctx, cancel := context.WithTimeout(c.ctx, c.s.cfg.Limits.Handshake)
	defer cancel()
	challenge := challengeMsg{Version: version, Type: typeChallenge}
	rand.Read(challenge.Nonce[:]) // never fails
	if err := c.ws.Write(ctx, websocket.MessageBinary, encode(&challenge)); err != nil {
		return err
	}
	m, err := readMessage(ctx, c.ws)
	if err != nil {
		return err
	}
	reg, ok := m.(*registerMsg)
	if !ok {
		return unexpected(m)
	}
	key, err := decodeKey("message", reg.Key)
	if err != nil {
		return err
	}
	c.reg = Registration{Mesh: reg.Mesh, Agent: reg.Agent, Key: key}
	c.instance, c.yields = reg.Instance, reg.Yield == 1
	c.since, c.asked = c.s.cfg.Time(), time.Now()

	switch {
	case slices.Contains(names, reg.Server):
	case len(c.s.cfg.Names) > 0:
		return refusal(CodeWrongServer, "the registration is for %q, and this server is %q", reg.Server, names[0])
	default:
		return refusal(CodeWrongServer, "the registration is for %q, and this server was told no names: "+
			"it admits those who dial it at a loopback address", reg.Server)
	}
	if err := key.Verify(reg.statement(challenge.Nonce), reg.Signature); err != nil {
		c.s.security(c, witness.SignatureVerificationFailed, err)
		return refusal(CodeRefused, "the signature does not verify under key %s", key.Fingerprint())
	}
	c.s.cfg.Metrics.SignatureSuccess.Add(ctx, 1)
	return c.checkTrust(ctx)
}

// checkTrust asks the server's policy about this registration.
func (c *conn) checkTrust(ctx context.Context) error {
	if c.s.cfg.Trust == nil {
		return nil
	}
	now := c.s.cfg.Time().Round(0)
	v, err := keys.Check(ctx, c.s.cfg.Trust, keys.Claim{ID: c.reg.Agent, Key: c.reg.Key, Time: now})
	if v.Decision == keys.Yes && err == nil {
		return nil
	}
	if passing(err) {
		c.s.cfg.Logger.Warn("the trust policy gives no answer", "agent", c.reg.Agent, "mesh", c.reg.Mesh, "remote", c.remote, "error", err)
		return refusal(CodeUnavailable, "the trust policy of this server gives no answer now")
	}
	// Which other key is expected, and whatever else the policy says, stays here.
	verb := "refuses"
	if err == nil {
		verb, err = "does not know", errors.New("no policy knows this key")
	}
	if errors.Is(err, keys.ErrExpired) || errors.Is(err, keys.ErrNotYetValid) {
		verb = "refuses, by the time,"
	}
	c.s.security(c, witness.UnauthorizedConnectionAttempt, err)
	return refusal(CodeRefused, "the trust policy of this server %s agent %q with key %s at %s by the server's clock",
		verb, c.reg.Agent, c.reg.Key.Fingerprint(), now.UTC().Format(time.RFC3339))
}

// refusal is an error that the client is told.
func refusal(code Code, format string, args ...any) *NoticeError {
	return &NoticeError{Notice{Code: code, Text: fmt.Sprintf(format, args...)}}
}

// security reports a failure that is charged to this connection's address: the
// name it gave is not verified.
func (s *Server) security(c *conn, name witness.Name, err error) {
	s.cfg.Logger.Warn("registration refused", "agent", c.reg.Agent, "mesh", c.reg.Mesh,
		"key", c.reg.Key.Fingerprint(), "remote", c.remote, "error", err)
	if name == witness.SignatureVerificationFailed {
		s.cfg.Metrics.SignatureFailures.Add(s.ctx, 1)
	}
	s.cfg.Metrics.SecurityEvents.Add(s.ctx, 1, metric.WithAttributes(metrics.EventType.String(string(name))))
	s.record(witness.Event{
		Name: name, AgentID: c.reg.Agent, Severity: witness.Warning,
		Metadata: map[string]any{"mesh": c.reg.Mesh, "key": c.reg.Key.Fingerprint(), "remote": c.remote, "error": err.Error()},
	})
}

// refuse says why a connection that is not registered ends. A client that does
// not take the goodbye in time is cut off.
func (c *conn) refuse(err error) {
	n := noticeOf(err)
	c.s.cfg.Logger.Info("connection refused", "remote", c.remote, "error", err)
	if n.Code == 0 || c.ctx.Err() != nil {
		return
	}
	if n.Code != CodeDraining && n.Code != CodeReplaced {
		c.s.cfg.Metrics.SignalingErrors.Add(c.s.ctx, 1)
	}
	ctx, cancel := context.WithTimeout(c.ctx, c.s.cfg.Limits.Handshake)
	defer cancel()
	if c.ws.Write(ctx, websocket.MessageBinary, c.s.notice(n)) != nil {
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { c.ws.Close(websocket.StatusPolicyViolation, n.Code.String()) })
	c.discard(ctx) // Close alone would wait for longer than ctx
	wg.Wait()
}

// noticeOf is what a client is told about an error: nothing (code 0) if the
// connection itself failed.
func noticeOf(err error) Notice {
	var ne *NoticeError
	var ve *VersionError
	var fe *FormatError
	switch {
	case errors.As(err, &ne):
		return ne.Notice
	case errors.As(err, &ve):
		return Notice{Code: CodeVersion, Text: ve.Error()}
	case errors.As(err, &fe):
		return Notice{Code: CodeProtocol, Text: fe.Error()}
	case errors.Is(err, ErrMessageType):
		return Notice{Code: CodeProtocol, Text: err.Error()}
	}
	return Notice{}
}

// serve registers the connection and uses it until it ends.
func (c *conn) serve() {
	s := c.s
	l := s.cfg.Limits
	c.out.push(encode(&welcomeMsg{
		Version: version, Type: typeWelcome, MaxEnvelope: uint64(l.Envelope),
		Idle: uint64(l.Idle.Milliseconds()), Rate: uint64(l.Rate), Burst: uint64(l.Burst), Time: max(1, wireTime(s.cfg.Time())),
	}))
	replaced, ok := s.reg.add(c)
	if !ok {
		c.refuse(refusal(CodeReplaced, "another process with the same agent and key is registered"))
		return
	}
	var wg sync.WaitGroup
	wg.Go(c.write)
	registered := c.event(witness.AgentRegistered, nil)
	switch {
	case replaced == nil:
		s.cfg.Metrics.SignalingAgents.Add(s.ctx, 1)
	case replaced.instance == c.instance:
		replaced.finish(CodeDuplicate, "a newer connection of the same process is registered")
	default:
		replaced.finish(CodeReplaced, "a newer process with the same agent and key is registered")
	}
	if replaced != nil {
		registered.Metadata["replaces"] = replaced.instance.String()
	}
	s.announce(c.reg)
	s.cfg.Logger.Info("agent registered", "agent", c.reg.Agent, "mesh", c.reg.Mesh,
		"key", c.reg.Key.Fingerprint(), "remote", c.remote, "replaces", replaced != nil)
	s.record(registered)

	err := c.read()
	c.cancel(err)
	err = context.Cause(c.ctx)
	if told := c.last.Load(); told != nil {
		err = told // and not what became of the connection afterwards
	}
	wg.Wait()

	if !s.reg.remove(c) { // the agent is still here, by a newer connection
		s.announce(c.reg)
		s.cfg.Logger.Info("connection replaced", "agent", c.reg.Agent, "mesh", c.reg.Mesh, "remote", c.remote)
		return
	}
	s.cfg.Metrics.SignalingAgents.Add(s.ctx, -1)
	s.announce(c.reg)
	s.cfg.Logger.Info("agent disconnected", "agent", c.reg.Agent, "mesh", c.reg.Mesh, "error", err)
	s.record(c.event(witness.AgentDisconnected, err))
}

func (c *conn) event(name witness.Name, err error) witness.Event {
	meta := map[string]any{"mesh": c.reg.Mesh, "key": c.reg.Key.Fingerprint(), "remote": c.remote, "instance": c.instance.String()}
	if err != nil {
		meta["reason"] = err.Error()
	}
	return witness.Event{Name: name, AgentID: c.reg.Agent, Metadata: meta}
}

// read takes envelopes in until the connection ends, and says why.
func (c *conn) read() error {
	limiter := rate.NewLimiter(rate.Limit(c.s.cfg.Limits.Rate), c.s.cfg.Limits.Burst)
	for {
		m, err := readMessage(c.ctx, c.ws)
		if err != nil {
			if n := noticeOf(err); n.Code != 0 {
				c.s.cfg.Metrics.SignalingErrors.Add(c.ctx, 1)
				c.finish(n.Code, n.Text)
				c.discard(c.ctx)
			}
			return err
		}
		select {
		case <-c.finishing:
			continue
		default:
		}
		e, ok := m.(*envelopeMsg)
		if !ok {
			c.finish(CodeProtocol, "only envelopes are expected here")
			continue
		}
		// Not reading is what slows a client down; it is not silent meanwhile.
		c.idle.Stop()
		if r := limiter.Reserve(); r.Delay() > 0 {
			t := time.NewTimer(r.Delay())
			select {
			case <-t.C:
			case <-c.ctx.Done():
			case <-c.finishing:
			}
			t.Stop()
		}
		if n := c.relay(e.Envelope); n != nil {
			c.offend(*n)
		}
		c.idle.Reset(c.s.cfg.Limits.Idle)
	}
}

// discard reads on, so that the closing handshake completes, until the
// connection or ctx ends.
func (c *conn) discard(ctx context.Context) {
	for {
		if _, _, err := c.ws.Read(ctx); err != nil {
			return
		}
	}
}

// offend answers what breaks a rule and ends the connection of a client that
// does it again and again. What is not the client's fault is no offence.
func (c *conn) offend(n Notice) {
	c.s.cfg.Metrics.SignalingErrors.Add(c.ctx, 1)
	switch n.Code {
	case CodeBadSender, CodeTooLarge, CodeProtocol, CodeVersion:
		c.s.cfg.Logger.Warn("envelope refused", "agent", c.reg.Agent, "remote", c.remote, "code", n.Code.String(), "text", n.Text)
		if c.offences++; c.offences > MaxOffences {
			c.finish(n.Code, n.Text)
			return
		}
	}
	if !c.out.push(c.s.notice(n)) {
		c.slow()
	}
}

// finish sends what waits and a last notice, then closes the connection.
func (c *conn) finish(code Code, text string) {
	c.finishOne.Do(func() {
		n := Notice{Code: code, Text: text}
		c.last.Store(&NoticeError{n})
		c.out.finish(c.s.notice(n))
		close(c.finishing)
	})
}

// slow gives up a client that does not read. It takes no lock.
func (c *conn) slow() { c.cancel(errSlow) }

// write sends what waits, each message within the limit's time.
func (c *conn) write() {
	for {
		msg, finished := c.out.next()
		switch {
		case msg != nil:
			slow := time.AfterFunc(c.s.cfg.Limits.Write, c.slow)
			err := c.ws.Write(c.ctx, websocket.MessageBinary, msg)
			slow.Stop()
			if err != nil {
				c.cancel(err)
				return
			}
		case finished:
			c.ws.Close(websocket.StatusGoingAway, "")
			return
		default:
			select {
			case <-c.out.wake:
			case <-c.ctx.Done():
				return
			}
		}
	}
}
