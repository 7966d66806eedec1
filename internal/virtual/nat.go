package virtual

import (
	"fmt"

	"github.com/pion/transport/v5/vnet"
)

// NAT is how a host's network translates addresses, in the words of RFC 4787
// §4.1 (mapping) and §5 (filtering), with the older names of RFC 3489 §5.
type NAT uint8

const (
	// Open is no NAT: the host itself has a public address and receives from
	// everybody.
	Open NAT = iota
	// FullCone maps a socket to one port and lets everybody in there
	// (endpoint-independent mapping and filtering).
	FullCone
	// AddressRestricted maps a socket to one port and lets in only addresses
	// that the socket has sent to (endpoint-independent mapping,
	// address-dependent filtering).
	AddressRestricted
	// PortRestricted maps a socket to one port and lets in only address and port
	// pairs that the socket has sent to (endpoint-independent mapping, address
	// and port-dependent filtering).
	PortRestricted
	// Symmetric maps a socket to a new port for each destination and lets in
	// there only that destination (address and port-dependent mapping and
	// filtering). What STUN learns is of no use to a third party.
	Symmetric
)

// String returns the name of the NAT, such as "port-restricted".
func (n NAT) String() string {
	switch n {
	case Open:
		return "open"
	case FullCone:
		return "full-cone"
	case AddressRestricted:
		return "address-restricted"
	case PortRestricted:
		return "port-restricted"
	case Symmetric:
		return "symmetric"
	}
	return fmt.Sprintf("NAT(%d)", uint8(n))
}

// natType returns the translation of n, or nil for a NAT that has none.
func (n NAT) natType() *vnet.NATType {
	t := &vnet.NATType{
		MappingBehavior: vnet.EndpointIndependent,
		MappingLifeTime: mappingLifetime,
	}
	switch n {
	case FullCone:
		t.FilteringBehavior = vnet.EndpointIndependent
	case AddressRestricted:
		t.FilteringBehavior = vnet.EndpointAddrDependent
	case PortRestricted:
		t.FilteringBehavior = vnet.EndpointAddrPortDependent
	case Symmetric:
		t.MappingBehavior = vnet.EndpointAddrPortDependent
		t.FilteringBehavior = vnet.EndpointAddrPortDependent
	default:
		return nil
	}
	return t
}
