package turn

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/pion/stun/v4"
	pion "github.com/pion/turn/v5"
)

// inlet is where messages of clients come in: a UDP socket, or one TCP
// connection. Each has a pion/turn server of its own, which calls ReadFrom, works
// on that one message in the same goroutine and calls ReadFrom again. What its
// callbacks do not tell, namely which request they are about, is therefore
// plain: it is inlet.now.
type inlet struct {
	net.PacketConn
	server *Server
	stream *stream // the connection; nil for UDP

	// Owned by the goroutine that calls ReadFrom.
	now   serving
	early int // answers without authentication
	ended bool

	mu          sync.RWMutex
	allocations map[netip.AddrPort]*allocation // by client
}

// serving is a request and what is known of its answer.
type serving struct {
	client        netip.AddrPort
	addr          net.Addr
	raw           []byte
	method        stun.Method
	key           stun.MessageIntegrity
	paid          bool // the answer is within the rate of AnswersPerSecond
	authenticated bool // the request verifies under key
	answered      bool
	place         *account       // kept by the quota, not yet used
	code          stun.ErrorCode // of the refusal, where pion/turn has another
}

// serve starts the pion/turn server of an inlet; s.wg counts it until ReadFrom
// has failed.
func (s *Server) serve(conn net.PacketConn, st *stream) error {
	i := &inlet{PacketConn: conn, server: s, stream: st, allocations: make(map[netip.AddrPort]*allocation)}
	s.wg.Add(1)
	_, err := pion.NewServer(pion.ServerConfig{
		Realm:              s.cfg.Realm,
		AllocationLifetime: s.cfg.Lifetime,
		InboundMTU:         maxDatagram,
		// Without it a client of IPv6 that wants an address of IPv4, and asks for it as
		// the RFC says, by no attribute, would get one of IPv6.
		StrictAddressFamily: len(s.cfg.RelayIPs) > 1,
		LoggerFactory:       silence{},
		AuthHandler:         i.authenticate,
		QuotaHandler:        i.reserve,
		EventHandler: pion.EventHandler{
			OnAuth:              i.onAuth,
			OnPermissionCreated: func(c, _ net.Addr, _, _, _ string, _ net.Addr, p net.IP) { i.grants(c).permission(p, true) },
			OnPermissionDeleted: func(c, _ net.Addr, _, _, _ string, _ net.Addr, p net.IP) { i.grants(c).permission(p, false) },
			OnChannelCreated:    func(c, _ net.Addr, _, _, _ string, _, _ net.Addr, n uint16) { i.grants(c).channel(n, true) },
			OnChannelDeleted:    func(c, _ net.Addr, _, _, _ string, _, _ net.Addr, n uint16) { i.grants(c).channel(n, false) },
		},
		PacketConnConfigs: []pion.PacketConnConfig{{PacketConn: i, RelayAddressGenerator: i, PermissionHandler: i.permit}},
	})
	if err != nil {
		s.wg.Done()
		return fmt.Errorf("turn: server: %w", err)
	}
	return nil
}

// ReadFrom ends the exchange before, if pion/turn left something of it to do, and
// returns the next message of a client.
func (i *inlet) ReadFrom(p []byte) (int, net.Addr, error) {
	i.finish()
	for pause := time.Duration(0); ; {
		n, addr, err := i.PacketConn.ReadFrom(p)
		if err == nil {
			pause = 0
		}
		switch {
		case err == nil && looksRight(p[:n]):
			i.now = serving{client: addrPort(addr), addr: addr, raw: p[:n]}
			if i.stream != nil || !bare(p[:n]) || i.pay() {
				return n, addr, nil
			}
			i.server.counters.unanswered.Add(1) // at a fiftieth of what pion/turn would spend on it
		case err == nil:
			i.server.counters.junk.Add(1)
		case i.stream != nil || errors.Is(err, net.ErrClosed):
			i.end()
			return 0, nil, err
		default:
			// A socket that reports the failure of something that it sent, or a want
			// of memory, is not at its end, but pion/turn would take it for that.
			pause = min(max(2*pause, time.Millisecond), time.Second)
			if !i.server.wait(pause) {
				i.end()
				return 0, nil, net.ErrClosed
			}
		}
	}
}

// pay reports whether i.now may have an answer though it is not authenticated.
func (i *inlet) pay() bool {
	e := &i.now
	e.paid = e.paid || i.server.answers.allow(e.client.Addr(), time.Now())
	return e.paid
}

// end tells the server that no more comes from here. pion/turn then closes the
// allocations.
func (i *inlet) end() {
	if !i.ended {
		i.ended = true
		if i.stream != nil {
			i.server.forget(i.stream)
		}
		i.server.wg.Done()
	}
}

// looksRight tells STUN messages (RFC 8489 §5: two bits are 0, then a cookie) and
// channels' data (RFC 8656 §12: channels 0x4000 to 0x4fff) from junk.
func looksRight(p []byte) bool {
	return stun.IsMessage(p) && p[0]&0xc0 == 0 || len(p) >= channelHeader && p[0]&0xf0 == 0x40
}

// WriteTo sends what pion/turn has for a client: an answer to the request it works
// on, or what an allocation relays.
func (i *inlet) WriteTo(p []byte, addr net.Addr) (int, error) {
	if n, ok := payload(p); ok {
		return i.relay(p, n, addr)
	}
	out, ok := i.answer(p)
	if !ok {
		i.server.counters.unanswered.Add(1)
		return len(p), nil
	}
	if _, err := i.PacketConn.WriteTo(out, addr); err != nil {
		return 0, err
	}
	return len(p), nil
}

// relay sends a peer's datagram to its client, within the limit of the user.
func (i *inlet) relay(p []byte, bytes int, addr net.Addr) (int, error) {
	a := i.find(addrPort(addr))
	if a == nil {
		return len(p), nil // just ended
	}
	if !a.account.take(bytes) {
		i.server.counters.throttled.add(bytes)
		return len(p), nil
	}
	n, err := i.PacketConn.WriteTo(p, addr)
	if err == nil {
		i.server.counters.toClients.add(bytes)
	}
	return n, err
}

// answer is what to send instead of p in answer to i.now, and whether to.
func (i *inlet) answer(p []byte) ([]byte, bool) {
	e := &i.now
	e.answered = true
	switch {
	case e.authenticated && e.code != 0:
		return i.refusal(p, e.code)
	case e.authenticated:
		return p, true
	case i.stream == nil:
		return p, len(p) <= amplification*len(e.raw) && i.pay()
	case i.find(e.client) != nil:
		i.early = 0
	default:
		// The way back is proven. What is left is to bound the guesses.
		if i.early++; i.early > maxEarlyAnswers {
			i.stream.Close()
			return nil, false
		}
	}
	return p, true
}

// refusal is an error response to an authenticated request that has the method and
// the transaction of message p: the request itself, or pion/turn's answer to it.
func (i *inlet) refusal(p []byte, code stun.ErrorCode) ([]byte, bool) {
	m := &stun.Message{Raw: append([]byte(nil), p...)}
	if m.Decode() != nil {
		return nil, false
	}
	out, err := stun.Build(stun.NewTransactionIDSetter(m.TransactionID), stun.NewType(m.Type.Method, stun.ClassErrorResponse), code, i.now.key)
	if err != nil {
		return nil, false
	}
	return out.Raw, true
}

// finish ends the exchange that pion/turn has worked on.
func (i *inlet) finish() {
	e := &i.now
	if e.place != nil { // for an allocation that did not come about
		i.server.release(e.place)
	}
	if e.authenticated && !e.answered {
		// pion/turn is silent where there is no allocation, or not this user's. The
		// answer spares a client of before a restart its time-outs.
		code := stun.CodeAllocMismatch // RFC 8656 §5
		if i.find(e.client) != nil {
			code = stun.CodeWrongCredentials
		}
		if out, ok := i.refusal(e.raw, code); ok {
			_, _ = i.PacketConn.WriteTo(out, e.addr) // as if it was lost
		}
	}
	i.now = serving{}
}

// authenticate is pion/turn's AuthHandler.
func (i *inlet) authenticate(r *pion.RequestAttributes) (string, []byte, bool) {
	user, key, ok := i.server.credentials.find(r.Username, i.now.raw)
	if !ok {
		i.server.counters.authFailures.Add(1)
		return "", nil, false
	}
	i.now.key, i.now.method = key, r.Method
	return user, key, true
}

// onAuth is pion/turn's OnAuth, which comes after authenticate said yes.
func (i *inlet) onAuth(_, _ net.Addr, _, _, _, _ string, verified bool) {
	i.now.authenticated = verified
	if !verified {
		i.server.counters.authFailures.Add(1)
	}
}

// reserve is pion/turn's QuotaHandler; its no becomes a 486.
func (i *inlet) reserve(user, _ string, _ net.Addr) bool {
	i.now.place = i.server.reserve(user)
	if i.now.place == nil {
		i.server.counters.quotaRefused.Add(1)
		return false
	}
	return true
}

// permit is pion/turn's PermissionHandler, for CreatePermission and ChannelBind.
func (i *inlet) permit(_ net.Addr, ip net.IP) bool {
	a, _ := netip.AddrFromSlice(ip)
	if i.server.peers.judge(a) == refused {
		i.server.counters.peersRefused.Add(1)
		i.server.cfg.Logger.Debug("peer refused", "client", i.now.client, "peer", a)
		i.now.code = stun.CodeForbidden
		return false
	}
	if !i.grants(i.now.addr).room(a, channelOf(i.now)) {
		i.now.code = stun.CodeInsufficientCapacity // RFC 8656 §10.2
		return false
	}
	return true
}

// channelOf is the number in a ChannelBind request, otherwise 0.
func channelOf(e serving) uint16 {
	if e.method != stun.MethodChannelBind {
		return 0
	}
	v, _ := attribute(e.raw, attrChannel)
	if len(v) < 2 {
		return 0
	}
	return binary.BigEndian.Uint16(v)
}

// find returns the allocation of a client, or nil.
func (i *inlet) find(client netip.AddrPort) *allocation {
	i.mu.RLock()
	defer i.mu.RUnlock()
	return i.allocations[client]
}

// remove forgets an allocation, unless its client has the next one already.
func (i *inlet) remove(a *allocation) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.allocations[a.client] != a {
		return false
	}
	delete(i.allocations, a.client)
	return true
}

// grants returns those of a client's allocation. It has none of its own only
// when it just ended.
func (i *inlet) grants(client net.Addr) *grants {
	if a := i.find(addrPort(client)); a != nil {
		return a.grants
	}
	return newGrants()
}

// addrPort is an address of a UDP or TCP socket, IPv4 in its own form; otherwise
// the zero AddrPort.
func addrPort(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch a := a.(type) {
	case *net.UDPAddr:
		ap = a.AddrPort()
	case *net.TCPAddr:
		ap = a.AddrPort()
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
