package signaling

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/infrafabric/agentmesh/internal/wallclock"
)

// Client is an agent's registration with several signaling servers at once.
// Each connection lives on its own: it reconnects by itself, with backoff, and
// failing over is choosing another open one.
//
// All methods may be called concurrently. Somebody must call Receive in a loop:
// what a server sends is never dropped here, so a client that is not read stops
// reading its connections.
type Client struct {
	cfg   ClientConfig
	http  *http.Client
	links []*link // in order of priority

	events  chan Event
	closing chan struct{}
	once    sync.Once
	wg      sync.WaitGroup

	// yield is set for good when another process has replaced this client: it is the
	// older one from then on.
	yield atomic.Bool

	mu      sync.Mutex
	changed chan struct{} // closed and replaced when the state of a link changes
	renewed chan struct{} // closed and replaced by Refresh
	doubted chan struct{} // closed and replaced by Probe
	primary string        // label of the first choice that was open last
}

// NewClient validates cfg and starts connecting in the background. Close ends
// what it started. The error matches [*ConfigError].
func NewClient(cfg ClientConfig) (*Client, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("signaling: %w", err)
	}
	targets, err := parseTargets(cfg.URLs)
	if err != nil {
		return nil, fmt.Errorf("signaling: %w", err)
	}
	c := &Client{
		cfg:     cfg,
		events:  make(chan Event, eventQueue),
		closing: make(chan struct{}),
		changed: make(chan struct{}),
		renewed: make(chan struct{}),
		doubted: make(chan struct{}),
	}
	c.http = c.httpClient()
	for i, t := range targets {
		l := &link{c: c, target: t, index: i, state: StateConnecting}
		if i >= cfg.MaxServers {
			l.state = StateSpare
		}
		c.links = append(c.links, l)
	}
	for _, l := range c.links {
		c.wg.Go(l.run)
	}
	c.wg.Go(c.watchClock)
	return c, nil
}

// watchClock asks the servers for a sign of life when the machine has slept, or its
// clock was set: connections that look open may be long gone.
func (c *Client) watchClock() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	defer closeWith(c.closing, cancel)()
	wallclock.Watch(ctx, c.cfg.Time, clockTick, func(by time.Duration) {
		c.cfg.Logger.Info("the wall clock left the monotonic one", "by", by)
		c.mu.Lock()
		for _, l := range c.links {
			l.clock = Clock{}
		}
		c.mu.Unlock()
		c.Probe()
	})
}

// Instance returns the instance that the client registers.
func (c *Client) Instance() Instance { return c.cfg.Instance }

// WaitReady waits until at least one server has accepted the registration. It
// fails when ctx ends, when every server has refused the agent or says that this
// client is replaced (the error then matches [ErrRefused] or [ErrReplaced]; the
// client goes on asking them now and then), and when the client is closed. The error includes each server's last one.
func (c *Client) WaitReady(ctx context.Context) error {
	for {
		c.mu.Lock()
		changed := c.changed
		open, final := 0, 0
		for _, l := range c.links {
			switch l.state {
			case StateOpen:
				open++
			case StateRefused, StateReplaced:
				final++
			}
		}
		c.mu.Unlock()
		switch {
		case c.closed():
			return fmt.Errorf("signaling: wait: %w", net.ErrClosed)
		case open > 0:
			return nil
		case final == len(c.links):
			return fmt.Errorf("signaling: wait: %w", c.lastErrors(nil))
		}
		select {
		case <-changed:
		case <-c.closing:
		case <-ctx.Done():
			return fmt.Errorf("signaling: wait: %w", c.lastErrors(context.Cause(ctx)))
		}
	}
}

// Wait waits until the servers are as f wants them. f gets their states, in order of
// priority, at once and after each change; it must not block. The error is why ctx ended,
// or matches net.ErrClosed.
func (c *Client) Wait(ctx context.Context, f func([]ServerStatus) bool) error {
	for {
		c.mu.Lock()
		changed := c.changed
		c.mu.Unlock()
		if c.closed() {
			return fmt.Errorf("signaling: wait: %w", net.ErrClosed)
		}
		if f(c.Servers()) {
			return nil
		}
		select {
		case <-changed:
		case <-c.closing:
		case <-ctx.Done():
			return fmt.Errorf("signaling: wait: %w", context.Cause(ctx))
		}
	}
}

// lastErrors joins first and the last error of each server, or that there is none
// yet: a server that says nothing is named as well.
func (c *Client) lastErrors(first error) error {
	errs := []error{first}
	for _, s := range c.Servers() {
		switch {
		case s.Err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", s.URL, s.Err))
		case s.State == StateConnecting:
			errs = append(errs, fmt.Errorf("%s: no answer yet", s.URL))
		}
	}
	return errors.Join(errs...)
}

// Servers returns the state of every server in order of priority.
func (c *Client) Servers() []ServerStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]ServerStatus, len(c.links))
	for i, l := range c.links {
		out[i] = l.statusLocked()
	}
	return out
}

// Send queues a sealed envelope on one connection and returns that server's
// URL. Route chooses among the open connections in order of priority, modulo
// their number: 0 is the first choice, and 0, 1, 2 … try every way. Send blocks
// while the connection's queue is full, until ctx ends.
//
// Nil does not mean that the envelope arrived: a connection may break with
// envelopes in its queue, and the server answers with a notice, if at all. The
// error matches [ErrNoServer] when no connection is open, and [ErrTooLarge]
// when the server takes no envelope of this size.
func (c *Client) Send(ctx context.Context, envelope []byte, route int) (server string, err error) {
	msg := encodeEnvelopeMsg(envelope)
	for {
		conn, err := c.pick(route)
		if err == nil && len(envelope) > conn.maxEnvelope {
			err = fmt.Errorf("envelope of %d bytes for %s: %w", len(envelope), conn.link.label, ErrTooLarge)
		}
		if err != nil {
			return "", fmt.Errorf("signaling: send: %w", err)
		}
		select {
		case conn.out <- msg:
			return conn.link.label, nil
		case <-conn.done: // take another one
		case <-c.closing:
		case <-ctx.Done():
			return "", fmt.Errorf("signaling: send: %w", context.Cause(ctx))
		}
	}
}

// pick returns the open connection that route means.
func (c *Client) pick(route int) (*clientConn, error) {
	if c.closed() {
		return nil, net.ErrClosed
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var open []*clientConn
	for _, l := range c.links {
		if l.state == StateOpen && !l.conn.ended() {
			open = append(open, l.conn)
		}
	}
	if len(open) == 0 {
		return nil, ErrNoServer
	}
	n := route % len(open)
	if n < 0 {
		n += len(open)
	}
	return open[n], nil
}

// Receive returns the next event. Events of one server come in order, starting
// with EventUp and ending with EventDown. It fails when ctx ends and when the
// client is closed.
func (c *Client) Receive(ctx context.Context) (Event, error) {
	if c.closed() {
		return Event{}, fmt.Errorf("signaling: receive: %w", net.ErrClosed)
	}
	select {
	case e := <-c.events:
		return e, nil
	case <-c.closing:
		return Event{}, fmt.Errorf("signaling: receive: %w", net.ErrClosed)
	case <-ctx.Done():
		return Event{}, fmt.Errorf("signaling: receive: %w", context.Cause(ctx))
	}
}

// Refresh connects to every server anew, at once: after a change of the
// network, connections that look open may lead nowhere, and those that wait for
// their next attempt need not wait any longer. Envelopes in the queue of a
// connection that it ends are lost, as when it breaks.
func (c *Client) Refresh() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.renewed)
	c.renewed = make(chan struct{})
}

// Probe asks every server for a sign of life at once, instead of at the next
// PingInterval: somebody has reason to doubt that they can be reached. A
// connection that gives none within three seconds, or PingTimeout if that is less,
// is given up; a server that waits for its next attempt is tried at once.
func (c *Client) Probe() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.doubted)
	c.doubted = make(chan struct{})
}

// probed returns the channel that the next Probe closes.
func (c *Client) probed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.doubted
}

// SendTo is Send by the connection to one server, which is named as Send returns
// it and as events name it. The error matches [ErrNoServer] when it is not open.
func (c *Client) SendTo(ctx context.Context, envelope []byte, server string) error {
	c.mu.Lock()
	var conn *clientConn
	for _, l := range c.links {
		if l.label == server && l.state == StateOpen && !l.conn.ended() {
			conn = l.conn
		}
	}
	c.mu.Unlock()
	err := error(ErrNoServer)
	switch {
	case conn == nil:
	case len(envelope) > conn.maxEnvelope:
		err = fmt.Errorf("envelope of %d bytes for %s: %w", len(envelope), server, ErrTooLarge)
	default:
		select {
		case conn.out <- encodeEnvelopeMsg(envelope):
			return nil
		case <-conn.done:
		case <-c.closing:
			err = net.ErrClosed
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	return fmt.Errorf("signaling: send: %w", err)
}

// refreshed returns the channel that the next Refresh closes.
func (c *Client) refreshed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.renewed
}

// Close sends what Send has queued, as far as that takes no more than a
// second, ends every connection and waits for the client's goroutines. It
// always returns nil.
func (c *Client) Close() error {
	c.once.Do(func() { close(c.closing) })
	c.wg.Wait()
	return nil
}

func (c *Client) closed() bool {
	select {
	case <-c.closing:
		return true
	default:
		return false
	}
}

// push hands an event to Receive. It reports false when the client is closing.
func (c *Client) push(e Event) bool {
	select {
	case c.events <- e:
		return true
	case <-c.closing:
		return false
	}
}
