package meshtest

import (
	"context"
	"net"
	"net/netip"
	"strings"
)

// topLevel ends the name of every server.
const topLevel = ".test"

// nameServers enters all servers, if they have names.
func (u *Universe) nameServers() {
	if !u.cfg.Names {
		return
	}
	stun, err := netip.ParseAddrPort(strings.TrimPrefix(u.net.STUNServer(), "stun:"))
	u.must("STUN server", err)
	u.must("name", u.net.SetName("stun"+topLevel, stun.Addr()))
	for _, r := range u.ordered {
		addr, err := netip.ParseAddr(r.running.Host().Addr())
		u.must("relay", err)
		u.must("name", u.net.SetName(r.name+topLevel, addr))
	}
	for name := range u.servers {
		// The streams know servers by their names. The address is for documentation
		// (RFC 5737), and nobody sends to it.
		u.must("name", u.net.SetName(name+topLevel, netip.AddrFrom4([4]byte{192, 0, 2, 1})))
	}
}

// stun is where agents find the STUN server.
func (u *Universe) stun() string {
	if u.cfg.Names {
		return "stun:stun" + topLevel
	}
	return u.net.STUNServer()
}

// HangNames makes the name servers of an agent's machine answer no more, until
// AnswerNames. It has no effect without Config.Names.
func (u *Universe) HangNames(name string) {
	u.t.Helper()
	a := u.agent("hang names", name)
	u.Note("hang the name servers of %s", name)
	a.host.HangNames()
}

// AnswerNames ends what HangNames began: who waits gets its answer.
func (u *Universe) AnswerNames(name string) {
	u.t.Helper()
	a := u.agent("answer names", name)
	u.Note("the name servers of %s answer", name)
	a.host.AnswerNames()
}

// lookup looks the host of a signaling server up, as an operating system does, which
// gives up some day.
func (a *Agent) lookup(ctx context.Context, addr string) error {
	if !a.u.cfg.Names {
		return nil
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	_, err = a.host.LookupNetIP(ctx, "ip4", host)
	return err
}
