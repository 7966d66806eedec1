package pipenet

import (
	"context"
	"net"
	"net/http"
	"time"
)

// Client is one machine that dials on a Net: its connections can be stalled,
// broken and slowed down by themselves. All methods may be called concurrently.
type Client struct {
	net  *Net
	name string

	// Guarded by net.mu.
	stalled map[string]chan struct{} // by address, "" for all; closed at Resume
	extra   time.Duration
}

// Client returns a new client of that name, which only people read.
func (n *Net) Client(name string) *Client {
	return &Client{net: n, name: name, stalled: map[string]chan struct{}{}}
}

// String returns the client's name.
func (c *Client) String() string { return c.name }

// DialContext is Net.DialContext for this client.
func (c *Client) DialContext(ctx context.Context, _, addr string) (net.Conn, error) {
	return c.net.dialAs(ctx, c, withPort(addr))
}

// HTTPClient is Net.HTTPClient for this client.
func (c *Client) HTTPClient() *http.Client { return c.net.httpClient(c) }

// Stall makes addresses black holes for this client, as Net.Stall does for
// everybody: what travels between them, in both directions, stays on the way.
// Without an address it is all of them.
func (c *Client) Stall(addr ...string) {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	for _, a := range names(addr) {
		if c.stalled[a] == nil {
			c.stalled[a] = make(chan struct{})
		}
		c.each(a, func(x *conn) { x.stall(true) })
	}
}

// Resume ends what Stall began, for those addresses or, without one, for all.
func (c *Client) Resume(addr ...string) {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	list := names(addr)
	if len(addr) == 0 {
		for a := range c.stalled {
			list = append(list, a)
		}
	}
	for _, a := range list {
		if ch := c.stalled[a]; ch != nil {
			delete(c.stalled, a)
			close(ch)
		}
	}
	for a := range c.net.listeners {
		c.net.settle(a)
	}
	for a := range c.net.ghosts {
		c.net.settle(a)
	}
}

// Reset breaks this client's connections to those addresses, without one all of
// them. The other ends see it at once, as they do when a process dies.
func (c *Client) Reset(addr ...string) {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	for _, a := range names(addr) {
		c.each(a, func(x *conn) { x.reset() })
	}
}

// Abandon makes this client's connections lead nowhere, for good, as those of a
// machine that has moved to another address: neither end learns of it.
func (c *Client) Abandon() {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	c.each("", func(x *conn) {
		x.lost = true
		x.stall(true)
	})
}

// SetDelay adds to the time that what is written from now on takes from and to
// this client. Nothing overtakes what was written before.
func (c *Client) SetDelay(extra time.Duration) {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	c.extra = extra
	c.each("", func(x *conn) { x.setDelay(c.net.Delay + extra) })
}

// each calls f for every connection of this client to an address, "" for any;
// net.mu is held.
func (c *Client) each(addr string, f func(*conn)) {
	for a, l := range c.net.listeners {
		if addr != "" && a != addr {
			continue
		}
		for x := range l.conns {
			if x.client == c {
				f(x)
			}
		}
	}
	for a, list := range c.net.ghosts {
		if addr != "" && a != addr {
			continue
		}
		for _, x := range list {
			if x.client == c {
				f(x)
			}
		}
	}
}

// names adds the port of HTTP where it is missing; no name is "", all of them.
func names(addr []string) []string {
	if len(addr) == 0 {
		return []string{""}
	}
	out := make([]string, len(addr))
	for i, a := range addr {
		out[i] = withPort(a)
	}
	return out
}
