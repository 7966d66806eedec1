package virtual

import (
	"context"
	"net"

	"github.com/pion/transport/v5"
)

// A Host is a network for pion. Each call below goes to where the host is
// attached at the time of the call; sockets are wrapped so that they can be slow.
var _ transport.Net = (*Host)(nil)

// attached is where the host is at present.
func (h *Host) attached() *attachment {
	h.net.wire.mu.Lock()
	defer h.net.wire.mu.Unlock()
	return h.at
}

// wrap makes a socket of vnet's one of the host's.
func (h *Host) wrap(at *attachment, c transport.UDPConn, err error) (*conn, error) {
	if err != nil {
		return nil, err //nolint:wrapcheck // a *net.OpError, as of the operating system
	}
	return &conn{c, h, at}, nil
}

// ListenUDP opens a socket at an address of the host; see [transport.Net].
func (h *Host) ListenUDP(network string, local *net.UDPAddr) (transport.UDPConn, error) {
	return h.DialUDP(network, local, nil)
}

// DialUDP opens a socket that sends to and receives from one address.
func (h *Host) DialUDP(network string, local, remote *net.UDPAddr) (transport.UDPConn, error) {
	op, addr := "listen", net.Addr(local)
	if remote != nil {
		op, addr = "dial", remote
	}
	at, err := h.open(op, network, addr)
	if err != nil {
		return nil, err
	}
	inner, err := at.stack.DialUDP(network, copyAddr(local), copyAddr(remote))
	c, err := h.wrap(at, inner, err)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// copyAddr: vnet keeps the addresses it is given and writes into them.
func copyAddr(a *net.UDPAddr) *net.UDPAddr {
	if a == nil {
		return nil
	}
	b := *a
	return &b
}

// ListenPacket is ListenUDP for an address in words.
func (h *Host) ListenPacket(network, address string) (net.PacketConn, error) {
	local, err := h.ResolveUDPAddr(network, address)
	if err != nil {
		return nil, err
	}
	return h.ListenUDP(network, local)
}

// Dial is DialUDP for an address in words.
func (h *Host) Dial(network, address string) (net.Conn, error) {
	at, err := h.open("dial", network, nil)
	if err != nil {
		return nil, err
	}
	inner, err := at.stack.Dial(network, address)
	udp, _ := inner.(transport.UDPConn)
	c, err := h.wrap(at, udp, err)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// ListenTCP returns [transport.ErrNotSupported].
func (h *Host) ListenTCP(string, *net.TCPAddr) (transport.TCPListener, error) {
	return nil, transport.ErrNotSupported
}

// DialTCP returns [transport.ErrNotSupported].
func (h *Host) DialTCP(string, *net.TCPAddr, *net.TCPAddr) (transport.TCPConn, error) {
	return nil, transport.ErrNotSupported
}

// Interfaces are a loopback and "eth0", which has one address: the present one,
// public for an Open host and private otherwise.
func (h *Host) Interfaces() ([]*transport.Interface, error) {
	at, err := h.open("route", "ip+net", nil)
	if err != nil {
		return nil, err
	}
	return at.stack.Interfaces()
}

// InterfaceByIndex returns one of Interfaces.
func (h *Host) InterfaceByIndex(index int) (*transport.Interface, error) {
	at, err := h.open("route", "ip+net", nil)
	if err != nil {
		return nil, err
	}
	return at.stack.InterfaceByIndex(index)
}

// InterfaceByName returns one of Interfaces.
func (h *Host) InterfaceByName(name string) (*transport.Interface, error) {
	at, err := h.open("route", "ip+net", nil)
	if err != nil {
		return nil, err
	}
	return at.stack.InterfaceByName(name)
}

// ResolveIPAddr parses an address. There are no names but "localhost".
func (h *Host) ResolveIPAddr(network, address string) (*net.IPAddr, error) {
	return h.attached().stack.ResolveIPAddr(network, address)
}

// ResolveUDPAddr parses an address with its port.
func (h *Host) ResolveUDPAddr(network, address string) (*net.UDPAddr, error) {
	return h.attached().stack.ResolveUDPAddr(network, address)
}

// ResolveTCPAddr parses an address with its port.
func (h *Host) ResolveTCPAddr(network, address string) (*net.TCPAddr, error) {
	return h.attached().stack.ResolveTCPAddr(network, address)
}

// CreateDialer returns a dialer whose Dial is the host's; the settings of d mean
// nothing here.
func (h *Host) CreateDialer(*net.Dialer) transport.Dialer { return config{h} }

// CreateListenConfig returns one whose ListenPacket is the host's; the settings
// of l mean nothing here.
func (h *Host) CreateListenConfig(*net.ListenConfig) transport.ListenConfig { return config{h} }

// config is both a transport.Dialer and a transport.ListenConfig.
type config struct{ host *Host }

func (c config) Dial(network, address string) (net.Conn, error) { return c.host.Dial(network, address) }

// Listen would be TCP. (vnet's own listens on the real network.)
func (c config) Listen(context.Context, string, string) (net.Listener, error) {
	return nil, transport.ErrNotSupported
}

func (c config) ListenPacket(_ context.Context, network, address string) (net.PacketConn, error) {
	return c.host.ListenPacket(network, address)
}
