package turn

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
)

// prober is what probes have in common.
type prober struct {
	net   transport.Net
	names *resolve.Resolver
	now   func() time.Time // the wall clock
}

// run probes the addresses of a server until one passes, and says which: first that of
// r, then in the order of the resolver. The next one is tried when one has failed, or
// has not passed within a moment (as in RFC 8305 §5); the one of r has longer, so that
// a lost datagram moves nobody.
func (p *prober) run(ctx context.Context, a address, r Relay, pace pace) (netip.Addr, time.Duration, error) {
	addrs, err := p.names.Resolve(ctx, a.host)
	if err != nil {
		if errors.Is(ctx.Err(), context.Canceled) {
			return netip.Addr{}, 0, context.Cause(ctx)
		}
		return netip.Addr{}, 0, &ProbeError{URL: r.URL, Kind: ErrUnreachable, Err: err}
	}
	wait := nextAddress
	if i := slices.Index(addrs, r.Address); i >= 0 {
		addrs = slices.Insert(slices.Delete(addrs, i, i+1), 0, r.Address)
		wait = max(wait, pace.patience/2)
	}

	ctx, cancel := context.WithCancelCause(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel(errOvertaken)
	verdicts := make(chan verdict, len(addrs))
	begun, running := 0, 0
	begin := func() {
		at := addrs[begun]
		begun++
		running++
		all.Go(func() {
			latency, err := p.probe(ctx, a, at, r, pace)
			verdicts <- verdict{at, latency, err}
		})
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	var failed []verdict
	for begin(); running > 0; {
		more := begun < len(addrs) && ctx.Err() == nil
		var late <-chan time.Time // never
		if more {
			late = timer.C
		}
		select {
		case <-late:
		case v := <-verdicts:
			if v.err == nil {
				return v.at, v.latency, nil
			}
			running--
			failed = append(failed, v)
		}
		if more && ctx.Err() == nil {
			begin()
			timer.Reset(nextAddress)
		}
	}
	return netip.Addr{}, 0, worst(failed)
}

// verdict is that of a probe of one address.
type verdict struct {
	at      netip.Addr
	latency time.Duration
	err     error
}

// errOvertaken ends the probes of other addresses.
var errOvertaken = errors.New("another address has passed")

// worst returns the error that says most: a refusal rather than silence, and
// otherwise the first. The others are told in its text only.
func worst(failed []verdict) error {
	if len(failed) == 1 {
		return failed[0].err
	}
	i := max(0, slices.IndexFunc(failed, func(v verdict) bool { return !isSilence(v.err) }))
	var found *ProbeError
	if !errors.As(failed[i].err, &found) {
		return failed[i].err // given up
	}
	e := *found
	var others strings.Builder
	for j, v := range failed {
		if j != i {
			fmt.Fprintf(&others, "; %v: %s", v.at, why(v.err))
		}
	}
	if e.Err == nil {
		e.Err = fmt.Errorf("%v%s", failed[i].at, &others)
	} else {
		e.Err = fmt.Errorf("%v: %w%s", failed[i].at, e.Err, &others)
	}
	return &e
}

// why is the error of one address without its URL.
func why(err error) string {
	var e *ProbeError
	if !errors.As(err, &e) {
		return err.Error()
	}
	if e.Err == nil {
		return e.Kind.Error()
	}
	return e.Err.Error()
}
