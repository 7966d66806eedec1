package virtual

import (
	"errors"
	"fmt"

	"github.com/pion/transport/v5/vnet"
)

// ErrTooManyHosts is returned by [Net.Host] when there are MaxHosts already.
var ErrTooManyHosts = errors.New("virtual: too many hosts")

// UnknownNATError is returned by [Net.Host] for a NAT that is none of the
// constants.
type UnknownNATError struct{ NAT NAT }

// Error says which value it was.
func (e *UnknownNATError) Error() string { return "virtual: unknown " + e.NAT.String() }

// Host adds a host. An Open one has a public address of its own; any other is
// alone on a private network whose router has the public address and
// translates as nat says. No two hosts share an address, private or public.
//
// The errors are [ErrTooManyHosts], [*UnknownNATError] and, after Close, one
// matching [net.ErrClosed].
func (n *Net) Host(nat NAT) (*Host, error) {
	translation := nat.natType()
	if translation == nil && nat != Open {
		return nil, &UnknownNATError{nat}
	}

	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.closed:
		return nil, errClosed
	}
	h := &Host{net: n, nat: nat}
	if err := h.connect(); err != nil {
		return nil, err
	}
	return h, nil
}

// connect gives the host a place in the network with an address of its own;
// n.mu is held.
func (h *Host) connect() error {
	n := h.net
	if n.hosts == MaxHosts {
		return ErrTooManyHosts
	}
	i := n.hosts
	public := publicAddr(i)
	var at *vnet.Net
	var err error
	if h.nat == Open {
		at, err = n.attach(n.core, public)
	} else {
		at, err = n.attachBehind(h.nat.natType(), i, public)
	}
	if err != nil {
		return fmt.Errorf("virtual: host %d (%v): %w", i, h.nat, err)
	}
	n.hosts++
	n.faults.assign(h, public)
	h.at.Store(&place{at, public})
	return nil
}

// attach puts a host with the given address on a router's network.
func (n *Net) attach(r *vnet.Router, addr string) (*vnet.Net, error) {
	host, err := newHost(addr)
	if err != nil {
		return nil, err
	}
	return host, r.AddNet(host)
}

// attachBehind puts host i on a private network behind a router of its own.
// That router has no delay: the core's is the whole way.
func (n *Net) attachBehind(nat *vnet.NATType, i int, public string) (*vnet.Net, error) {
	lan := fmt.Sprintf("10.%d.%d.", i/256, i%256)
	router, err := newRouter(&vnet.RouterConfig{
		CIDR:      lan + "0/24",
		StaticIPs: []string{public},
		NATType:   nat,
	})
	if err != nil {
		return nil, err
	}
	host, err := n.attach(router, lan+"2")
	if err != nil {
		return nil, err
	}
	if err := n.core.AddRouter(router); err != nil {
		return nil, err
	}
	// The core is running and does not start routers added later.
	return host, router.Start()
}

// publicAddr is the public address of host i, between 1.2.16.1 and 1.2.55.250.
func publicAddr(i int) string {
	return fmt.Sprintf("1.2.%d.%d", 16+i/hostsPerOctet, 1+i%hostsPerOctet)
}
