package mesh

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/transport/v5"

	"github.com/infrafabric/agentmesh/turn"
)

// sockets is a network of which a test sees what is opened.
type sockets struct {
	dials
	err    error
	opened []string
	in     []net.Addr // from where datagrams come, in order
	out    []net.Addr // where they go
	local  net.Addr
}

func (s *sockets) ListenPacket(network, address string) (net.PacketConn, error) {
	s.opened = append(s.opened, network+" "+address)
	if s.err != nil {
		return nil, s.err
	}
	return &datagrams{s: s}, nil
}

func (s *sockets) ResolveUDPAddr(network, address string) (*net.UDPAddr, error) {
	return net.ResolveUDPAddr(network, address)
}

func (s *sockets) CreateDialer(*net.Dialer) transport.Dialer { return s }

func (s *sockets) Dial(network, address string) (net.Conn, error) {
	s.opened = append(s.opened, network+" "+address)
	if s.err != nil {
		return nil, s.err
	}
	return s.dials.Dial(network, address)
}

// datagrams is one of its sockets.
type datagrams struct {
	net.PacketConn
	s *sockets
}

func (d *datagrams) LocalAddr() net.Addr { return d.s.local }

func (d *datagrams) WriteTo(p []byte, to net.Addr) (int, error) {
	d.s.out = append(d.s.out, to)
	return len(p), nil
}

func (d *datagrams) ReadFrom(p []byte) (int, net.Addr, error) {
	if len(d.s.in) == 0 {
		return 0, nil, io.EOF
	}
	from := d.s.in[0]
	d.s.in = d.s.in[1:]
	return copy(p, "x"), from, nil
}

// TestForeignFamily: to pion a relay is reached in both families; in the one that its address is not of
// it is a dummy's, with sockets of the address's own.
func TestForeignFamily(t *testing.T) {
	for _, c := range []struct {
		at, own, foreign, dummy, local, unspecified string
	}{
		{"192.0.2.1:99", "4", "6", "[100::8]:99", "0.0.0.0:0", "::"},
		{"[2001:db8::1]:99", "6", "4", "192.0.0.8:99", "[::]:0", "0.0.0.0"},
	} {
		at := netip.MustParseAddrPort(c.at)
		s := &sockets{local: &net.UDPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 77}}
		w, err := newRelayWay(s, &turn.Relay{URL: "turn:r.example?transport=tcp"}, at)
		if err != nil {
			t.Fatal(err)
		}
		if w.foreign("udp"+c.own) || !w.foreign("udp"+c.foreign) || w.foreign("udp") || w.own("tcp"+c.foreign) != "tcp"+c.own || w.dummy().String() != c.dummy {
			t.Errorf("%s: the families are others: %v", c.at, w.dummy())
		}
		// Its own family needs no leave.
		if a, err := w.ResolveUDPAddr("udp"+c.own, c.at); err != nil || a.String() != c.at {
			t.Errorf("%v, %v", a, err)
		}
		if _, err := w.ListenPacket("udp"+c.own, "x"); err != nil || s.opened[0] != "udp"+c.own+" x" {
			t.Errorf("%q, %v", s.opened, err)
		}
		if conn, err := w.Dial("tcp"+c.own, c.at); err != nil || s.opened[1] != "tcp"+c.own+" "+c.at {
			t.Errorf("%v, %q, %v", conn, s.opened, err)
		}
		// Another address is none of its business.
		if _, err := w.Dial("tcp"+c.foreign, "r.example:1"); !errors.Is(err, errOtherFamily) {
			t.Errorf("another address: %v", err)
		}
		// The other family is held up until it is wanted, or not any more.
		close(w.wanted)
		if a, err := w.ResolveUDPAddr("udp"+c.foreign, c.at); err != nil || a.String() != c.dummy {
			t.Errorf("%v, %v", a, err)
		}
		s.opened = nil
		p, err := w.ListenPacket("udp"+c.foreign, "x")
		if err != nil || s.opened[0] != "udp"+c.own+" "+c.local {
			t.Fatalf("%q, %v", s.opened, err)
		}
		if l := p.LocalAddr().(*net.UDPAddr); l.IP.String() != c.unspecified || l.Port != 77 {
			t.Errorf("local %v", l)
		}
		s.local = &net.UnixAddr{}
		if l := p.LocalAddr().(*net.UDPAddr); l.Port != 0 {
			t.Errorf("local %v", l)
		}
		if _, err := p.WriteTo([]byte("x"), &net.UDPAddr{}); err != nil || s.out[0].String() != c.at {
			t.Errorf("to %v, %v", s.out, err)
		}
		s.in = []net.Addr{&net.UDPAddr{IP: net.IPv4(192, 0, 2, 9), Port: 99}, &net.UnixAddr{}, &net.UDPAddr{IP: at.Addr().AsSlice(), Port: 98}, net.UDPAddrFromAddrPort(at)}
		if n, from, err := p.ReadFrom(make([]byte, 9)); n != 1 || err != nil || from.String() != c.dummy || len(s.in) != 0 {
			t.Errorf("%d bytes from %v, %v", n, from, err)
		}
		if _, _, err := p.ReadFrom(nil); !errors.Is(err, io.EOF) {
			t.Errorf("%v", err)
		}
		conn, err := w.Dial("tcp"+c.foreign, c.at)
		if err != nil || s.opened[1] != "tcp"+c.own+" "+c.at || conn.LocalAddr().(*net.TCPAddr).IP.String() != c.unspecified {
			t.Errorf("%v, %q, %v", conn, s.opened, err)
		}
		s.err = io.ErrNoProgress
		if _, err := w.ListenPacket("udp"+c.foreign, "x"); !errors.Is(err, s.err) {
			t.Errorf("no socket: %v", err)
		}
		if _, err := w.Dial("tcp"+c.foreign, c.at); !errors.Is(err, s.err) {
			t.Errorf("no connection: %v", err)
		}
		w.settle()
		w.settle()
		if _, err := w.ResolveUDPAddr("udp"+c.foreign, c.at); !errors.Is(err, errSettled) {
			t.Errorf("settled: %v", err)
		}
		if _, err := w.Dial("tcp"+c.foreign, c.at); !errors.Is(err, errSettled) {
			t.Errorf("settled: %v", err)
		}
		w.stop()()
	}
	if _, err := newRelayWay(nil, &turn.Relay{URL: "http://r"}, netip.AddrPort{}); err == nil {
		t.Error("a relay by HTTP")
	}
}

// TestOtherFamilyWanted: when an allocation of the other family is asked for.
func TestOtherFamilyWanted(t *testing.T) {
	const (
		four = "candidate:1 1 udp 1 192.0.2.7 4711 typ host"
		six  = "candidate:1 1 UDP 1 2001:db8::7 4711 typ host"
		tcp  = "candidate:1 1 tcp 1 2001:db8::7 9 typ host tcptype active"
		bad  = "candidate:1 1 udp 1 name.local 4711 typ host"
	)
	for name, c := range map[string]struct {
		heard   []string
		settled time.Duration // after that, 0 for never
		want    time.Duration // -1 for never
	}{
		"its own family":         {[]string{four}, 0, -1},
		"none for UDP":           {[]string{tcp, bad, "v=0"}, 0, -1},
		"the other":              {[]string{six}, 0, familyWait},
		"the other, twice":       {[]string{six, six}, 0, familyWait},
		"both":                   {[]string{four, six}, 0, familyLast},
		"both, in a description": {[]string{"v=0\r\na=" + four + "\r\na=" + six + "\r\n"}, 0, familyLast},
		"the other, settled":     {[]string{six}, familyWait / 2, -1},
		"both, settled":          {[]string{four, six}, familyLast / 2, -1},
	} {
		synctest.Test(t, func(t *testing.T) {
			w, err := newRelayWay(nil, &turn.Relay{URL: "turn:r.example"}, netip.MustParseAddrPort("192.0.2.1:99"))
			if err != nil {
				t.Fatal(err)
			}
			for _, text := range c.heard {
				w.heard(text)
			}
			start, got := time.Now(), time.Duration(-1)
			if c.settled > 0 {
				time.AfterFunc(c.settled, w.settle)
			}
			time.AfterFunc(time.Hour, w.settle)
			if w.await() == nil {
				got = time.Since(start)
			}
			if got != c.want {
				t.Errorf("%s: wanted after %v, want %v", name, got, c.want)
			}
			w.settle()
			w.heard(six)
		})
	}
	var none *relayWay
	none.heard(six)
	none.settle()
	none.stop()()
}
