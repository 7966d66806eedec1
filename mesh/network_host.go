package mesh

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/pion/transport/v5"
	"github.com/pion/transport/v5/stdnet"
)

// hostNet is the operating system's network with the interfaces and addresses of
// now: they are listed again when the list is older than interfacesFresh, or refresh
// was called. While they cannot be listed the last list stands in.
type hostNet struct {
	transport.Net // its sockets
	list          func() ([]*transport.Interface, error)
	route         func(six bool) netip.Addr // by which a default route leaves; invalid for none
	open          func() (notices, error)

	mu    sync.Mutex
	last  []*transport.Interface
	taken time.Time // when last was listed
	short error     // why the list is only what the routes tell; nil when it is whole
}

func newHostNet() *hostNet {
	return &hostNet{Net: &stdnet.Net{}, list: listInterfaces, route: routeAddress, open: openNotices}
}

func listInterfaces() ([]*transport.Interface, error) {
	n, err := stdnet.NewNet()
	if err != nil {
		return nil, err
	}
	return n.Interfaces()
}

// Interfaces returns the interfaces, at most interfacesFresh old.
func (n *hostNet) Interfaces() ([]*transport.Interface, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.last != nil && !n.taken.IsZero() && time.Since(n.taken) < interfacesFresh {
		return n.last, nil
	}
	list, err := n.list()
	switch {
	case err == nil:
		n.last, n.taken, n.short = list, time.Now(), nil
		return list, nil
	case n.last != nil && n.short == nil:
		return n.last, nil // what is short of descriptors now will not be for long
	}
	// Some systems list nothing at all: Linux needs AF_NETLINK for it.
	if list = n.byRoute(); list == nil {
		if n.last != nil {
			return n.last, nil
		}
		return nil, err
	}
	n.last, n.taken, n.short = list, time.Now(), err
	return list, nil
}

// refresh makes the next call of Interfaces list them anew.
func (n *hostNet) refresh() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.taken = time.Time{}
}

// shortOf says why the list holds only what the routes tell, nil when it is whole.
func (n *hostNet) shortOf() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.short
}

// byRoute is a list of what can be known without one: loopback, and the addresses by
// which the default routes leave. It is nil when there is no socket to be had.
func (n *hostNet) byRoute() []*transport.Interface {
	c, err := n.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil
	}
	_ = c.Close()
	lo := transport.NewInterface(net.Interface{Index: 1, Name: "lo", Flags: net.FlagUp | net.FlagLoopback | net.FlagRunning})
	lo.AddAddress(&net.IPNet{IP: net.IPv4(127, 0, 0, 1), Mask: net.CIDRMask(8, 32)})
	list := []*transport.Interface{lo}
	if found := n.routes(); found != nil {
		i := transport.NewInterface(net.Interface{Index: 2, Name: "default", Flags: net.FlagUp | net.FlagRunning})
		for _, a := range found {
			i.AddAddress(&net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())})
		}
		list = append(list, i)
	}
	return list
}

func (n *hostNet) notices() (notices, error) { return n.open() }

func (n *hostNet) routes() (list []netip.Addr) {
	for _, six := range []bool{false, true} {
		if a := n.route(six); a.IsValid() {
			list = append(list, a)
		}
	}
	return list
}

// routeAddress asks the system by which address a packet to nowhere in particular
// would leave. Connecting a UDP socket sends nothing; the addresses are those of
// documentation (RFC 5737, RFC 3849).
func routeAddress(six bool) netip.Addr {
	network, to := "udp4", net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 9}
	if six {
		network, to.IP = "udp6", net.ParseIP("2001:db8::1")
	}
	c, err := net.DialUDP(network, nil, &to)
	if err != nil {
		return netip.Addr{}
	}
	defer c.Close()
	a, ok := c.LocalAddr().(*net.UDPAddr)
	if !ok {
		return netip.Addr{}
	}
	return a.AddrPort().Addr().Unmap()
}
