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
	stalled   map[string]bool
	conns     map[*conn]struct{} // the dialling ends of all connections that are open
	resumed   chan struct{}      // closed and replaced when something resumes; nil while nobody waits
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
	}
	n.listeners[addr] = l
	return l, nil
}

// DialContext connects to the listener at addr; network is ignored. Without a
// listener it fails with an error that matches [syscall.ECONNREFUSED]. While
// the address is stalled it waits until ctx ends.
func (n *Net) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	return n.nobody().DialContext(ctx, network, addr)
}

// HTTPClient returns a client whose connections go through n. It keeps no
// connection idle, so none outlives its response (or its WebSocket).
//
// Its dials never wait: they connect at once, and the delay of the handshake,
// or the wait for Resume, is that of the first byte. A transport of net/http
// goes on dialling when its request is gone, and a dial that waits would
// outlive a synctest bubble.
func (n *Net) HTTPClient() *http.Client { return n.nobody().HTTPClient() }

// nobody is a client that has no faults of its own.
func (n *Net) nobody() *Client { return n.Client("client") }

// Stall makes addr a black hole, as a cable pulled out does: dials to it hang
// and what is written on its connections, in both directions, stays on the
// way until Resume.
func (n *Net) Stall(addr string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stalled == nil {
		n.stalled = make(map[string]bool)
	}
	n.stalled[withPort(addr)] = true
	n.restall()
}

// Resume ends what Stall began; nothing that was on the way is lost. A
// connection whose client stalls the address as well goes on when both have
// resumed.
func (n *Net) Resume(addr string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.stalled, withPort(addr))
	n.restall()
}

// Reset breaks every connection to addr; the listener stays.
func (n *Net) Reset(addr string) {
	addr = withPort(addr)
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.conns {
		if c.dialed() == addr {
			c.reset()
		}
	}
}

// restall applies a change of what is stalled to the connections there are and
// to the dials that wait; n.mu is held.
func (n *Net) restall() {
	for c := range n.conns {
		stalled := c.abandoned || c.client.isStalled(c.dialed())
		if !stalled && c.listener == nil {
			c.reset() // it was dialled into the hole, and there is nobody
			delete(n.conns, c)
			continue
		}
		c.stall(stalled)
	}
	if n.resumed != nil {
		close(n.resumed)
		n.resumed = nil
	}
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
