package mesh

import (
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/transport/v5"
)

// addressesOf are the addresses that a network's interfaces have.
func addressesOf(t *testing.T, n transport.Net) (list []string) {
	t.Helper()
	ifs, err := n.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range ifs {
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			list = append(list, a.String())
		}
	}
	return list
}

func expectAddresses(t *testing.T, what string, n transport.Net, want ...string) {
	t.Helper()
	if got := addressesOf(t, n); !slices.Equal(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// TestHostNet: the list of interfaces is that of now, and the last one while there is
// none to be had.
func TestHostNet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newHostNet()
		ifs, calls := interfaces(lanHardware), 0
		var broken error
		n.list = func() ([]*transport.Interface, error) { calls++; return ifs, broken }
		expectAddresses(t, "at first", n, "10.0.0.2/24")
		ifs = interfaces(hardware{"eth0", isUp, []string{"10.0.0.3/24"}})
		expectAddresses(t, "at once", n, "10.0.0.2/24")
		n.refresh()
		expectAddresses(t, "when it is told", n, "10.0.0.3/24")
		ifs = interfaces(hardware{"eth0", isUp, []string{"10.0.0.4/24"}})
		time.Sleep(interfacesFresh)
		expectAddresses(t, "when it is not", n, "10.0.0.4/24")
		for range 100 {
			expectAddresses(t, "again and again", n, "10.0.0.4/24")
		}
		if calls != 3 {
			t.Errorf("listed %d times", calls)
		}
		broken, ifs = errShort, nil
		time.Sleep(time.Hour)
		expectAddresses(t, "without descriptors", n, "10.0.0.4/24")
		broken, ifs = nil, interfaces(hardware{"eth0", isUp, []string{"10.0.0.5/24"}})
		expectAddresses(t, "as soon as there are some", n, "10.0.0.5/24")
		if err := n.shortOf(); err != nil {
			t.Error(err)
		}
	})
}

// TestHostNetWithoutList: a sandbox in which nothing lists interfaces has its
// addresses all the same.
func TestHostNetWithoutList(t *testing.T) {
	n := newHostNet()
	n.list = func() ([]*transport.Interface, error) { return nil, syscall.EAFNOSUPPORT }
	n.route = func(six bool) netip.Addr {
		if six {
			return netip.MustParseAddr("2001:db8::7")
		}
		return netip.MustParseAddr("10.0.0.2")
	}
	expectAddresses(t, "two families", n, "127.0.0.1/8", "10.0.0.2/32", "2001:db8::7/128")
	if loopback, _, err := nearOnly(n); loopback || err != nil {
		t.Errorf("loopback is offered: %v, %v", loopback, err)
	}
	if err := n.shortOf(); !errors.Is(err, syscall.EAFNOSUPPORT) {
		t.Errorf("short of addresses: %v", err)
	}
	n.refresh()
	n.route = func(bool) netip.Addr { return netip.Addr{} }
	expectAddresses(t, "none", n, "127.0.0.1/8")
	if loopback, _, err := nearOnly(n); !loopback || err != nil {
		t.Errorf("loopback is not offered: %v, %v", loopback, err)
	}
}

// TestFilteredHost: a filter of the system's network is watched as that is, and knows
// of its routes those that are left.
func TestFilteredHost(t *testing.T) {
	m := newMachineNet(loopbackHardware, lanHardware, hardware{"wlan0", isUp, []string{"192.168.1.5/24"}})
	m.route = []netip.Addr{netip.MustParseAddr("10.0.0.2")}
	filter := func(f NetFilter) host {
		n, err := FilterNet(m, f)
		if err != nil {
			t.Fatal(err)
		}
		return n.(host)
	}
	for _, c := range []struct {
		name   string
		filter NetFilter
		want   int
	}{
		{"nothing is left out", NetFilter{}, 1},
		{"the interface is", NetFilter{Interface: func(n string) bool { return n != "eth0" }}, 0},
		{"the address is", NetFilter{Address: func(a netip.Addr) bool { return a.String() != "10.0.0.2" }}, 0},
		{"another is", NetFilter{Interface: func(n string) bool { return n == "eth0" }}, 1},
	} {
		s, err := surveyOf(filter(c.filter))
		if err != nil || len(s.routes) != c.want {
			t.Errorf("%s: routes by %v, %v", c.name, s.routes, err)
		}
	}
	w := newHostWatch(filter(NetFilter{Interface: func(n string) bool { return n == "wlan0" }}), slog.New(slog.DiscardHandler))
	m.ifs = m.ifs[:1]
	if c := w.look(); len(c.gone) != 1 || c.gone[0].addr.String() != "192.168.1.5" {
		t.Errorf("gone %v", c.gone)
	}
	if err := w.close(); err != nil || m.open != 0 {
		t.Errorf("%d sockets are open, %v", m.open, err)
	}
	n, err := FilterNet(plainNet{m}, NetFilter{})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := n.(host); ok {
		t.Error("a filter of a virtual network is watched")
	}
}

// plainNet hides what a network is besides.
type plainNet struct{ transport.Net }
