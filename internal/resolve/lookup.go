package resolve

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"
)

// Lookup finds the addresses of a host: the method LookupNetIP of a
// [*net.Resolver]. The network is "ip4" or "ip6". It must return soon after ctx
// ends, and be safe for concurrent use.
type Lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)

// System is the operating system's way: net.DefaultResolver.
func System(ctx context.Context, network, host string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, network, host)
}

// Of returns how names are looked up for a network, any value: by its own method
// LookupNetIP, if it has one as [*net.Resolver] has it, and otherwise as System.
// What networks for pion have by nature, ResolveUDPAddr and the like, takes no
// context, so it is not called with names.
func Of(network any) Lookup {
	if own, ok := network.(interface {
		LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	}); ok {
		return own.LookupNetIP
	}
	return System
}

type answer struct {
	addrs []netip.Addr
	err   error
}

// both asks for both families. If only one has answered in time, rest waits for the
// other; otherwise it is nil.
func (r *Resolver) both(ctx context.Context, host string) (addrs []netip.Addr, rest func() ([]netip.Addr, error), err error) {
	answers := make(chan answer, 2)
	for _, network := range []string{"ip4", "ip6"} {
		r.wg.Go(func() {
			addrs, err := r.lookup(ctx, network, host)
			if err == nil && len(addrs) == 0 {
				err = &net.DNSError{Err: "no address", Name: host, IsNotFound: true}
			}
			answers <- answer{addrs, err}
		})
	}
	next := func() ([]netip.Addr, error) {
		select {
		case a := <-answers:
			return a.addrs, a.err
		case <-ctx.Done(): // also where a look-up does not heed it
			return nil, &net.DNSError{Err: context.Cause(ctx).Error(), Name: host, IsTimeout: errors.Is(ctx.Err(), context.DeadlineExceeded)}
		}
	}
	first, err := next()
	if err != nil {
		second, err2 := next()
		if err2 != nil && notFound(err) {
			err = err2 // the one that says more, if either does
		}
		if err2 == nil {
			err = nil
		}
		return merge(nil, second), nil, err
	}
	grace := time.NewTimer(graceFor)
	defer grace.Stop()
	select {
	case a := <-answers:
		return merge(first, a.addrs), nil, nil
	case <-grace.C:
		return merge(first, nil), next, nil
	}
}

// merge returns the addresses of both families by turns, IPv4 first, each once.
func merge(a, b []netip.Addr) []netip.Addr {
	var four, six, out []netip.Addr
	for _, x := range slices.Concat(a, b) {
		switch x = x.Unmap(); {
		case !x.IsValid():
		case x.Is4() && !slices.Contains(four, x):
			four = append(four, x)
		case x.Is6() && !slices.Contains(six, x):
			six = append(six, x)
		}
	}
	for i := 0; i < max(len(four), len(six)) && len(out) < maxAddresses; i++ {
		out = append(out, four[min(i, len(four)):min(i+1, len(four))]...)
		out = append(out, six[min(i, len(six)):min(i+1, len(six))]...)
	}
	return out[:min(len(out), maxAddresses)]
}
