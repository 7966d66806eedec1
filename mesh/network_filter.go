package mesh

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"

	"github.com/pion/transport/v5"
)

// NetFilter restricts a network. Zero fields restrict nothing.
type NetFilter struct {
	// Interface keeps the interfaces with the names for which it returns true.
	Interface func(name string) bool
	// Address keeps the addresses for which it returns true. An interface of which
	// none is left is left out.
	Address func(netip.Addr) bool
	// MinPort and MaxPort, both set and both included, are between which UDP
	// sockets get their ports. Each session needs one per address, and one for each
	// STUN server and relay.
	MinPort, MaxPort uint16
}

// ErrNoAddress is matched by errors of a filtered network that has no address left
// of the kind that is needed, or no free port.
var ErrNoAddress = errors.New("the network filter leaves no address")

// FilterNet returns the network n, or the operating system's if n is nil,
// restricted by f, for Config.Net. Sockets that would be bound to no address in
// particular, those to STUN servers and relays, are bound to the first one left of
// their family that is not of the loopback interface, so that nothing leaves by an interface that is filtered out.
// Signaling goes by Config.HTTPClient and is not affected.
//
// A Node watches what is left of the operating system's network, and no other: see
// Config.NetworkChanged. The error is that of the operating system, or a
// *ConfigError.
func FilterNet(n transport.Net, f NetFilter) (transport.Net, error) {
	if (f.MinPort == 0) != (f.MaxPort == 0) || f.MinPort > f.MaxPort {
		return nil, &ConfigError{"NetFilter.MinPort", "and MaxPort are no range"}
	}
	if n == nil {
		h := newHostNet()
		if _, err := h.Interfaces(); err != nil {
			return nil, fmt.Errorf("mesh: filter network: %w", err)
		}
		n = h
	}
	filtered := &filteredNet{n, f}
	if h, ok := n.(host); ok {
		return &filteredHost{filtered, h}, nil
	}
	return filtered, nil
}

// filteredHost is what a filter leaves of the operating system's network.
type filteredHost struct {
	*filteredNet
	host host
}

func (n *filteredHost) refresh()                  { n.host.refresh() }
func (n *filteredHost) shortOf() error            { return n.host.shortOf() }
func (n *filteredHost) notices() (notices, error) { return n.host.notices() }

// routes are those that are left. What would leave by another address leaves by the
// one that sockets are bound to.
func (n *filteredNet) routes() (list []netip.Addr) {
	for _, a := range defaultRoutes(n.Net) {
		if n.filter.Address != nil && !n.filter.Address(a) {
			continue
		}
		list = append(list, a)
	}
	return list
}

// filteredNet is what FilterNet returns. What it does not override opens no socket
// of a kind that is used.
type filteredNet struct {
	transport.Net
	filter NetFilter
}

// Interfaces returns those that are left, with the addresses that are.
func (n *filteredNet) Interfaces() ([]*transport.Interface, error) {
	all, err := n.Net.Interfaces()
	if err != nil {
		return nil, err
	}
	var left []*transport.Interface
	for _, i := range all {
		if n.filter.Interface != nil && !n.filter.Interface(i.Name) {
			continue
		}
		addrs, _ := i.Addrs() // it may have none
		kept := transport.NewInterface(i.Interface)
		some := false
		for _, a := range addrs {
			if n.keeps(a) {
				kept.AddAddress(a)
				some = true
			}
		}
		if some {
			left = append(left, kept)
		}
	}
	return left, nil
}

// keeps reports whether an interface's address is left.
func (n *filteredNet) keeps(a net.Addr) bool {
	ip, ok := addressOf(a)
	return ok && (n.filter.Address == nil || n.filter.Address(ip))
}

func addressOf(a net.Addr) (netip.Addr, bool) {
	var ip net.IP
	switch a := a.(type) {
	case *net.IPNet:
		ip = a.IP
	case *net.IPAddr:
		ip = a.IP
	}
	addr, ok := netip.AddrFromSlice(ip)
	return addr.Unmap(), ok
}

// local is the address for a socket of a family that names none: one that leads
// elsewhere, if there is one.
func (n *filteredNet) local(six bool) (net.IP, error) {
	left, err := n.Interfaces()
	if err != nil {
		return nil, err
	}
	var loopback net.IP
	for _, i := range left {
		addrs, _ := i.Addrs()
		for _, a := range addrs {
			ip, ok := addressOf(a)
			switch {
			case !ok || ip.Is6() != six || ip.IsLinkLocalUnicast(): // of no use without its zone
			case ip.IsLoopback():
				loopback = ip.AsSlice()
			default:
				return ip.AsSlice(), nil
			}
		}
	}
	if loopback == nil {
		return nil, ErrNoAddress
	}
	return loopback, nil
}

// bind completes the address of a socket, but for its port.
func (n *filteredNet) bind(network string, local *net.UDPAddr) (net.UDPAddr, error) {
	var a net.UDPAddr
	if local != nil {
		a = *local
	}
	if n.filter.Interface == nil && n.filter.Address == nil || a.IP != nil && !a.IP.IsUnspecified() {
		return a, nil
	}
	six := strings.HasSuffix(network, "6") || !strings.HasSuffix(network, "4") && len(a.IP) == net.IPv6len && a.IP.To4() == nil
	ip, err := n.local(six)
	a.IP = ip
	return a, err
}

// ListenUDP opens a socket within the filter.
func (n *filteredNet) ListenUDP(network string, local *net.UDPAddr) (transport.UDPConn, error) {
	var c transport.UDPConn
	err := n.open(network, local, func(a *net.UDPAddr) (err error) {
		c, err = n.Net.ListenUDP(network, a)
		return err
	})
	return c, err
}

// DialUDP opens one that is connected.
func (n *filteredNet) DialUDP(network string, local, remote *net.UDPAddr) (transport.UDPConn, error) {
	var c transport.UDPConn
	err := n.open(network, local, func(a *net.UDPAddr) (err error) {
		c, err = n.Net.DialUDP(network, a, remote)
		return err
	})
	return c, err
}

// ListenPacket is ListenUDP for an address in words.
func (n *filteredNet) ListenPacket(network, address string) (net.PacketConn, error) {
	local, err := n.Net.ResolveUDPAddr(network, address)
	if err != nil {
		return nil, err
	}
	return n.ListenUDP(network, local)
}

// open tries ports of the range, from a random one on.
func (n *filteredNet) open(network string, local *net.UDPAddr, try func(*net.UDPAddr) error) error {
	a, err := n.bind(network, local)
	if err != nil {
		return err
	}
	if n.filter.MinPort == 0 || a.Port != 0 {
		return try(&a)
	}
	count := int(n.filter.MaxPort) - int(n.filter.MinPort) + 1
	start := rand.IntN(count)
	for i := range min(count, maxPortTries) {
		a.Port = int(n.filter.MinPort) + (start+i)%count
		if err = try(&a); err == nil {
			return nil
		}
	}
	return fmt.Errorf("%w: no free port found between %d and %d: %w", ErrNoAddress, n.filter.MinPort, n.filter.MaxPort, err)
}

// CreateDialer returns a dialer whose TCP connections begin at an address that is
// left.
func (n *filteredNet) CreateDialer(d *net.Dialer) transport.Dialer { return &filteredDialer{n, *d} }

type filteredDialer struct {
	net    *filteredNet
	dialer net.Dialer
}

// Dial dials within the filter. A host name is looked up for the family.
func (d *filteredDialer) Dial(network, address string) (net.Conn, error) {
	if d.dialer.LocalAddr == nil && strings.HasPrefix(network, "tcp") &&
		(d.net.filter.Interface != nil || d.net.filter.Address != nil) {
		to, err := d.net.ResolveTCPAddr(network, address)
		if err != nil {
			return nil, err
		}
		ip, err := d.net.local(to.IP.To4() == nil)
		if err != nil {
			return nil, err
		}
		d.dialer.LocalAddr = &net.TCPAddr{IP: ip}
		address = to.String()
	}
	return d.net.Net.CreateDialer(&d.dialer).Dial(network, address)
}

// CreateListenConfig returns one whose sockets are within the filter.
func (n *filteredNet) CreateListenConfig(c *net.ListenConfig) transport.ListenConfig {
	return filteredListenConfig{n.Net.CreateListenConfig(c), n}
}

type filteredListenConfig struct {
	transport.ListenConfig
	net *filteredNet
}

func (c filteredListenConfig) ListenPacket(_ context.Context, network, address string) (net.PacketConn, error) {
	return c.net.ListenPacket(network, address)
}
