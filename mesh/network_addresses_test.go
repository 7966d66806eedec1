package mesh

import (
	"maps"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/pion/transport/v5"
)

// hardware is an interface of a test's machine: its name and flags, and its addresses
// with their networks.
type hardware struct {
	name  string
	flags net.Flags
	addrs []string
}

const (
	isUp   = net.FlagUp | net.FlagRunning
	isIdle = net.FlagUp // without a carrier
	isLo   = net.FlagUp | net.FlagLoopback | net.FlagRunning
)

var loopbackHardware = hardware{"lo", isLo, []string{"127.0.0.1/8", "::1/128"}}

// interfaces makes what a transport.Net returns. An interface keeps its index.
func interfaces(list ...hardware) []*transport.Interface {
	var ifs []*transport.Interface
	for _, h := range list {
		index := 1
		for _, c := range h.name {
			index = 31*index%10007 + int(c)
		}
		i := transport.NewInterface(net.Interface{Index: index, Name: h.name, Flags: h.flags})
		for _, a := range h.addrs {
			ip, n, err := net.ParseCIDR(a)
			if err != nil {
				panic(err)
			}
			i.AddAddress(&net.IPNet{IP: ip, Mask: n.Mask})
		}
		ifs = append(ifs, i)
	}
	return ifs
}

// TestUsableAddresses: what carries no address that others can reach is no network.
func TestUsableAddresses(t *testing.T) {
	for _, c := range []struct {
		name     string
		ifs      []hardware
		want     []string
		loopback bool
	}{
		{"nothing", nil, nil, false},
		{"loopback only", []hardware{loopbackHardware}, []string{"127.0.0.1", "::1"}, true},
		{"a radio without a network", []hardware{loopbackHardware, {"wlan0", isUp, nil}}, []string{"127.0.0.1", "::1"}, true},
		{"a radio with a link", []hardware{loopbackHardware, {"wlan0", isUp, []string{"fe80::1/64"}}},
			[]string{"127.0.0.1", "::1", "fe80::1%wlan0"}, true},
		{"a cable between two", []hardware{loopbackHardware, {"eth0", isUp, []string{"169.254.3.4/16"}}},
			[]string{"127.0.0.1", "169.254.3.4", "::1"}, true},
		{"a veth beside a network", []hardware{loopbackHardware, {"veth1", isUp, []string{"fe80::2/64"}}, {"eth0", isUp, []string{"10.0.0.2/24"}}},
			[]string{"10.0.0.2"}, false},
		{"a network that is down", []hardware{loopbackHardware, {"eth0", net.FlagBroadcast, []string{"10.0.0.2/24"}}},
			[]string{"127.0.0.1", "::1"}, true},
		{"both families", []hardware{loopbackHardware, {"eth0", isUp, []string{"192.0.2.7/24", "2001:db8::7/64", "fe80::7/64"}}},
			[]string{"192.0.2.7", "2001:db8::7"}, false},
		{"an address of its own on loopback", []hardware{{"lo", isLo, []string{"127.0.0.1/8", "10.1.1.1/32"}}},
			[]string{"10.1.1.1", "127.0.0.1"}, true},
	} {
		list, loopback := usableAddresses(interfaces(c.ifs...))
		var got []string
		for _, l := range list {
			got = append(got, l.addr.String())
		}
		slices.Sort(got)
		if !slices.Equal(got, c.want) || loopback != c.loopback {
			t.Errorf("%s: %v, loopback %v; want %v, %v", c.name, got, loopback, c.want, c.loopback)
		}
	}
}

func surveyed(routes []string, list ...hardware) survey {
	s := survey{at: map[netip.Addr]located{}}
	all, near := usableAddresses(interfaces(list...))
	s.near = near
	for _, l := range all {
		s.at[l.addr] = l
	}
	for _, r := range routes {
		s.routes = append(s.routes, netip.MustParseAddr(r))
	}
	return s
}

// TestChange: which changes are reason to replace which session.
func TestChange(t *testing.T) {
	lo := loopbackHardware
	lan := hardware{"eth0", isUp, []string{"10.0.0.2/24"}}
	wifi := hardware{"wlan0", isUp, []string{"192.168.1.5/24"}}
	bridge := hardware{"br-1", isUp, []string{"172.18.0.1/16"}}
	veth := hardware{"veth1", isUp, []string{"fe80::2/64"}}
	with := func(h hardware, addrs ...string) hardware {
		h.addrs = append(slices.Clone(h.addrs), addrs...)
		return h
	}
	unplugged := lan
	unplugged.flags = isIdle
	v4, both := []string{"10.0.0.2"}, []string{"10.0.0.2", "2001:db8::7"}
	for _, c := range []struct {
		name          string
		before, after survey
		none          bool
		breaks        map[string]bool // by the address at which a path begins; "" is unknown
	}{
		{"nothing", surveyed(v4, lo, lan), surveyed(v4, lo, lan), true, nil},
		{"a container's end of a cable", surveyed(v4, lo, lan), surveyed(v4, lo, lan, veth), true, nil},
		{"a bridge comes", surveyed(v4, lo, lan), surveyed(v4, lo, lan, bridge), false,
			map[string]bool{"10.0.0.2": false, "": false}},
		{"a bridge goes", surveyed(v4, lo, lan, bridge), surveyed(v4, lo, lan), false,
			map[string]bool{"10.0.0.2": false, "": false, "172.18.0.1": true}},
		{"a bridge goes that an agent on this machine is reached by, without a route", surveyed(nil, lo, bridge), surveyed(nil, lo), false,
			map[string]bool{"172.18.0.1": true, "": true}},
		{"the address goes", surveyed(v4, lo, lan), surveyed(nil, lo), false, map[string]bool{"10.0.0.2": true, "": true}},
		{"the cable is pulled", surveyed(v4, lo, lan, wifi), surveyed(v4, lo, unplugged, wifi), false,
			map[string]bool{"10.0.0.2": true, "192.168.1.5": false}},
		{"the cable is back", surveyed(v4, lo, unplugged, wifi), surveyed(v4, lo, lan, wifi), false,
			map[string]bool{"192.168.1.5": false}},
		{"a second way", surveyed(v4, lo, lan), surveyed(v4, lo, lan, wifi), false, map[string]bool{"10.0.0.2": false, "": false}},
		{"a better way", surveyed([]string{"192.168.1.5"}, lo, wifi), surveyed(v4, lo, lan, wifi), false,
			map[string]bool{"192.168.1.5": true, "": true}},
		{"a network comes, without a route", surveyed(nil, lo), surveyed(nil, lo, lan), false, map[string]bool{"127.0.0.1": true, "": true}},
		{"the only way comes", surveyed(nil, lo), surveyed(v4, lo, lan), false, map[string]bool{"127.0.0.1": true}},
		{"the route goes", surveyed(v4, lo, lan), surveyed(nil, lo, lan), false, map[string]bool{"": true}},
		{"its interface comes into another network", surveyed(nil, lo, lan), surveyed(nil, lo, with(lan, "10.9.9.9/24")), false,
			map[string]bool{"10.0.0.2": true, "": false}},
		{"one more address of a network", surveyed(v4, lo, lan), surveyed(v4, lo, with(lan, "10.0.0.3/24")), false,
			map[string]bool{"10.0.0.2": false, "": false}},
		{"today's private address", surveyed(both, lo, with(lan, "2001:db8::7/64")),
			surveyed([]string{"10.0.0.2", "2001:db8::99"}, lo, with(lan, "2001:db8::7/64", "2001:db8::99/64")), false,
			map[string]bool{"10.0.0.2": false, "2001:db8::7": false, "": false}},
		{"another provider", surveyed(both, lo, with(lan, "2001:db8::7/64")),
			surveyed([]string{"10.0.0.2", "2001:db8:1::7"}, lo, with(lan, "2001:db8::7/64", "2001:db8:1::7/64")), false,
			map[string]bool{"2001:db8::7": true, "": true}},
	} {
		got := compare(c.before, c.after)
		if got.none() != c.none {
			t.Errorf("%s: gone %v, fresh %v, rerouted %v", c.name, got.gone, got.fresh, got.rerouted)
		}
		for _, base := range slices.Sorted(maps.Keys(c.breaks)) {
			a, _ := netip.ParseAddr(base)
			if got.breaks(a) != c.breaks[base] {
				t.Errorf("%s: a session at %q is replaced: %v", c.name, base, got.breaks(a))
			}
		}
	}
	if all := (change{all: true}); all.none() || !all.breaks(netip.Addr{}) || !all.breaks(netip.MustParseAddr("10.0.0.2")) {
		t.Error("what may be everything concerns nobody")
	}
}
