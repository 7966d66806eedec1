package resolve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// ErrTooMany means that more names are being looked up at a time than are
// remembered.
var ErrTooMany = errors.New("too many names at a time")

// Error says that a name has no address that is known.
type Error struct {
	Host string
	Err  error
}

func (e *Error) Error() string { return fmt.Sprintf("look up %s: %v", e.Host, e.Err) }

// Unwrap returns the cause: a *net.DNSError, ErrTooMany, net.ErrClosed or that of
// the context of who asked.
func (e *Error) Unwrap() error { return e.Err }

// Config configures a [Resolver]. Zero fields mean the defaults that they document.
type Config struct {
	// Lookup finds addresses. Nil means [System].
	Lookup Lookup
	// Logger is told when a name cannot be looked up, and when it can again. Nil
	// means silence.
	Logger *slog.Logger
}

// Resolver looks names up and remembers what it found. Its methods may be called
// concurrently. Close it.
type Resolver struct {
	lookup Lookup
	log    *slog.Logger
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // look-ups

	mu     sync.Mutex
	closed bool
	names  map[string]*name
}

// name is what is known of one. Resolver.mu guards it.
type name struct {
	host  string
	addrs []netip.Addr // the last that were found
	found time.Time    // when
	err   error        // of the last look-up
	tried time.Time    // when that ended; zero while none has
	asked time.Time    // by anybody
	busy  chan struct{}
	// busy is closed when the look-up under way has told something, and nil while
	// there is none; late says that it is still at it.
	late bool
}

// New returns a Resolver, which has started nothing yet.
func New(cfg Config) *Resolver {
	r := &Resolver{lookup: cfg.Lookup, log: cfg.Logger, names: map[string]*name{}}
	if r.lookup == nil {
		r.lookup = System
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

// Resolve returns the addresses of a host, which may be an address itself: at least
// one, those of IPv4 and IPv6 by turns, and none of them an IPv4 one in the form of
// IPv6. The context bounds the call; the look-up goes on without it, for the next
// one. The error is an [*Error].
func (r *Resolver) Resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a.Unmap()}, nil
	}
	r.mu.Lock()
	n, err := r.ask(host)
	if err != nil || n.current() {
		defer r.mu.Unlock()
		return n.result(host, err)
	}
	busy, known := n.busy, !n.tried.IsZero()
	r.mu.Unlock()

	var enough <-chan time.Time // never
	if known {
		t := time.NewTimer(againWait)
		defer t.Stop()
		enough = t.C
	}
	select {
	case <-busy:
	case <-enough:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !n.tried.IsZero() {
		err = nil // there is an answer, of now or of before
	}
	return n.result(host, err)
}

// Prefetch begins to look hosts up, so that their addresses are there when they are
// asked for. It does not block.
func (r *Resolver) Prefetch(hosts ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, h := range hosts {
		if _, err := netip.ParseAddr(h); err != nil {
			_, _ = r.ask(h) // who needs it asks again
		}
	}
}

// Close ends the look-ups and waits for them. It is idempotent.
func (r *Resolver) Close() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.cancel()
	r.wg.Wait()
	return nil
}

// ask returns what is known of a host and begins a look-up unless that is of now.
// r.mu is held.
func (r *Resolver) ask(host string) (*name, error) {
	if r.closed {
		return nil, net.ErrClosed
	}
	n := r.names[host]
	if n == nil {
		if len(r.names) >= maxNames && !r.displace() {
			return nil, ErrTooMany
		}
		n = &name{host: host}
		r.names[host] = n
	}
	n.asked = time.Now()
	if !n.current() && n.busy == nil {
		n.busy = make(chan struct{})
		r.wg.Go(func() { r.run(n) })
	}
	return n, nil
}

// displace forgets the name that was asked for the longest time ago. r.mu is held.
func (r *Resolver) displace() bool {
	var oldest *name
	for _, n := range r.names {
		if n.busy == nil && (oldest == nil || n.asked.Before(oldest.asked)) {
			oldest = n
		}
	}
	if oldest == nil {
		return false
	}
	delete(r.names, oldest.host)
	return true
}

// current reports whether the last answer needs no other yet.
func (n *name) current() bool {
	switch {
	case n.tried.IsZero():
		return false
	case n.err != nil:
		return time.Since(n.tried) < failedFor
	}
	return time.Since(n.tried) < freshFor
}

// result is what Resolve returns.
func (n *name) result(host string, err error) ([]netip.Addr, error) {
	if err == nil && len(n.addrs) > 0 && (n.err == nil || time.Since(n.found) < staleFor) {
		return slices.Clone(n.addrs), nil
	}
	if err == nil {
		err = n.err
	}
	return nil, &Error{host, err}
}

// run is one look-up.
func (r *Resolver) run(n *name) {
	ctx, cancel := context.WithTimeout(r.ctx, lookupTimeout)
	defer cancel()
	addrs, rest, err := r.both(ctx, n.host)
	r.answered(n, addrs, err, rest != nil)
	if rest != nil {
		more, _ := rest()
		r.answered(n, merge(addrs, more), nil, false)
	}
}

// answered notes what a look-up told; more says that it goes on.
func (r *Resolver) answered(n *name, addrs []netip.Addr, err error, more bool) {
	r.mu.Lock()
	if !n.late {
		close(n.busy)
	}
	n.late = more
	if !more {
		n.busy = nil
	}
	ended := r.closed
	before, stale := n.err, len(n.addrs) > 0
	n.tried, n.err = time.Now(), err
	switch {
	case err == nil:
		n.addrs, n.found = addrs, n.tried
	case notFound(err):
		n.addrs = nil
	}
	r.mu.Unlock()
	switch {
	case ended:
	case err == nil && before != nil:
		r.log.Info("a name can be looked up again", "host", n.host)
	case err != nil && before == nil && stale && !notFound(err):
		r.log.Warn("a name cannot be looked up, its addresses of before are used", "host", n.host, "error", err)
	case err != nil && before == nil:
		r.log.Warn("a name cannot be looked up", "host", n.host, "error", err)
	}
}

// notFound reports whether a name server said that there is nothing.
func notFound(err error) bool {
	var e *net.DNSError
	return errors.As(err, &e) && e.IsNotFound
}
