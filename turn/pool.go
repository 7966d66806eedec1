package turn

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/infrafabric/agentmesh/internal/resolve"
	"github.com/infrafabric/agentmesh/internal/wallclock"
	"github.com/infrafabric/agentmesh/metrics"
	"github.com/infrafabric/agentmesh/witness"
)

// Pool knows which TURN servers work, and which of them is fastest, because it
// probes them; the package comment says when and how. It is a mesh.Relays.
//
// All methods may be called concurrently, and none of them from a Logger's handler
// except Rank, Changed, Doubt and Status; Close not from a Recorder or Credentials.
type Pool struct {
	cfg PoolConfig
	ins *metrics.Instruments

	began  time.Time
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	once   sync.Once
	wg     sync.WaitGroup // the loop, probes and fetches
	ops    chan func()    // what the loop does for others
	prober prober
	events chan witness.Event // for the Recorder
	wake   chan struct{}      // there are doubts; holds one

	mu     sync.Mutex
	view   view
	doubts map[string]struct{} // URLs in full; of endpoints in view only

	loop loopState
}

// view is what the loop last published.
type view struct {
	relays  []Relay
	status  []Status
	urls    map[string]bool
	settled bool          // no endpoint waits for its first credential
	changed chan struct{} // closed when the relays change, or settled does; nil after Close
}

// NewPool validates cfg and begins to probe in the background. Close ends what it
// started. An invalid field is a [*ConfigError]; two endpoints of one URL match
// [ErrDuplicate], too many [ErrTooMany].
func NewPool(cfg PoolConfig) (*Pool, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("turn: pool: %w", err)
	}
	ins, err := metrics.New(cfg.MeterProvider)
	if err != nil {
		return nil, fmt.Errorf("turn: pool: %w", err)
	}
	p := &Pool{
		cfg:    cfg,
		ins:    ins,
		began:  time.Now(),
		ops:    make(chan func()),
		wake:   make(chan struct{}, 1),
		events: make(chan witness.Event, maxEvents),
		doubts: map[string]struct{}{},
		view:   view{changed: make(chan struct{})},
	}
	for i, e := range cfg.Endpoints {
		if err := p.add(e); err != nil {
			return nil, fmt.Errorf("turn: pool: PoolConfig.Endpoints[%d]: %w", i, err)
		}
	}
	p.prober = prober{cfg.Net, resolve.New(resolve.Config{Lookup: resolve.Of(cfg.Net), Logger: cfg.Logger}), cfg.Time}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	for _, m := range p.loop.members {
		p.appeared(m)
	}
	p.publish(p.now())
	p.loop.results = make(chan func(instant))
	p.wg.Go(p.run)
	p.wg.Go(p.tell)
	p.wg.Go(func() { wallclock.Watch(p.ctx, cfg.Time, clockTick, p.parted) })
	return p, nil
}

// Rank returns the relays to use now, the best first: the healthy ones by latency,
// then those that no probe has judged yet, as configured. The unhealthy ones follow,
// with Relay.Down set, for a verdict may be wrong, or out of date by a second, and
// nobody is to be cut off by one: first those that are silent, the one that was
// healthy last at the head, then those that refuse. Those without a valid
// credential are never among them.
//
// It blocks only for first credentials, at most until ctx ends: while there is
// nothing to return, and in the first tenth of a second of the Pool, so that those
// that need no time are all there. After Close it returns nothing.
func (p *Pool) Rank(ctx context.Context) []Relay {
	for {
		p.mu.Lock()
		v := p.view
		p.mu.Unlock()
		now := p.now()
		var out []Relay
		for _, r := range v.relays {
			if r.Expires.IsZero() || r.Expires.After(now.wall) {
				out = append(out, r)
			}
		}
		if v.settled || v.changed == nil {
			return out
		}
		var enough <-chan time.Time // never
		if len(out) > 0 {
			left := firstWait - now.mono.Sub(p.began)
			if left <= 0 {
				return out
			}
			enough = time.After(left)
		}
		select {
		case <-v.changed:
		case <-enough:
			return out
		case <-ctx.Done():
			return out
		}
	}
}

// Changed returns a channel that is closed when Rank may answer otherwise than
// now: another order, another health, an endpoint more or less, new credentials. To
// miss nothing call it before Rank. After Close it is nil.
func (p *Pool) Changed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.view.changed
}

// Doubt tells that a path over r went silent. The endpoint is probed at once, or a
// second after the last probe that a doubt caused; if the probe fails, it is
// unhealthy without further ado. It never blocks. A relay that is none of the
// Pool's is ignored; its credential does not matter.
func (p *Pool) Doubt(r Relay) {
	a, err := parseAddress(r.URL)
	if err != nil {
		return
	}
	p.mu.Lock()
	known := p.view.urls[a.url]
	if known {
		p.doubts[a.url] = struct{}{}
	}
	p.mu.Unlock()
	if known {
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
}

// Add adds an endpoint, which comes last until it is probed. The error is a
// [*ConfigError], or matches [ErrDuplicate], [ErrTooMany] or [net.ErrClosed].
func (p *Pool) Add(e Endpoint) error {
	err := p.do(func() error {
		if err := p.add(e); err != nil {
			return err
		}
		p.appeared(p.loop.members[len(p.loop.members)-1])
		return nil
	})
	if err != nil {
		return fmt.Errorf("turn: add: %w", err)
	}
	return nil
}

// Remove removes the endpoint of this URL. Sessions over it live on until their owner
// moves them, as mesh does within seconds. The error
// matches [ErrUnknown] or [net.ErrClosed].
func (p *Pool) Remove(url string) error {
	a, err := parseAddress(url)
	if err == nil {
		err = p.do(func() error { return p.remove(a.url) })
	} else if err = ErrUnknown; p.ctx.Err() != nil {
		err = net.ErrClosed
	}
	if err != nil {
		return fmt.Errorf("turn: remove: %w", err)
	}
	return nil
}

// do runs f in the loop.
func (p *Pool) do(f func() error) error {
	done := make(chan error, 1)
	select {
	case p.ops <- func() {
		err := f()
		p.chosen()
		p.publish(p.now())
		done <- err
	}:
	case <-p.ctx.Done():
		return net.ErrClosed
	}
	select {
	case err := <-done:
		return err
	case <-p.ctx.Done():
		return net.ErrClosed
	}
}

// Status returns what the Pool thinks of each endpoint, in the order in which they
// were added. After Close it is what it thought at the end.
func (p *Pool) Status() []Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]Status(nil), p.view.status...)
}

// Close ends the probes and waits for the Pool's goroutines. It always returns
// nil, and may be called more than once. It takes as long as a function of
// Credentials that does not heed its context, or a Recorder that blocks.
func (p *Pool) Close() error {
	p.once.Do(p.cancel)
	p.wg.Wait()
	return p.prober.names.Close()
}

// now is the present by both clocks.
func (p *Pool) now() instant { return instant{time.Now(), p.cfg.Time().Round(0)} }

// add is Add in the loop, or before it runs.
func (p *Pool) add(e Endpoint) error {
	a, err := e.validate()
	switch {
	case err != nil:
		return err
	case p.loop.find(a.url) != nil:
		return ErrDuplicate
	case len(p.loop.members) >= MaxEndpoints:
		return ErrTooMany
	}
	p.loop.serial++
	m := &member{Endpoint: e, address: a, serial: p.loop.serial}
	m.breaker.health, m.breaker.since = Unprobed, time.Now()
	m.renewal.due = m.breaker.since
	p.loop.members = append(p.loop.members, m)
	return nil
}

// remove is Remove in the loop.
func (p *Pool) remove(url string) error {
	m := p.loop.find(url)
	if m == nil {
		return ErrUnknown
	}
	p.loop.drop(m)
	if m.cancel != nil {
		m.cancel(errRemoved)
	}
	p.vanished(m)
	return nil
}

var (
	errRemoved = errors.New("the endpoint was removed")
	errDoubted = errors.New("a probe for a doubt takes its place")
)
