package mesh

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pion/transport/v5"

	"github.com/infrafabric/agentmesh/internal/resolve"
	"github.com/infrafabric/agentmesh/turn"
)

// parseSTUN reads Config.STUN; each server counts once.
func parseSTUN(urls []string) ([]resolve.Server, error) {
	if len(urls) > maxSTUN {
		return nil, &ConfigError{"STUN", fmt.Sprintf("names %d servers, more than %d", len(urls), maxSTUN)}
	}
	var servers []resolve.Server
	for i, u := range urls {
		s, err := resolve.ParseSTUN(u)
		if err != nil {
			return nil, &ConfigError{"STUN", fmt.Sprintf("[%d] %s %v", i, resolve.Shown(u), err)}
		}
		if !slices.Contains(servers, s) {
			servers = append(servers, s)
		}
	}
	return servers, nil
}

// stunURLs looks the STUN servers up, all at once: what is known within nameWait is
// used, and nameGrace after the first of them; what is not is told.
func (n *Node) stunURLs(ctx context.Context) (urls []string, failed error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	enough := time.AfterFunc(nameWait, func() { cancel(errNameWait) })
	defer enough.Stop()
	found := make([][]netip.Addr, len(n.stun))
	errs := make([]error, len(n.stun))
	var all sync.WaitGroup
	var first sync.Once
	for i, s := range n.stun {
		all.Go(func() {
			if found[i], errs[i] = n.names.Resolve(ctx, s.Host); errs[i] == nil {
				first.Do(func() { enough.Reset(nameGrace) })
			}
		})
	}
	all.Wait() // not longer than enough
	for i, s := range n.stun {
		count := map[bool]int{}
		for _, a := range found[i] {
			if count[a.Is6()]++; count[a.Is6()] <= maxSTUNAddresses {
				urls = append(urls, "stun:"+resolve.JoinHostPort(a.String(), s.Port))
			}
		}
	}
	return urls, errors.Join(errs...)
}

// relayAt returns where a relay is reached: where it was measured, or an address of
// its name, of a family that this machine has if there is one.
func (n *Node) relayAt(ctx context.Context, r *turn.Relay) (netip.AddrPort, error) {
	s, err := resolve.ParseTURN(r.URL)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if r.Address.IsValid() {
		return netip.AddrPortFrom(r.Address, s.Port), nil
	}
	addrs, err := n.names.Resolve(ctx, s.Host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	best := addrs[0]
	if len(addrs) > 1 {
		four, six := families(n.cfg.Net)
		if i := slices.IndexFunc(addrs, func(a netip.Addr) bool { return a.Is4() && four || a.Is6() && six }); i > 0 {
			best = addrs[i]
		}
	}
	return netip.AddrPortFrom(best, s.Port), nil
}

// LookupNetIP looks a name up as the network that is filtered does.
func (n *filteredNet) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	return resolve.Of(n.Net)(ctx, network, host)
}

// families reports for which families a network has addresses that lead elsewhere,
// or any where it has loopback only. A nil network, of tests, has both.
func families(n transport.Net) (four, six bool) {
	if n == nil {
		return true, true
	}
	ifs, err := n.Interfaces()
	if err != nil {
		return true, true
	}
	list, _ := usableAddresses(ifs)
	for _, l := range list {
		if l.addr.IsLinkLocalUnicast() {
			continue
		}
		four, six = four || l.addr.Is4(), six || l.addr.Is6()
	}
	return four, six
}

// errNameWait is why an attempt goes on without a name.
var errNameWait = fmt.Errorf("no name server answered within %v", nameWait)

// locate finds out where the relay and the STUN servers of a connection are, at the
// same time. It never takes much longer than nameWait, and what could not be looked up
// is left out and told in unnamed: of ranked, another relay is taken.
func (a *attempt) locate(ctx context.Context, o *connOptions, ranked []turn.Relay) {
	n := a.peer.node
	var stunFailed, relayFailed error
	var both sync.WaitGroup
	if !o.relayOnly {
		both.Go(func() { o.stun, stunFailed = n.stunURLs(ctx) })
	}
	both.Go(func() {
		ctx, cancel := context.WithTimeoutCause(ctx, nameWait, errNameWait)
		defer cancel()
		for a.relay != nil {
			at, err := n.relayAt(ctx, a.relay)
			if err == nil {
				o.relayAt = at
				return
			}
			relayFailed = errors.Join(relayFailed, err)
			failed := a.relay.Server()
			ranked = slices.DeleteFunc(ranked, func(r turn.Relay) bool { return r.Server() == failed })
			a.relay = choose(ranked, a.theirRelay, a.shunned)
		}
	})
	both.Wait()
	if a.unnamed = errors.Join(stunFailed, relayFailed); a.unnamed != nil {
		n.log.Info("a session is made without servers whose names are not known", "peer", a.peer.id, "error", a.unnamed)
	}
}

// unnamedStory says what could not be looked up, "" for nothing.
func (a *attempt) unnamedStory() string {
	if a.unnamed == nil {
		return ""
	}
	return " (" + strings.ReplaceAll(a.unnamed.Error(), "\n", "; ") + ")"
}
