package pipenet

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"time"
)

// backlog is how many dialled connections wait for Accept before further
// dials are refused, like the backlog of listen(2).
const backlog = 1024

// Net is one network. The zero value is an empty network without delay. All
// methods may be called concurrently; Delay is set before the first call.
type Net struct {
	// Delay is how long a written byte, or the closing of a connection, takes
	// to the other end. A dial takes two delays, as a TCP handshake does.
	Delay time.Duration

	mu        sync.Mutex
	listeners map[string]*listener
	stalled   map[string]chan struct{} // closed when the address resumes
	ghosts    map[string][]*conn       // dialled while stalled, to an address without listener
	dialed    int
}

// New returns an empty network without delay.
func New() *Net { return new(Net) }

// Listen announces addr, which is a name with an optional port (port 80 when
// it has none). An address in use is an error that matches
// [syscall.EADDRINUSE].
//
// Closing the listener resets every connection that was dialled through it,
// accepted or not, as when the machine it runs on dies. The address can then
// be used again.
func (n *Net) Listen(addr string) (net.Listener, error) {
	addr = withPort(addr)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners[addr] != nil {
		return nil, fmt.Errorf("pipenet: listen %s: %w", addr, syscall.EADDRINUSE)
	}
	if n.listeners == nil {
		n.listeners = make(map[string]*listener)
	}
	l := &listener{
		net:    n,
		addr:   pipeAddr(addr),
		queue:  make(chan *conn, backlog),
		closed: make(chan struct{}),
		conns:  make(map[*conn]struct{}),
	}
	n.listeners[addr] = l
	return l, nil
}

// DialContext connects to the listener at addr; network is ignored. Without a
// listener it fails with an error that matches [syscall.ECONNREFUSED]. While
// the address is stalled it waits until ctx ends.
func (n *Net) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	addr = withPort(addr)
	return n.dialAs(ctx, nil, addr)
}

func (n *Net) dialAs(ctx context.Context, client *Client, addr string) (net.Conn, error) {
	c, err := n.dial(ctx, client, addr)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "pipe", Addr: pipeAddr(addr), Err: err}
	}
	return c, nil
}

func (n *Net) dial(ctx context.Context, client *Client, addr string) (net.Conn, error) {
	for {
		n.mu.Lock()
		stalled := n.stalledFor(client, addr)
		n.mu.Unlock()
		if stalled == nil {
			break
		}
		select {
		case <-stalled:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if delay := n.delayOf(client); delay > 0 {
		t := time.NewTimer(2 * delay)
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
	return n.connect(client, addr, time.Time{})
}

// stalledFor returns what is closed when the address may have resumed for a
// client, nil when it is not stalled; n.mu is held.
func (n *Net) stalledFor(client *Client, addr string) <-chan struct{} {
	if ch := n.stalled[addr]; ch != nil {
		return ch
	}
	if client == nil {
		return nil
	}
	if ch := client.stalled[""]; ch != nil {
		return ch
	}
	if ch := client.stalled[addr]; ch != nil {
		return ch
	}
	return nil
}

// delayOf is how long a byte takes from or to a client.
func (n *Net) delayOf(client *Client) time.Duration {
	if client == nil {
		return n.Delay
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.Delay + client.extra
}

// connect makes a connection without waiting. What is written before the time
// ready leaves then.
func (n *Net) connect(owner *Client, addr string, ready time.Time) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.listeners[addr]
	stalled := n.stalledFor(owner, addr) != nil
	if l == nil && !stalled {
		return nil, syscall.ECONNREFUSED
	}
	n.dialed++
	delay := n.Delay
	if owner != nil {
		delay += owner.extra
	}
	client, server := pair(delay, pipeAddr(fmt.Sprintf("client:%d", n.dialed)), pipeAddr(addr))
	client.out.ready, client.client = ready, owner
	if stalled {
		client.stall(true)
	}
	if l == nil {
		if n.ghosts == nil {
			n.ghosts = make(map[string][]*conn)
		}
		n.ghosts[addr] = append(n.ghosts[addr], client)
		return client, nil
	}
	client.forget = func() { l.forget(client) }
	server.forget = client.forget
	select {
	case l.queue <- server:
	default:
		return nil, syscall.ECONNREFUSED
	}
	l.conns[client] = struct{}{}
	return client, nil
}

// Stall makes addr a black hole, as a cable pulled out does: dials to it hang
// and what is written on its connections, in both directions, stays on the
// way until Resume.
func (n *Net) Stall(addr string) {
	addr = withPort(addr)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stalled[addr] != nil {
		return
	}
	if n.stalled == nil {
		n.stalled = make(map[string]chan struct{})
	}
	n.stalled[addr] = make(chan struct{})
	n.eachConn(addr, func(c *conn) { c.stall(true) })
}

// Resume ends what Stall began; nothing that was on the way is lost.
func (n *Net) Resume(addr string) {
	addr = withPort(addr)
	n.mu.Lock()
	defer n.mu.Unlock()
	ch := n.stalled[addr]
	if ch == nil {
		return
	}
	delete(n.stalled, addr)
	close(ch)
	n.settle(addr)
}

// settle lets the connections to an address flow that nothing stalls any more.
// Those to an address that has no listener turn out to lead nowhere; n.mu is held.
func (n *Net) settle(addr string) {
	n.eachConn(addr, func(c *conn) { c.stall(c.lost || n.stalledFor(c.client, addr) != nil) })
	var still []*conn
	for _, c := range n.ghosts[addr] {
		if c.lost || n.stalledFor(c.client, addr) != nil {
			still = append(still, c)
		} else {
			c.reset()
		}
	}
	if still == nil {
		delete(n.ghosts, addr)
	} else {
		n.ghosts[addr] = still
	}
}

// Reset breaks every connection to addr; the listener stays.
func (n *Net) Reset(addr string) {
	addr = withPort(addr)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.eachConn(addr, func(c *conn) { c.reset() })
}

// eachConn calls f for every connection dialled to addr; n.mu is held.
func (n *Net) eachConn(addr string, f func(*conn)) {
	if l := n.listeners[addr]; l != nil {
		for c := range l.conns {
			f(c)
		}
	}
}

// HTTPClient returns a client whose connections go through n. It keeps no
// connection idle, so none outlives its response (or its WebSocket).
//
// Its dials never wait: they connect at once, and the delay of the handshake,
// or the wait for Resume, is that of the first byte. A transport of net/http
// goes on dialling when its request is gone, and a dial that waits would
// outlive a synctest bubble.
func (n *Net) HTTPClient() *http.Client { return n.httpClient(nil) }

func (n *Net) httpClient(client *Client) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(_ context.Context, _, addr string) (net.Conn, error) {
			c, err := n.connect(client, withPort(addr), time.Now().Add(2*n.delayOf(client)))
			if err != nil {
				return nil, &net.OpError{Op: "dial", Net: "pipe", Addr: pipeAddr(withPort(addr)), Err: err}
			}
			return c, nil
		},
		DisableKeepAlives: true,
	}}
}

// withPort adds the port of HTTP to an address that has none.
func withPort(addr string) string {
	if strings.Contains(addr, ":") {
		return addr
	}
	return addr + ":80"
}

type pipeAddr string

func (pipeAddr) Network() string  { return "pipe" }
func (a pipeAddr) String() string { return string(a) }

// listener implements net.Listener.
type listener struct {
	net    *Net
	addr   pipeAddr
	queue  chan *conn
	closed chan struct{}

	// conns holds the dialling end of every open connection; guarded by net.mu.
	conns map[*conn]struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.closed: // even if connections wait: they have been reset
		return nil, l.err("accept")
	default:
	}
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.closed:
		return nil, l.err("accept")
	}
}

func (l *listener) Close() error {
	l.net.mu.Lock()
	defer l.net.mu.Unlock()
	if l.net.listeners[string(l.addr)] != l {
		return l.err("close")
	}
	delete(l.net.listeners, string(l.addr))
	close(l.closed)
	for c := range l.conns {
		c.reset()
	}
	clear(l.conns)
	return nil
}

func (l *listener) Addr() net.Addr { return l.addr }

func (l *listener) err(op string) error {
	return &net.OpError{Op: op, Net: "pipe", Addr: l.addr, Err: net.ErrClosed}
}

// forget drops a connection that is closed at both ends.
func (l *listener) forget(c *conn) {
	l.net.mu.Lock()
	defer l.net.mu.Unlock()
	delete(l.conns, c)
}
