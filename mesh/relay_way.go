package mesh

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/pion/transport/v5"

	"github.com/infrafabric/agentmesh/internal/resolve"
	"github.com/infrafabric/agentmesh/turn"
)

// relayWay is how one connection reaches its relay. To pion it is the network and
// the dialer for streams; a nil one has no relay.
//
// A relayed address has the family of the way to the relay, for so pion's client
// asks (RFC 8656 §7.1), and one of IPv6 reaches no peer of IPv4: an agent that has
// IPv4 only and one that has IPv6 only would not meet at a relay that has both. So
// when the other side is known to have candidates of the other family only, or no
// path was found for long, another allocation is made, of that family. pion looks for
// a way to a relay in each family; in the one that the relay's address is not of it
// is held up until then, and is told a dummy address which stands for the real one.
//
//	                     family of the address   the other family
//	pion looks it up     the address             waits; dummy
//	pion's socket        as it is                one of the address's family, whose
//	                                             peer shows as dummy
//	pion asks for        an allocation of it     an allocation of it
type relayWay struct {
	bufferedNet
	at   netip.AddrPort
	url  string       // with the address for the name: pion is to look nothing up
	dial *relayDialer // nil for a relay by UDP

	wanted chan struct{} // closed when the other family is
	over   chan struct{} // closed when it will not be any more

	mu          sync.Mutex
	asked       bool // wanted is closed
	settled     bool // over is closed
	same, other bool // what families the other side's candidates have
	timer       *time.Timer
}

// Addresses that lead nowhere and leave this process never.
var (
	dummy4 = netip.MustParseAddr("192.0.0.8") // RFC 7600 §6
	dummy6 = netip.MustParseAddr("100::8")    // RFC 6666
)

var (
	errOtherFamily = errors.New("the relay is not reached by this family of addresses")
	errSettled     = errors.New("no address of this family is needed")
)

// newRelayWay returns the way to a relay at an address, nil for none.
func newRelayWay(n transport.Net, r *turn.Relay, at netip.AddrPort) (*relayWay, error) {
	if r == nil {
		return nil, nil
	}
	s, err := resolve.ParseTURN(r.URL)
	if err != nil {
		return nil, fmt.Errorf("relay %s %w", resolve.Shown(r.URL), err)
	}
	dial := newRelayDialer(n, r, s)
	s.Host, s.Port = at.Addr().String(), at.Port()
	return &relayWay{bufferedNet: bufferedNet{Net: n}, at: at, url: s.String(), dial: dial,
		wanted: make(chan struct{}), over: make(chan struct{})}, nil
}

// heard takes a description or a candidate of the other side.
func (w *relayWay) heard(text string) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for line := range strings.Lines(text) {
		switch a, ok := udpCandidate(line); {
		case !ok:
		case a.Is4() == w.at.Addr().Is4():
			w.same = true
		default:
			w.other = true
		}
	}
	if w.other && w.timer == nil && !w.settled {
		w.timer = time.AfterFunc(familyWait, w.decide)
	}
}

// decide asks for the other family, at once where there is nothing to lose and
// otherwise when much time has passed.
func (w *relayWay) decide() {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.settled || w.asked:
	case !w.same:
		w.asked = true
		close(w.wanted)
	default:
		w.same = false
		w.timer.Reset(familyLast - familyWait)
	}
}

// settle notes that there is a path, or no hope of one.
func (w *relayWay) settle() {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.settled {
		return
	}
	w.settled = true
	close(w.over)
	if w.timer != nil {
		w.timer.Stop()
	}
}

// stop is settle and relayDialer.stop.
func (w *relayWay) stop() (end func()) {
	w.settle()
	if w == nil {
		return func() {}
	}
	return w.dial.stop()
}

// await returns nil when the other family is wanted.
func (w *relayWay) await() error {
	select {
	case <-w.over:
		return errSettled
	default:
	}
	select {
	case <-w.wanted:
		return nil
	case <-w.over:
		return errSettled
	}
}

// foreign reports whether a network ("udp4", "tcp6") is of the family that the
// relay's address is not of.
func (w *relayWay) foreign(network string) bool {
	six := w.at.Addr().Is6()
	return strings.HasSuffix(network, "4") && six || strings.HasSuffix(network, "6") && !six
}

// own is that network of the address's family.
func (w *relayWay) own(network string) string {
	if w.at.Addr().Is6() {
		return network[:len(network)-1] + "6"
	}
	return network[:len(network)-1] + "4"
}

// dummy stands for the relay in the other family.
func (w *relayWay) dummy() netip.AddrPort {
	if w.at.Addr().Is6() {
		return netip.AddrPortFrom(dummy4, w.at.Port())
	}
	return netip.AddrPortFrom(dummy6, w.at.Port())
}

// ResolveUDPAddr is asked by pion for the relay in each family, and for addresses.
func (w *relayWay) ResolveUDPAddr(network, address string) (*net.UDPAddr, error) {
	if address != w.at.String() || !w.foreign(network) {
		return w.bufferedNet.ResolveUDPAddr(network, address)
	}
	if err := w.await(); err != nil {
		return nil, err
	}
	return net.UDPAddrFromAddrPort(w.dummy()), nil
}

// ListenPacket is called by pion for a socket to a relay only.
func (w *relayWay) ListenPacket(network, address string) (net.PacketConn, error) {
	if !w.foreign(network) {
		return w.bufferedNet.ListenPacket(network, address)
	}
	local := "0.0.0.0:0"
	if w.at.Addr().Is6() {
		local = "[::]:0"
	}
	c, err := w.bufferedNet.ListenPacket(w.own(network), local)
	if err != nil {
		return nil, err
	}
	return &foreignSocket{PacketConn: c, relay: net.UDPAddrFromAddrPort(w.at), from: w.at,
		dummy: net.UDPAddrFromAddrPort(w.dummy())}, nil
}

// Dial connects to the relay by a stream.
func (w *relayWay) Dial(network, addr string) (net.Conn, error) {
	if !w.foreign(network) {
		return w.dial.Dial(network, addr)
	}
	if addr != w.at.String() {
		return nil, errOtherFamily
	}
	if err := w.await(); err != nil {
		return nil, err
	}
	c, err := w.dial.Dial(w.own(network), addr)
	if err != nil {
		return nil, err
	}
	return &foreignStream{c, unspecified(w.dummy())}, nil
}

// unspecified is the address that says no more than a family.
func unspecified(a netip.AddrPort) *net.TCPAddr {
	if a.Addr().Is4() {
		return &net.TCPAddr{IP: net.IPv4zero}
	}
	return &net.TCPAddr{IP: net.IPv6unspecified}
}

// foreignStream is a stream to a relay that shows the other family.
type foreignStream struct {
	net.Conn
	local *net.TCPAddr
}

func (c *foreignStream) LocalAddr() net.Addr { return c.local }

// foreignSocket is a socket to a relay that shows the other family.
type foreignSocket struct {
	net.PacketConn
	relay *net.UDPAddr
	from  netip.AddrPort
	dummy *net.UDPAddr
}

func (c *foreignSocket) LocalAddr() net.Addr {
	a := &net.UDPAddr{IP: unspecified(c.dummy.AddrPort()).IP}
	if l, ok := c.PacketConn.LocalAddr().(*net.UDPAddr); ok {
		a.Port = l.Port
	}
	return a
}

// WriteTo writes to the relay, the one peer of the socket.
func (c *foreignSocket) WriteTo(p []byte, _ net.Addr) (int, error) {
	return c.PacketConn.WriteTo(p, c.relay)
}

// ReadFrom returns what the relay sends.
func (c *foreignSocket) ReadFrom(p []byte) (int, net.Addr, error) {
	for {
		n, addr, err := c.PacketConn.ReadFrom(p)
		if err != nil {
			return 0, nil, err
		}
		u, ok := addr.(*net.UDPAddr)
		if ok && netip.AddrPortFrom(u.AddrPort().Addr().Unmap(), u.AddrPort().Port()) == c.from {
			return n, c.dummy, nil
		}
	}
}

// udpCandidate returns the address of a candidate line (RFC 8839 §5.1) for UDP.
func udpCandidate(line string) (netip.Addr, bool) {
	_, text, ok := strings.Cut(line, "candidate:")
	f := strings.Fields(text)
	if !ok || len(f) < 6 || !strings.EqualFold(f[2], "udp") {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(f[4])
	return a.Unmap(), err == nil
}
