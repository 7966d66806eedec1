package meshtest

import "github.com/infrafabric/agentmesh/internal/virtual"

// NAT is how an agent's network translates addresses (RFC 4787 §4.1 and §5; the
// names are those of RFC 3489 §5).
type NAT uint8

const (
	// Open is no NAT: the agent has a public address.
	Open NAT = iota
	// FullCone maps a socket to one port and lets everybody in there.
	FullCone
	// AddressRestricted lets in only addresses that the socket has sent to.
	AddressRestricted
	// PortRestricted lets in only addresses and ports that it has sent to.
	PortRestricted
	// Symmetric maps a socket to another port for each destination, and lets in
	// only that. Behind it an agent meets another Symmetric or a PortRestricted
	// one by a relay only.
	Symmetric
)

// String returns the name of the NAT, such as "port-restricted".
func (n NAT) String() string { return n.virtual().String() }

func (n NAT) virtual() virtual.NAT { return virtual.NAT(n) }

// meets reports whether two agents behind such NATs find a direct path.
func (n NAT) meets(m NAT) bool {
	return (n != Symmetric || m < PortRestricted) && (m != Symmetric || n < PortRestricted)
}
