package virtual

import (
	"net"

	"github.com/pion/transport/v5"
)

// conn is a socket of a host: vnet's, with what [Host.SetDelay] and its like do before it.
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
	n := c.host.net
	r := n.wire.route(c, to, len(p))
	for _, h := range r.copy[:r.copies] {
		if n.backlog.hold(c, r, h, p, to) {
			continue
		}
		if _, err := c.UDPConn.WriteTo(p, addr); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}
