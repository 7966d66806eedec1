package turn

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pion/stun/v4"
	pion "github.com/pion/turn/v5"
)

// allocation is the socket of one allocation, as pion/turn reads and writes it:
// until it closes it, there is one.
type allocation struct {
	net.PacketConn
	inlet   *inlet
	client  netip.AddrPort
	relayed netip.AddrPort // the relayed transport address
	bind    netip.Addr
	account *account
	grants  *grants

	close, end sync.Once
	closed     chan struct{}
}

// wait returns after d, or false when the allocation ends before.
func (a *allocation) wait(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-a.closed:
		return false
	}
}

// Validate implements pion/turn's RelayAddressGenerator.
func (*inlet) Validate() error { return nil }

// AllocatePacketConn makes the socket of an allocation for the request of i.now.
// Without a place from the quota, pion/turn only looks for an even port
// (EVEN-PORT, RFC 8656 §7.2); it is refused, as nobody needs a pair of
// ports today.
func (i *inlet) AllocatePacketConn(c pion.AllocateListenerConfig) (net.PacketConn, net.Addr, error) {
	e, s := &i.now, i.server
	if e.place == nil || c.RequestedPort != 0 {
		return nil, nil, errCapacity
	}
	ip, ok := s.relayIP(strings.HasSuffix(c.Network, "6"))
	if !ok {
		e.code = stun.CodeAddrFamilyNotSupported
		return nil, nil, errCapacity
	}
	if err := s.occupy(); err != nil {
		s.counters.capacityRefused.Add(1)
		return nil, nil, err
	}
	a := &allocation{inlet: i, client: e.client, bind: ip.Bind, account: e.place, grants: newGrants(), closed: make(chan struct{})}
	if err := s.bind(a, c.Network, ip); err != nil {
		s.vacate()
		s.counters.capacityRefused.Add(1)
		s.cfg.Logger.Warn("no port for an allocation", "error", err)
		return nil, nil, err
	}
	e.place = nil
	i.mu.Lock()
	i.allocations[a.client] = a
	i.mu.Unlock()
	if i.stream != nil {
		s.occupied(i.stream, true)
	}
	s.wg.Add(2) // until Close is done, and until ReadFrom fails
	s.counters.allocated.Add(1)
	s.cfg.Logger.Debug("allocated", "user", a.account.user, "client", a.client, "relayed", a.relayed)
	return a, net.UDPAddrFromAddrPort(a.relayed), nil
}

// AllocateListener refuses allocations of TCP (RFC 6062): a relay for anything
// that speaks TCP is a proxy into the places that it can reach, and agents have
// no use for it.
func (i *inlet) AllocateListener(pion.AllocateListenerConfig) (net.Listener, net.Addr, error) {
	i.now.code = stun.CodeUnsupportedTransProto
	return nil, nil, errCapacity
}

// AllocateConn refuses connections to peers, which only allocations of TCP make.
func (i *inlet) AllocateConn(pion.AllocateConnConfig) (net.Conn, error) { return nil, errCapacity }

// relayIP returns the address of a family.
func (s *Server) relayIP(six bool) (RelayIP, bool) {
	for _, ip := range s.cfg.RelayIPs {
		if ip.Public.Is6() == six {
			return ip, true
		}
	}
	return RelayIP{}, false
}

// bind gives an allocation a socket at a port that nobody can foresee: who knew
// it could send there from an address that a client lets in (RFC 8656 §7.2).
func (s *Server) bind(a *allocation, network string, ip RelayIP) error {
	first, size := int(s.cfg.PortMin), int(s.cfg.PortMax)-int(s.cfg.PortMin)+1
	start, tries := rand.IntN(size), 0
	var last error
	for n := 0; n < size && tries < maxPortTries; n++ {
		port := first + (start+n)%size
		at := netip.AddrPortFrom(ip.Public, uint16(port))
		if s.relay(at) != nil {
			continue
		}
		tries++
		conn, err := s.cfg.Net.ListenPacket(network, net.JoinHostPort(ip.Bind.String(), strconv.Itoa(port)))
		if err != nil {
			last = err
			continue
		}
		a.PacketConn, a.relayed = conn, at
		s.mu.Lock()
		s.relays[at] = a
		s.mu.Unlock()
		return nil
	}
	return fmt.Errorf("no port from %d to %d: %w", first, s.cfg.PortMax, last)
}

// relay returns the allocation at a relayed transport address, or nil.
func (s *Server) relay(at netip.AddrPort) *allocation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.relays[at]
}

// ReadFrom returns the next datagram of a peer. What another allocation of this
// server sends comes from there, also where the host knows itself by another
// address. pion/turn takes an error for the end of the allocation, so one that passes
// is waited for.
func (a *allocation) ReadFrom(p []byte) (int, net.Addr, error) {
	for pause := time.Duration(0); ; {
		n, addr, err := a.PacketConn.ReadFrom(p)
		if err != nil {
			pause = min(max(2*pause, time.Millisecond), time.Second)
			if !errors.Is(err, net.ErrClosed) && a.wait(pause) {
				continue
			}
			a.end.Do(a.inlet.server.wg.Done)
			return 0, nil, net.ErrClosed
		}
		pause = 0
		if n >= len(p) {
			continue // cut off
		}
		if from := addrPort(addr); a.translated() && from.Addr() == a.bind {
			if at := netip.AddrPortFrom(a.relayed.Addr(), from.Port()); a.inlet.server.relay(at) != nil {
				addr = net.UDPAddrFromAddrPort(at)
			}
		}
		return n, addr, nil
	}
}

// WriteTo sends a client's datagram to a peer, within the limit of the user. Only
// addresses with a permission get here.
func (a *allocation) WriteTo(p []byte, addr net.Addr) (int, error) {
	s, to := a.inlet.server, addrPort(addr)
	switch s.peers.judge(to.Addr()) {
	case refused: // permissions rule it out
		return len(p), nil
	case relaysOnly:
		if s.relay(to) == nil {
			s.counters.peersRefused.Add(1)
			return len(p), nil
		}
	}
	if !a.account.take(len(p)) {
		s.counters.throttled.add(len(p))
		return len(p), nil
	}
	if a.translated() && to.Addr() == a.relayed.Addr() {
		// Not every NAT lets a host reach itself by its public address.
		addr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(a.bind, to.Port()))
	}
	n, err := a.PacketConn.WriteTo(p, addr)
	if err == nil {
		s.counters.toPeers.add(len(p))
	}
	return n, err
}

// translated reports whether a NAT stands before the host, and its address there
// is known.
func (a *allocation) translated() bool {
	return a.bind != a.relayed.Addr() && !a.bind.IsUnspecified()
}

// Close ends the allocation. It never fails: pion/turn would leave the others
// open.
func (a *allocation) Close() error {
	a.close.Do(func() {
		i, s := a.inlet, a.inlet.server
		defer s.wg.Done()
		close(a.closed)
		if err := a.PacketConn.Close(); err != nil {
			s.cfg.Logger.Warn("close the socket of an allocation", "error", err)
		}
		if i.remove(a) && i.stream != nil {
			s.occupied(i.stream, false)
		}
		s.mu.Lock()
		delete(s.relays, a.relayed)
		s.mu.Unlock()
		s.release(a.account)
		s.vacate()
		s.cfg.Logger.Debug("allocation ended", "user", a.account.user, "client", a.client, "relayed", a.relayed)
	})
	return nil
}
