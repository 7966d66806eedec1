package mesh

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/pion/transport/v5"

	"github.com/infrafabric/agentmesh/internal/virtual"
)

// TestFilterNet: of a network only what the filter leaves is used, whoever opens the
// socket.
func TestFilterNet(t *testing.T) {
	only := netip.MustParseAddr("127.0.0.1")
	n, err := FilterNet(nil, NetFilter{Address: func(a netip.Addr) bool { return a == only }, MinPort: 41000, MaxPort: 41001})
	if err != nil {
		t.Fatal(err)
	}
	left, err := n.Interfaces()
	if err != nil || len(left) != 1 {
		t.Fatalf("%v, %v", left, err)
	}
	if addrs, err := left[0].Addrs(); err != nil || len(addrs) != 1 || addrs[0].String() != "127.0.0.1/8" {
		t.Errorf("%v, %v", addrs, err)
	}
	var open []net.PacketConn
	for range 2 {
		c, err := n.ListenPacket("udp4", "0.0.0.0:0")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		open = append(open, c)
		a := c.LocalAddr().(*net.UDPAddr)
		if !a.IP.Equal(net.IPv4(127, 0, 0, 1)) || a.Port != 41000 && a.Port != 41001 {
			t.Errorf("a socket at %v", a)
		}
	}
	if _, err := n.ListenUDP("udp4", nil); !errors.Is(err, ErrNoAddress) {
		t.Errorf("a third socket in two ports: %v", err)
	}
	if err := open[0].Close(); err != nil {
		t.Fatal(err)
	}
	c, err := n.DialUDP("udp4", nil, open[1].LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := n.ListenPacket("udp6", "[::]:0"); !errors.Is(err, ErrNoAddress) {
		t.Errorf("a socket of a family that is filtered out: %v", err)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s, err := n.CreateDialer(&net.Dialer{}).Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if ip := s.LocalAddr().(*net.TCPAddr).IP; !ip.Equal(net.IPv4(127, 0, 0, 1)) {
		t.Errorf("a stream from %v", ip)
	}
}

// TestFilterNetRange: a range is one, or an error that names the field.
func TestFilterNetRange(t *testing.T) {
	for _, f := range []NetFilter{{MinPort: 1}, {MaxPort: 1}, {MinPort: 2, MaxPort: 1}} {
		var ce *ConfigError
		if _, err := FilterNet(nil, f); !errors.As(err, &ce) || ce.Field != "NetFilter.MinPort" {
			t.Errorf("%+v: %v", f, err)
		}
	}
}

// TestFilteredNode: agents meet within the filter, and with nothing left they do
// not.
func TestFilteredNode(t *testing.T) {
	inWorld(t, virtual.Config{}, func(w *world) {
		var watch portWatch
		filter := func(c *Config) {
			n, err := FilterNet(watch.of(c.Net), NetFilter{Interface: func(name string) bool { return name == "eth0" }, MinPort: 5100, MaxPort: 5110})
			if err != nil {
				t.Fatal(err)
			}
			c.Net = n
		}
		a, b := w.agent("agent-a", virtual.Open, filter), w.agent("agent-b", virtual.Open, filter)
		p, q := meet(t, a, b)
		tell(t, p, "within the filter")
		hear(t, q, "within the filter")
		ports := watch.seen()
		for _, port := range ports {
			if port < 5100 || port > 5110 {
				t.Errorf("a socket at port %d", port)
			}
		}
		if len(ports) < 2 {
			t.Errorf("%d sockets", len(ports))
		}
	})
}

// portWatch notes at which ports sockets are opened.
type portWatch struct {
	mu    sync.Mutex
	ports []int
}

func (p *portWatch) of(n transport.Net) transport.Net { return &watchedNet{n, p} }

func (p *portWatch) seen() []int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.ports)
}

type watchedNet struct {
	transport.Net
	watch *portWatch
}

func (n *watchedNet) ListenUDP(network string, a *net.UDPAddr) (transport.UDPConn, error) {
	n.watch.mu.Lock()
	n.watch.ports = append(n.watch.ports, a.Port)
	n.watch.mu.Unlock()
	return n.Net.ListenUDP(network, a)
}
