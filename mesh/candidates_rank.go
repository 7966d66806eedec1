package mesh

import (
	"cmp"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/pion/transport/v5"
)

// How good an address is for a host candidate, the best first.
const (
	rankRoute     = iota // a default route leaves by it
	rankPublic           // others reach it from anywhere
	rankPrivate          // of a private network (RFC 1918, RFC 4193, RFC 6598)
	rankContainer        // of a network inside this machine
	rankLink             // of one link (RFC 3927, RFC 4291)
	rankLoopback
)

// containers are how the interfaces begin that lead to containers and virtual
// machines of this one. A name only costs rank.
var containers = []string{"docker", "br-", "veth", "virbr", "vnet", "cni", "flannel", "cali", "podman", "lxc", "lxd",
	"vmnet", "vboxnet", "vEthernet", "bridge", "kube", "cilium", "azv", "ovs", "dummy"}

// rankAddresses returns at most n addresses, the best first: a machine may have
// hundreds, each would take a socket, and the other side takes so many. Both families
// have their share while they have addresses. The order depends on nothing else than
// the addresses.
func rankAddresses(list []located, routes []netip.Addr, n int) []located {
	rank := func(l located) int {
		inside := slices.ContainsFunc(containers, func(p string) bool { return strings.HasPrefix(l.iface.Name, p) })
		switch {
		case slices.Contains(routes, l.addr):
			return rankRoute
		case l.iface.Flags&net.FlagLoopback != 0 || l.addr.IsLoopback():
			return rankLoopback
		case l.addr.IsLinkLocalUnicast():
			return rankLink
		case inside:
			return rankContainer
		case l.addr.IsPrivate() || shared.Contains(l.addr):
			return rankPrivate
		}
		return rankPublic
	}
	families := [2][]located{}
	for _, l := range list {
		f := &families[0]
		if l.addr.Is6() {
			f = &families[1]
		}
		*f = append(*f, l)
	}
	for _, f := range families {
		slices.SortFunc(f, func(a, b located) int {
			return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(carrier(b), carrier(a)), cmp.Compare(a.iface.Index, b.iface.Index), a.addr.Compare(b.addr))
		})
	}
	var best []located
	for i := 0; len(best) < n && (i < len(families[0]) || i < len(families[1])); i++ {
		for _, f := range families {
			if i < len(f) && len(best) < n {
				best = append(best, f[i])
			}
		}
	}
	return best
}

// carrier is 1 for an interface with one.
func carrier(l located) int {
	if l.running() {
		return 1
	}
	return 0
}

// shared is the address space of carriers' NATs and of some virtual private networks
// (RFC 6598).
var shared = netip.MustParsePrefix("100.64.0.0/10")

// gatherNet is the network as candidates are gathered from it: with larger socket
// buffers, and with the best maxHostAddresses of its addresses, in their order.
type gatherNet struct{ bufferedNet }

// Interfaces returns one for each address. Loopback ones are among them only when there
// are no others.
func (n gatherNet) Interfaces() ([]*transport.Interface, error) {
	ifs, err := n.Net.Interfaces()
	if err != nil {
		return nil, err
	}
	far, near := sortAddresses(ifs)
	if far == nil {
		far = near
	} else {
		for _, l := range near {
			if l.addr.Is4() && l.iface.Flags&net.FlagLoopback == 0 && !l.addr.IsLoopback() {
				far = append(far, l)
			}
		}
	}
	var list []*transport.Interface
	for _, l := range rankAddresses(far, defaultRoutes(n.Net), maxHostAddresses) {
		i := transport.NewInterface(l.iface)
		i.AddAddress(&net.IPNet{IP: l.addr.AsSlice(), Mask: net.CIDRMask(l.network.Bits(), l.addr.BitLen())})
		list = append(list, i)
	}
	return list, nil
}
