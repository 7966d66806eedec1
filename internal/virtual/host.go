package virtual

import (
	"errors"
	"fmt"
	"time"

	"github.com/pion/transport/v5/vnet"
)

var (
	// ErrTooManyHosts is returned by [Net.Host] and [Net.Relay] when there are
	// MaxHosts already.
	ErrTooManyHosts = errors.New("virtual: too many hosts")
	// ErrNoAddress is returned by [Net.Host], [Net.Relay] and [Host.Move] when the
	// network has handed out all its public addresses.
	ErrNoAddress = errors.New("virtual: no address left")
	// ErrFixed is returned by [Host.Move] for the host of a relay.
	ErrFixed = errors.New("virtual: a server does not move")
)

// UnknownNATError is returned by [Net.Host] for a NAT that is none of the
// constants.
type UnknownNATError struct{ NAT NAT }

// Error says which value it was.
func (e *UnknownNATError) Error() string { return "virtual: unknown " + e.NAT.String() }

// Host is a machine on the network. It is a [transport.Net], and what can go
// wrong with a machine's network are its methods. They may be called from any
// goroutine of the bubble, at any time.
type Host struct {
	net   *Net
	nat   NAT
	fixed bool // others know its address

	// Guarded by net.wire.mu; at is written under net.mu as well.
	at    *attachment
	off   off
	loss  chance
	mtu   int    // 0 without a limit
	flows *flows // nil without a limit

	openError error         // of what opens a socket
	mute      chan struct{} // closed when name servers answer again; nil while they do

	// The same, for route.
	extra    time.Duration
	up, down throttle
	twice    chance
	late     lateness
	odd      bool // one of these is there
}

// attachment is one place on the network at which a host has been.
type attachment struct {
	stack  *vnet.Net    // the sockets
	router *vnet.Router // the NAT; nil if Open
	public string       // address
	gone   bool         // guarded by wire.mu: the host is no longer there
}

// Host adds a host. An Open one has a public address of its own; any other is
// alone on a private network whose router has the public address and
// translates as nat says. No two hosts share an address, private or public.
//
// The errors are [ErrTooManyHosts], [ErrNoAddress], [*UnknownNATError] and, after
// Close, one matching [net.ErrClosed].
func (n *Net) Host(nat NAT) (*Host, error) {
	if nat != Open && nat.natType() == nil {
		return nil, &UnknownNATError{nat}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.addHost(&Host{net: n, nat: nat})
}

// addHost attaches a new host; n.mu is held.
func (n *Net) addHost(h *Host) (*Host, error) {
	switch {
	case n.closed:
		return nil, errClosed
	case len(n.hosts) == MaxHosts:
		return nil, ErrTooManyHosts
	}
	at, err := n.attach(h.nat)
	if err != nil {
		return nil, err
	}
	n.wire.move(h, at)
	n.hosts = append(n.hosts, h)
	return h, nil
}

// Addr is the public address of the host at present, such as "1.2.16.1": its own
// or its router's.
func (h *Host) Addr() string { return h.attached().public }

// Move gives the host another public address, as when it changes from one mobile
// network or NAT to another of the same kind; behind a NAT its private address
// is new as well. Interfaces shows the new one only. Sockets that are open stay
// so, but what they send is lost, nothing reaches them, and what is under way
// to or from them is lost too. Blocks, loss, delay and a pulled cable go with the
// host.
//
// The errors are [ErrNoAddress], [ErrFixed] for a relay and, after Close, one
// matching [net.ErrClosed]. The host then stays where it is.
func (h *Host) Move() error {
	n := h.net
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.closed:
		return errClosed
	case h.fixed:
		return ErrFixed
	}
	to, err := n.attach(h.nat)
	if err != nil {
		return err
	}
	old := h.at
	n.wire.move(h, to)
	// The address that is gone stays on its interface and with the core: vnet does
	// not guard an interface against a socket that reads it. The wire lets nothing
	// pass to or from it.
	return old.stop()
}

// stop ends the NAT of an attachment, if it has one.
func (a *attachment) stop() error {
	if a.router == nil {
		return nil
	}
	if err := a.router.Stop(); err != nil {
		return fmt.Errorf("virtual: router of %s: %w", a.public, err)
	}
	return nil
}

// attach makes a place for a host at the next address; n.mu is held.
func (n *Net) attach(nat NAT) (*attachment, error) {
	i := n.addresses
	if i == maxAddresses {
		return nil, ErrNoAddress
	}
	var at *attachment
	var err error
	if nat == Open {
		at, err = n.attachAt(publicAddr(i))
	} else {
		at, err = n.attachBehind(nat, i)
	}
	if err != nil {
		return nil, err
	}
	n.addresses++
	return at, nil
}

// attachAt puts a host with a public address on the core. If another has it, the
// new one takes it over.
func (n *Net) attachAt(public string) (*attachment, error) {
	stack, err := newStack(public)
	if err == nil {
		err = n.core.AddNet(stack)
	}
	if err != nil {
		return nil, fmt.Errorf("virtual: host at %s: %w", public, err)
	}
	return &attachment{stack: stack, public: public}, nil
}

// attachBehind puts a host on a private network behind a router of its own. That
// router has no delay: the core's is the whole way.
func (n *Net) attachBehind(nat NAT, i int) (*attachment, error) {
	lan, public := fmt.Sprintf("10.%d.%d.", i/256, i%256), publicAddr(i)
	router, err := newRouter(&vnet.RouterConfig{
		CIDR:      lan + "0/24",
		StaticIPs: []string{public},
		NATType:   nat.natType(),
	})
	if err != nil {
		return nil, fmt.Errorf("virtual: router of %s: %w", public, err)
	}
	stack, err := newStack(lan + "2")
	if err == nil {
		err = router.AddNet(stack)
	}
	// AddNet and not AddRouter: the core would stop its children once more, which
	// fails for those that a move has stopped.
	if err == nil {
		err = n.core.AddNet(router)
	}
	if err == nil {
		err = router.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("virtual: host behind %s: %w", public, err)
	}
	return &attachment{stack: stack, router: router, public: public}, nil
}

// publicAddr is public address i, between 1.2.16.1 and 1.2.255.250.
func publicAddr(i int) string {
	return fmt.Sprintf("1.2.%d.%d", 16+i/hostsPerOctet, 1+i%hostsPerOctet)
}
