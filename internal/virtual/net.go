package virtual

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/pion/logging"
	"github.com/pion/transport/v5/vnet"
	"github.com/pion/turn/v5"
)

// coreCIDR holds every public address.
const coreCIDR = "1.2.0.0/16"

// Config says what the network is like. The zero value is a network without
// delay and without a STUN server.
type Config struct {
	// RTT is the round trip time between any two hosts, and between a host and
	// the STUN server: each datagram takes RTT/2. Zero is no delay. It must be
	// an even number of nanoseconds, so that its half is exact, and not
	// negative.
	RTT time.Duration

	// STUN adds a STUN server, at [Net.STUNServer].
	STUN bool
}

func (c Config) validate() error {
	switch {
	case c.RTT < 0:
		return fmt.Errorf("virtual: Config.RTT: %v is negative", c.RTT)
	case c.RTT%2 != 0:
		return fmt.Errorf("virtual: Config.RTT: half of %v is not a whole number of nanoseconds", c.RTT)
	}
	return nil
}

// Net is a virtual network. Its methods may be called from any goroutine of the
// bubble in which it was made.
type Net struct {
	rtt     time.Duration
	core    *vnet.Router
	stun    *turn.Server // nil without Config.STUN
	wire    wire
	backlog backlog

	mu        sync.Mutex // guards what follows
	hosts     []*Host
	relays    []*Relay
	addresses int // handed out so far
	closed    bool
}

// New starts a network. It fails the test when cfg is invalid, and closes the
// network when the test, or the bubble it is called in, ends.
func New(tb testing.TB, cfg Config) *Net {
	tb.Helper()
	n, err := start(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := n.Close(); err != nil {
			tb.Error(err)
		}
	})
	return n
}

func start(cfg Config) (_ *Net, err error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	core, err := newRouter(&vnet.RouterConfig{CIDR: coreCIDR, MinDelay: cfg.RTT / 2})
	if err != nil {
		return nil, fmt.Errorf("virtual: core: %w", err)
	}
	n := &Net{
		rtt: cfg.RTT, core: core,
		wire: wire{
			hosts: map[ip4]*Host{}, names: map[string]netip.Addr{}, blocked: map[lane]struct{}{},
			lossy: map[lane]*chance{}, mtu: map[lane]int{}, flows: map[lane]*flows{},
		},
		backlog: backlog{lanes: map[lane]*pending{}},
	}
	core.AddChunkFilter(n.wire.keep)
	if err := core.Start(); err != nil {
		return nil, fmt.Errorf("virtual: core: %w", err)
	}
	if cfg.STUN {
		if n.stun, err = n.serveSTUN(); err != nil {
			return nil, errors.Join(fmt.Errorf("virtual: STUN server: %w", err), core.Stop())
		}
	}
	return n, nil
}

// Close stops the routers, the STUN server and the relays. Datagrams under way
// are lost, sockets of hosts stay open but reach nobody, and Host, Move, Relay
// and Start fail from now on with an error matching [net.ErrClosed]. It may be
// called more than once.
func (n *Net) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil
	}
	n.closed = true
	n.backlog.close()
	var errs []error
	if n.stun != nil {
		errs = append(errs, n.stun.Close())
	}
	for _, r := range n.relays {
		if r.server != nil {
			errs = append(errs, r.server.Close())
			r.server = nil
		}
	}
	for _, h := range n.hosts {
		errs = append(errs, h.at.stop())
	}
	errs = append(errs, n.core.Stop())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("virtual: close: %w", err)
	}
	return nil
}

// errClosed is what a closed Net returns.
var errClosed = fmt.Errorf("virtual: network: %w", net.ErrClosed)

// making serialises the making of routers and hosts: vnet numbers hardware
// addresses with a counter that it does not guard, which tests running in
// parallel would race on.
var making sync.Mutex

func newRouter(cfg *vnet.RouterConfig) (*vnet.Router, error) {
	making.Lock()
	defer making.Unlock()
	// A NAT that refuses a datagram warns in the log. Here that is the point, and
	// a test prints nothing.
	cfg.LoggerFactory = silent()
	return vnet.NewRouter(cfg)
}

func newStack(addr string) (*vnet.Net, error) {
	making.Lock()
	defer making.Unlock()
	return vnet.NewNet(&vnet.NetConfig{StaticIPs: []string{addr}})
}

// silent is the log of everything in the network.
func silent() logging.LoggerFactory {
	return &logging.DefaultLoggerFactory{Writer: io.Discard, DefaultLogLevel: logging.LogLevelDisabled}
}
