package signaling

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/time/rate"
)

// clientConn is one registered connection.
type clientConn struct {
	link        *link
	ws          *websocket.Conn
	attempt     *attempt // what ws is over
	maxEnvelope int
	limit       *rate.Limiter // the server's rate, kept here so that it never has to make us wait
	out         chan []byte
	done        chan struct{} // closed when the connection ended
	leaving     atomic.Bool   // the server announced the end

	// The reader is alive when it read something lately, or waits for the
	// application to take an event: then it cannot read a pong. The time since is
	// monotonic: a clock that was set back does not make a dead server look alive.
	began      time.Time
	lastRead   atomic.Int64 // nanoseconds after began
	delivering atomic.Bool
}

// alive notes that something was read.
func (c *clientConn) alive() { c.lastRead.Store(int64(time.Since(c.began))) }

// silence is for how long nothing was read.
func (c *clientConn) silence() time.Duration {
	return time.Since(c.began) - time.Duration(c.lastRead.Load())
}

// ended reports whether nothing should be sent here any more.
func (c *clientConn) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return c.leaving.Load()
	}
}

// connect dials, answers the challenge and waits to be welcome, unless Refresh
// closes renewed meanwhile.
func (l *link) connect(renewed <-chan struct{}) (*clientConn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), l.c.cfg.ConnectTimeout)
	defer cancel()
	defer closeWith(l.c.closing, cancel)()
	defer closeWith(renewed, cancel)()
	conn, err := l.open(ctx)
	select {
	case <-renewed:
		if err != nil {
			err = errRefresh
		}
	default:
	}
	return conn, err
}

func (l *link) open(ctx context.Context) (*clientConn, error) {
	a, free := newAttempt(ctx)
	defer free()
	ws, resp, err := websocket.Dial(ctx, l.url, l.c.dialOptions(a))
	if err != nil {
		a.cut()
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return nil, a.late("connect", l.c.cfg.ConnectTimeout)
		}
		return nil, statusError(resp, withoutURL(err))
	}
	a.at("")
	ws.SetReadLimit(MaxMessage)
	conn, err := l.register(ctx, ws)
	if err != nil {
		ws.CloseNow()
		a.cut()
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err = a.late("register", l.c.cfg.ConnectTimeout)
		}
		return nil, err
	}
	conn.attempt = a
	return conn, nil
}

func (l *link) register(ctx context.Context, ws *websocket.Conn) (*clientConn, error) {
	m, err := readMessage(ctx, ws)
	if err != nil {
		return nil, err
	}
	challenge, ok := m.(*challengeMsg)
	if !ok {
		return nil, unexpected(m)
	}
	id := l.c.cfg.Identity
	reg := &registerMsg{
		Version: version, Type: typeRegister, Mesh: l.c.cfg.Mesh, Agent: id.ID(),
		Key: id.PublicKey().Bytes(), Instance: l.c.cfg.Instance, Server: l.name,
	}
	if l.c.yield.Load() {
		reg.Yield = 1
	}
	if reg.Signature, err = id.Sign(reg.statement(challenge.Nonce)); err != nil {
		return nil, err
	}
	sent := l.c.cfg.Time()
	if err := ws.Write(ctx, websocket.MessageBinary, encode(reg)); err != nil {
		return nil, err
	}
	if m, err = readMessage(ctx, ws); err != nil {
		return nil, err
	}
	came := l.c.cfg.Time()
	welcome, ok := m.(*welcomeMsg)
	if !ok {
		err := unexpected(m)
		if n, ok := m.(*noticeMsg); ok {
			if clock := l.compare(readClocks(timeOf(n.Time), sent, came)); clock.Apart() {
				err = &ClockError{Clock: clock, Err: err}
			}
		}
		return nil, err
	}
	l.compare(readClocks(timeOf(welcome.Time), sent, came))
	conn := &clientConn{
		link: l, ws: ws, maxEnvelope: int(welcome.MaxEnvelope),
		limit: rate.NewLimiter(rate.Limit(welcome.Rate), int(welcome.Burst)),
		out:   make(chan []byte, sendQueue),
		done:  make(chan struct{}),
		began: time.Now(),
	}
	return conn, nil
}

// unexpected is the error for a message that has no place where it stands.
func unexpected(m any) error {
	if n, ok := m.(*noticeMsg); ok {
		return &NoticeError{n.notice()}
	}
	return badMessage(fmt.Sprintf("%T is out of place", m), nil)
}

// readMessage reads the next message.
func readMessage(ctx context.Context, ws *websocket.Conn) (any, error) {
	typ, b, err := ws.Read(ctx)
	if err != nil {
		return nil, readError(err)
	}
	if typ != websocket.MessageBinary {
		return nil, ErrMessageType
	}
	return decodeMessage(b)
}

// readError makes the library's errors matchable.
func readError(err error) error {
	if websocket.CloseStatus(err) == websocket.StatusMessageTooBig || errors.Is(err, websocket.ErrMessageTooBig) {
		return fmt.Errorf("%w: %w", ErrTooLarge, err)
	}
	if websocket.CloseStatus(err) == websocket.StatusNormalClosure {
		return fmt.Errorf("%w: %w", io.EOF, err)
	}
	return err
}

// closeWith calls f when ch is closed, until the returned function is called,
// which waits for its goroutine.
func closeWith(ch <-chan struct{}, f func()) (stop func()) {
	end := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-ch:
			f()
		case <-end:
		}
	})
	return func() { close(end); wg.Wait() }
}

// serve uses an accepted connection until it ends, and says why.
func (l *link) serve(conn *clientConn, renewed <-chan struct{}) error {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	l.set(StateOpen, conn, nil)
	l.connected()
	up := l.c.push(Event{Kind: EventUp, Server: l.label, Clock: l.status().Clock})

	var wg sync.WaitGroup
	wg.Go(func() { conn.write(ctx, cancel) })
	wg.Go(func() { conn.ping(ctx, cancel) })
	wg.Go(func() {
		select {
		case <-l.c.closing:
		case <-renewed:
			cancel(errRefresh)
			return
		case <-ctx.Done():
			return
		}
		t := time.NewTimer(closeTimeout)
		defer t.Stop()
		select {
		case <-t.C:
			cancel(context.DeadlineExceeded)
			conn.attempt.cut()
		case <-ctx.Done():
		}
	})
	wg.Go(func() {
		if l.unwanted(ctx.Done()) {
			cancel(errSpare)
		}
	})
	err := conn.read(ctx)
	cancel(err)
	err = context.Cause(ctx) // what made the read fail, if it was us
	close(conn.done)
	conn.ws.CloseNow()
	wg.Wait()
	l.lost(err)
	if up {
		l.c.push(Event{Kind: EventDown, Server: l.label, Err: err})
	}
	return err
}

// read takes in messages until the connection ends.
func (c *clientConn) read(ctx context.Context) error {
	var last error // a notice that announces the end
	for {
		m, err := readMessage(ctx, c.ws)
		if err != nil {
			if last != nil {
				return last
			}
			return err
		}
		c.alive()
		c.delivering.Store(true)
		switch m := m.(type) {
		case *envelopeMsg:
			c.push(Event{Kind: EventEnvelope, Envelope: m.Envelope})
		case *presenceMsg:
			err = c.presence(m)
		case *noticeMsg:
			n := m.notice()
			if n.Ref.IsZero() { // about the connection, which ends
				last = &NoticeError{n}
				c.leaving.Store(true)
			}
			c.push(Event{Kind: EventNotice, Notice: n})
		default:
			err = unexpected(m)
		}
		c.alive()
		c.delivering.Store(false)
		if err != nil {
			return err
		}
	}
}

func (c *clientConn) presence(m *presenceMsg) error {
	kind := EventJoined
	if m.Change == left {
		kind = EventLeft
	}
	for _, a := range m.Agents {
		k, err := decodeKey("message", a.Key)
		if err != nil {
			return err
		}
		c.push(Event{Kind: kind, Agent: a.Agent, Key: k})
	}
	return nil
}

func (c *clientConn) push(e Event) {
	e.Server = c.link.label
	c.link.c.push(e)
}

// write sends what Send queued. When the client closes it sends the rest and
// says goodbye; serve lets that take closeTimeout.
func (c *clientConn) write(ctx context.Context, fail context.CancelCauseFunc) {
	closing := c.link.c.closing
	send := func(msg []byte) bool {
		if err := c.ws.Write(ctx, websocket.MessageBinary, msg); err != nil {
			fail(err)
			return false
		}
		return true
	}
	for {
		select {
		case msg := <-c.out:
			if r := c.limit.Reserve(); r.Delay() > 0 {
				t := time.NewTimer(r.Delay())
				select {
				case <-t.C:
				case <-ctx.Done():
				case <-closing: // the last ones go at once, the server makes them wait if it must
				}
				t.Stop()
			}
			if !send(msg) {
				return
			}
		case <-closing:
			for {
				select {
				case msg := <-c.out:
					if !send(msg) {
						return
					}
					continue
				default:
				}
				c.ws.Close(websocket.StatusNormalClosure, "")
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// ping probes the connection. Whatever arrives counts as an answer.
func (c *clientConn) ping(ctx context.Context, fail context.CancelCauseFunc) {
	cfg := &c.link.c.cfg
	tick := time.NewTicker(cfg.PingInterval)
	defer tick.Stop()
	probed := c.link.c.probed()
	for {
		timeout := cfg.PingTimeout
		select {
		case <-tick.C:
		case <-probed:
			timeout = min(timeout, probeTimeout)
		case <-ctx.Done():
			return
		}
		probed = c.link.c.probed() // a probe meanwhile is another one
		pong := make(chan error, 1)
		var wg sync.WaitGroup
		wg.Go(func() { pong <- c.ws.Ping(ctx) })
		err := c.waitPong(ctx, pong, timeout)
		if err != nil {
			fail(err)
		}
		wg.Wait()
		if err != nil {
			return
		}
	}
}

// waitPong waits until the ping is answered or the connection is dead.
func (c *clientConn) waitPong(ctx context.Context, pong <-chan error, timeout time.Duration) error {
	t := time.NewTimer(timeout)
	defer t.Stop()
	for {
		select {
		case err := <-pong:
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return err
		case <-t.C:
			if c.delivering.Load() || c.silence() < timeout {
				t.Reset(timeout)
				continue
			}
			return ErrPingTimeout
		}
	}
}
