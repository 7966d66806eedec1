package virtual_test

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/pion/transport/v5"

	"github.com/infrafabric/agentmesh/internal/virtual"
)

// forever is longer than any datagram takes in these tests. In a bubble, waiting
// for it costs nothing.
const forever = time.Minute

// socket is a UDP socket on a host of its own.
type socket struct {
	t *testing.T
	transport.UDPConn
	host *virtual.Host
}

func newSocket(t *testing.T, n *virtual.Net, nat virtual.NAT) *socket {
	t.Helper()
	host, err := n.Host(nat)
	if err != nil {
		t.Fatal(err)
	}
	s := &socket{t: t, host: host}
	s.UDPConn = s.listen()
	return s
}

// listen opens another socket on the same host.
func (s *socket) listen() transport.UDPConn {
	s.t.Helper()
	c, err := s.host.ListenUDP("udp4", &net.UDPAddr{IP: s.addr()})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}

// another is a second socket on the host of s.
func (s *socket) another() *socket { return &socket{t: s.t, UDPConn: s.listen(), host: s.host} }

// addr is the host's own address, private or public.
func (s *socket) addr() net.IP {
	s.t.Helper()
	ifc, err := s.host.InterfaceByName("eth0")
	if err != nil {
		s.t.Fatal(err)
	}
	addrs, err := ifc.Addrs()
	if err != nil {
		s.t.Fatal(err)
	}
	if len(addrs) != 1 {
		s.t.Fatalf("host has addresses %v, want one", addrs)
	}
	return addrs[0].(*net.IPNet).IP
}

// send sends text to addr.
func (s *socket) send(text string, addr net.Addr) {
	s.t.Helper()
	if _, err := s.WriteTo([]byte(text), addr); err != nil {
		s.t.Fatal(err)
	}
}

// next returns the next datagram and where it came from, or "" when nothing
// comes.
func (s *socket) next() (string, net.Addr) {
	s.t.Helper()
	return s.within(forever)
}

// within is next for something that comes so soon, if it comes.
func (s *socket) within(d time.Duration) (string, net.Addr) {
	s.t.Helper()
	if err := s.SetReadDeadline(time.Now().Add(d)); err != nil {
		s.t.Fatal(err)
	}
	buf := make([]byte, 1500)
	n, from, err := s.ReadFrom(buf)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return "", nil
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return string(buf[:n]), from
}

// expect is next, which must be text.
func (s *socket) expect(text string) net.Addr {
	s.t.Helper()
	got, from := s.next()
	if got != text {
		s.t.Fatalf("received %q from %v, want %q", got, from, text)
	}
	return from
}

// expectNothing fails when a datagram arrives.
func (s *socket) expectNothing() {
	s.t.Helper()
	if got, from := s.next(); got != "" {
		s.t.Fatalf("received %q from %v, want nothing", got, from)
	}
}

// seenBy is the address under which s reaches other: it sends a datagram there.
func (s *socket) seenBy(other *socket) net.Addr {
	s.t.Helper()
	s.send("who am I", other.LocalAddr())
	return other.expect("who am I")
}

// reaches says whether a datagram from s to addr arrives at other.
func (s *socket) reaches(other *socket, addr net.Addr) bool {
	s.t.Helper()
	s.send("knock", addr)
	text, _ := other.next()
	return text == "knock"
}

// pair is two sockets on hosts of their own that know each other's way.
func pair(t *testing.T, n *virtual.Net, natA, natB virtual.NAT) (a, b *socket, toB, toA net.Addr) {
	t.Helper()
	a, b = newSocket(t, n, natA), newSocket(t, n, natB)
	if toB, toA = punch(t, n, a, b); toB == nil || toA == nil {
		t.Fatalf("no way between %v and %v", natA, natB)
	}
	return a, b, toB, toA
}
