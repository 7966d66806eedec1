package virtual

import (
	"net"
	"time"

	"github.com/pion/transport/v5"
)

// conn is a socket of a host: vnet's, with the extra delays before it.
type conn struct {
	transport.UDPConn
	host *Host
	at   *attachment // where it was opened
}

// LocalAddr returns a copy: vnet's reads its own while it delivers, and a TURN
// server writes into the address it gets.
func (c *conn) LocalAddr() net.Addr {
	a := *c.UDPConn.LocalAddr().(*net.UDPAddr) //nolint:forcetypeassert // vnet knows no other
	return &a
}

func (c *conn) Write(p []byte) (int, error) {
	to := c.RemoteAddr()
	if to == nil {
		return c.UDPConn.Write(p) // which says what is wrong
	}
	return c.WriteTo(p, to)
}

func (c *conn) WriteToUDP(p []byte, to *net.UDPAddr) (int, error) { return c.WriteTo(p, to) }

func (c *conn) WriteTo(p []byte, addr net.Addr) (int, error) {
	to, ok := addr.(*net.UDPAddr)
	if !ok || to.IP.IsLoopback() {
		return c.UDPConn.WriteTo(p, addr)
	}
	l, extra, gone := c.host.net.wire.route(c, to)
	if gone || c.host.net.backlog.hold(c, l, p, to, extra) {
		return len(p), nil
	}
	return c.UDPConn.WriteTo(p, addr)
}

// route looks up which way a datagram goes and how long it is held back first.
// It goes nowhere if the socket was left behind by a move.
func (w *wire) route(c *conn, dst *net.UDPAddr) (l lane, extra time.Duration, gone bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	to := w.hosts[ip4Of(dst.IP)]
	l = lane{c.host, to}
	if w.slow > 0 && to != c.host {
		extra = c.host.extra
		if to != nil {
			extra += to.extra
		}
	}
	return l, extra, c.at.gone
}
