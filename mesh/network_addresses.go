package mesh

import (
	"maps"
	"net"
	"net/netip"
	"slices"

	"github.com/pion/transport/v5"
)

// located is an address of this machine and where it is.
type located struct {
	addr    netip.Addr // with its zone if it is of an IPv6 link
	network netip.Prefix
	iface   net.Interface
}

// usableAddresses returns the addresses of interfaces that are up by which others
// can reach this machine. Without any, those count that reach no further than a link
// or this machine, loopback among them, so that a machine without a network, or with
// its radio on and nobody to talk to, can still run a mesh of its own; otherwise
// nobody is offered 127.0.0.1.
func usableAddresses(ifs []*transport.Interface) (list []located, loopback bool) {
	far, near := sortAddresses(ifs)
	if far == nil {
		return near, len(ifs) > 0
	}
	return far, false
}

// sortAddresses returns the addresses of interfaces that are up: those that reach
// further than a link or this machine, and the others.
func sortAddresses(ifs []*transport.Interface) (far, near []located) {
	for _, i := range ifs {
		if i.Flags&net.FlagUp == 0 {
			continue
		}
		addrs, _ := i.Addrs() // it may have none
		for _, a := range addrs {
			ip, ok := addressOf(a)
			if !ok || ip.IsUnspecified() || ip.IsMulticast() {
				continue
			}
			l := located{addr: ip, network: networkOf(a, ip), iface: i.Interface}
			switch {
			case ip.Is6() && ip.IsLinkLocalUnicast():
				l.addr = ip.WithZone(i.Name)
				near = append(near, l)
			case i.Flags&net.FlagLoopback != 0 || ip.IsLoopback() || ip.IsLinkLocalUnicast():
				near = append(near, l)
			default:
				far = append(far, l)
			}
		}
	}
	return far, near
}

// networkOf is the network that an interface's address is of.
func networkOf(a net.Addr, ip netip.Addr) netip.Prefix {
	bits := ip.BitLen()
	if n, ok := a.(*net.IPNet); ok {
		if ones, size := n.Mask.Size(); size == bits {
			bits = ones
		}
	}
	p, _ := ip.Prefix(bits) // which are as many as the address has at most
	return p
}

// survey is what a machine's network was at a time: its usable addresses, and by
// which of them, of each family, what has no other way leaves.
type survey struct {
	at     map[netip.Addr]located
	routes []netip.Addr
	near   bool // they reach no further than a link or this machine
}

// surveyOf looks at the network of now.
func surveyOf(n transport.Net) (survey, error) {
	ifs, err := n.Interfaces()
	if err != nil {
		return survey{}, err
	}
	s := survey{at: map[netip.Addr]located{}}
	list, near := usableAddresses(ifs)
	s.near = near
	for _, l := range list {
		s.at[l.addr] = l
	}
	s.routes = slices.DeleteFunc(defaultRoutes(n), func(a netip.Addr) bool {
		_, ok := s.at[a]
		return !ok
	})
	return s, nil
}

// router is a network that knows its default routes.
type router interface {
	// routes returns the addresses by which they leave, at most one of each family.
	routes() []netip.Addr
}

// defaultRoutes returns a network's, none when it does not know.
func defaultRoutes(n transport.Net) []netip.Addr {
	if r, ok := n.(router); ok {
		return r.routes()
	}
	return nil
}

// change says what is different about a network.
type change struct {
	// all says that nobody knows what: it may be everything.
	all bool
	// gone are the addresses that cannot be used any more, or whose interface has
	// lost its carrier; fresh are those that have come.
	gone, fresh []located
	// left are those that stay.
	left map[netip.Addr]located
	// rerouted says that a default route leaves by an address of another network, that
	// there is none any more, or that a machine that reached nobody has a network now;
	// blind, that there was no default route and is none.
	rerouted, blind bool
}

func (c *change) none() bool {
	return !c.all && !c.rerouted && len(c.gone) == 0 && len(c.fresh) == 0
}

// compare says what has changed between two looks.
func compare(before, after survey) change {
	c := change{left: map[netip.Addr]located{}, blind: len(before.routes) == 0 && len(after.routes) == 0,
		rerouted: before.near && !after.near}
	for a, was := range before.at {
		switch is, ok := after.at[a]; {
		case !ok || was.running() && !is.running():
			c.gone = append(c.gone, was)
		case !was.running() && is.running():
			c.fresh = append(c.fresh, is)
		default:
			c.left[a] = is
		}
	}
	for a, is := range after.at {
		if _, ok := before.at[a]; !ok {
			c.fresh = append(c.fresh, is)
		}
	}
	for _, list := range [][]located{c.gone, c.fresh} {
		slices.SortFunc(list, func(a, b located) int { return a.addr.Compare(b.addr) })
	}
	for _, six := range []bool{false, true} {
		was, is := routeOf(before, six), routeOf(after, six)
		if was == is {
			continue
		}
		from, to := before.at[was], after.at[is]
		_, stays := after.at[was]
		// Another address of one network, as a machine makes itself every day for the
		// sake of privacy (RFC 8981), is no other way.
		if !is.IsValid() || !stays || from.iface.Index != to.iface.Index || from.network != to.network {
			c.rerouted = true
		}
	}
	return c
}

func routeOf(s survey, six bool) netip.Addr {
	for _, a := range s.routes {
		if a.Is6() == six {
			return a
		}
	}
	return netip.Addr{}
}

// running reports whether the interface has a carrier.
func (l *located) running() bool { return l.iface.Flags&net.FlagRunning != 0 }

// breaks reports whether a path that begins at an address of this machine, or at an
// unknown one, has to be replaced: its address is gone, its interface has come into
// another network, or what goes by the default route takes another way now. That
// somebody starts and ends containers is no reason.
func (c *change) breaks(base netip.Addr) bool {
	switch {
	case c.all || c.rerouted:
		return true
	case !base.IsValid():
		return c.blind && len(c.gone) > 0
	}
	is := func(l located) bool { return l.addr == base }
	if slices.ContainsFunc(c.gone, is) {
		return true
	}
	here, ok := c.left[base]
	if !ok {
		return false
	}
	return slices.ContainsFunc(c.fresh, func(l located) bool {
		return l.iface.Index == here.iface.Index && !c.knows(l)
	})
}

// knows reports whether the network of an address is one that its interface had
// another address of.
func (c *change) knows(l located) bool {
	for other := range maps.Values(c.left) {
		if other.iface.Index == l.iface.Index && other.network == l.network {
			return true
		}
	}
	return false
}
