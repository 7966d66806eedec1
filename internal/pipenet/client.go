package pipenet

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"syscall"
	"time"
)

// Client is somebody who dials on a network, with faults of its own: they touch
// its connections and no one else's. All methods may be called concurrently.
//
// A connection flows only if neither its client nor the network stalls it.
type Client struct {
	net   *Net
	name  string
	extra atomic.Int64 // nanoseconds, on top of Net.Delay

	// What is stalled: an address by itself or, if it is not listed, as all are.
	// Guarded by net.mu.
	all   bool
	addrs map[string]bool
}

// Client returns a new client on the network, without faults. Its name is what
// the local addresses of its connections begin with, and only that: two clients
// of the same name have nothing in common.
func (n *Net) Client(name string) *Client { return &Client{net: n, name: name} }

// DialContext connects as [Net.DialContext] does. It waits as well while the
// client stalls the address.
func (c *Client) DialContext(ctx context.Context, _, addr string) (net.Conn, error) {
	addr = withPort(addr)
	conn, err := c.dial(ctx, addr)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "pipe", Addr: pipeAddr(addr), Err: err}
	}
	return conn, nil
}

func (c *Client) dial(ctx context.Context, addr string) (net.Conn, error) {
	for resumed := c.hole(addr); resumed != nil; resumed = c.hole(addr) {
		select {
		case <-resumed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if d := c.handshake(); d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return c.connect(addr, time.Time{})
}

// hole returns nil if addr is not stalled, and else what is closed when that may
// have changed.
func (c *Client) hole(addr string) <-chan struct{} {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if !c.isStalled(addr) {
		return nil
	}
	if c.net.resumed == nil {
		c.net.resumed = make(chan struct{})
	}
	return c.net.resumed
}

// isStalled reports whether anything holds up what goes to addr; net.mu is held.
func (c *Client) isStalled(addr string) bool {
	own, listed := c.addrs[addr]
	if !listed {
		own = c.all
	}
	return own || c.net.stalled[addr]
}

// handshake is how long a dial takes.
func (c *Client) handshake() time.Duration {
	return 2 * (c.net.Delay + time.Duration(c.extra.Load()))
}

// connect makes a connection without waiting. What is written before the time
// ready leaves then.
func (c *Client) connect(addr string, ready time.Time) (net.Conn, error) {
	n := c.net
	n.mu.Lock()
	defer n.mu.Unlock()
	l, stalled := n.listeners[addr], c.isStalled(addr)
	if l == nil && !stalled {
		return nil, syscall.ECONNREFUSED
	}
	n.dialed++
	near, far := pair(n.Delay, &c.extra, pipeAddr(fmt.Sprintf("%s:%d", c.name, n.dialed)), pipeAddr(addr))
	near.client, near.listener = c, l
	near.out.ready = ready
	near.stall(stalled)
	near.forget = func() { n.forget(near) }
	far.forget = near.forget
	if l == nil {
		near.ends.Store(1) // there is nobody to close the other
	} else {
		select {
		case l.queue <- far:
		default:
			return nil, syscall.ECONNREFUSED
		}
	}
	if n.conns == nil {
		n.conns = make(map[*conn]struct{})
	}
	n.conns[near] = struct{}{}
	return near, nil
}

// forget drops a connection that is closed at both ends.
func (n *Net) forget(c *conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.conns, c)
}

// HTTPClient returns a client whose connections are those of c, as
// [Net.HTTPClient] does.
func (c *Client) HTTPClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(_ context.Context, _, addr string) (net.Conn, error) {
			addr = withPort(addr)
			conn, err := c.connect(addr, time.Now().Add(c.handshake()))
			if err != nil {
				return nil, &net.OpError{Op: "dial", Net: "pipe", Addr: pipeAddr(addr), Err: err}
			}
			return conn, nil
		},
		DisableKeepAlives: true,
	}}
}

// Stall puts a black hole, as [Net.Stall] does, between this client and some
// addresses, or all if none is given, also those that it dials later.
func (c *Client) Stall(addr ...string) { c.setStalled(true, addr) }

// Resume ends what Stall began, for some addresses or for all if none is given;
// nothing that was on the way is lost. For each address the last call decides:
// Stall() and then Resume("x") leaves everything but x stalled.
func (c *Client) Resume(addr ...string) { c.setStalled(false, addr) }

func (c *Client) setStalled(on bool, addrs []string) {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if len(addrs) == 0 {
		c.all, c.addrs = on, nil
	}
	for addr := range listed(addrs) {
		if c.addrs == nil {
			c.addrs = make(map[string]bool)
		}
		c.addrs[addr] = on
	}
	c.net.restall()
}

// Reset breaks the client's connections to some addresses, or to all if none is
// given: both ends fail with an error that matches [syscall.ECONNRESET], even
// through a black hole. Listeners stay, and the client can dial again.
func (c *Client) Reset(addr ...string) {
	which := listed(addr)
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	for conn := range c.net.conns {
		if conn.client == c && (len(which) == 0 || which[conn.dialed()]) {
			conn.reset()
		}
	}
}

// Abandon makes the client's connections lead nowhere, for good, as those of a
// machine that has moved to another address: neither end learns of it. It can
// dial again, and Reset breaks them.
func (c *Client) Abandon() {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	for conn := range c.net.conns {
		if conn.client == c {
			conn.abandoned = true
			conn.stall(true)
		}
	}
}

// SetDelay adds extra to [Net.Delay] for what is written from now on, in both
// directions, on all connections of the client, and so for the two ways of a
// dial. Bytes stay in order: after the delay was lowered, they wait for those
// before them. It panics if extra is negative.
func (c *Client) SetDelay(extra time.Duration) {
	if extra < 0 {
		panic(fmt.Sprintf("pipenet: SetDelay: %v is negative", extra))
	}
	c.extra.Store(int64(extra))
}

// listed is a set of addresses.
func listed(addrs []string) map[string]bool {
	set := make(map[string]bool, len(addrs))
	for _, a := range addrs {
		set[withPort(a)] = true
	}
	return set
}
