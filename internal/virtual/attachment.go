package virtual

import (
	"bytes"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"

	"github.com/pion/transport/v5"
	"github.com/pion/transport/v5/vnet"
)

// Host is a machine on a Net. It is a [transport.Net]; what it opens belongs to
// the address that it has then.
type Host struct {
	net *Net
	nat NAT
	at  atomic.Pointer[place]

	// Guarded by net.faults.mu.
	unplugged bool
	extra     time.Duration
	percent   int
	rng       *rand.Rand
}

// place is where a host is attached.
type place struct {
	*vnet.Net
	public string
}

var _ transport.Net = (*Host)(nil)

// Addr returns the host's public address at present.
func (h *Host) Addr() string { return h.at.Load().public }

// Move gives the host another public address, and another private network if it
// is behind a NAT. Sockets that it has open stay open, and reach nobody.
func (h *Host) Move() error {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	if h.net.closed {
		return errClosed
	}
	return h.connect()
}

// ListenUDP opens a socket; see [transport.Net].
func (h *Host) ListenUDP(network string, addr *net.UDPAddr) (transport.UDPConn, error) {
	p := h.at.Load()
	c, err := p.ListenUDP(network, addr)
	if err != nil {
		return nil, err
	}
	return &socket{UDPConn: c, host: h, place: p}, nil
}

// ListenPacket opens a socket; see [transport.Net].
func (h *Host) ListenPacket(network, address string) (net.PacketConn, error) {
	addr, err := h.ResolveUDPAddr(network, address)
	if err != nil {
		return nil, err
	}
	return h.ListenUDP(network, addr)
}

// The rest of transport.Net is that of the present place.

func (h *Host) Interfaces() ([]*transport.Interface, error) { return h.at.Load().Interfaces() }
func (h *Host) InterfaceByIndex(i int) (*transport.Interface, error) {
	return h.at.Load().InterfaceByIndex(i)
}
func (h *Host) InterfaceByName(name string) (*transport.Interface, error) {
	return h.at.Load().InterfaceByName(name)
}
func (h *Host) ListenTCP(network string, addr *net.TCPAddr) (transport.TCPListener, error) {
	return h.at.Load().ListenTCP(network, addr)
}
func (h *Host) Dial(network, address string) (net.Conn, error) {
	return h.at.Load().Dial(network, address)
}
func (h *Host) DialUDP(network string, laddr, raddr *net.UDPAddr) (transport.UDPConn, error) {
	return h.at.Load().DialUDP(network, laddr, raddr)
}
func (h *Host) DialTCP(network string, laddr, raddr *net.TCPAddr) (transport.TCPConn, error) {
	return h.at.Load().DialTCP(network, laddr, raddr)
}
func (h *Host) ResolveIPAddr(network, address string) (*net.IPAddr, error) {
	return h.at.Load().ResolveIPAddr(network, address)
}
func (h *Host) ResolveUDPAddr(network, address string) (*net.UDPAddr, error) {
	return h.at.Load().ResolveUDPAddr(network, address)
}
func (h *Host) ResolveTCPAddr(network, address string) (*net.TCPAddr, error) {
	return h.at.Load().ResolveTCPAddr(network, address)
}
func (h *Host) CreateDialer(d *net.Dialer) transport.Dialer { return h.at.Load().CreateDialer(d) }
func (h *Host) CreateListenConfig(c *net.ListenConfig) transport.ListenConfig {
	return h.at.Load().CreateListenConfig(c)
}

// socket is a UDP socket whose datagrams may leave later.
type socket struct {
	transport.UDPConn
	host  *Host
	place *place
}

func (s *socket) WriteTo(b []byte, addr net.Addr) (int, error) {
	f := s.host.net.faults
	if !f.delayed.Load() {
		return s.UDPConn.WriteTo(b, addr)
	}
	d := f.hold(s.place.public, addrOf(addr), time.Now())
	if d <= 0 {
		return s.UDPConn.WriteTo(b, addr)
	}
	b = bytes.Clone(b)
	time.AfterFunc(d, func() { _, _ = s.UDPConn.WriteTo(b, addr) }) // the network loses what it cannot take
	return len(b), nil
}
