package turn

import (
	"net/netip"
	"slices"
)

// reserved are the addresses that are no peers by default: behind the relay they
// are other machines than in front of it, or nobody's. Without this, whoever has
// a credential reaches the relay's own network through it (RFC 8656 §21
// leaves it to the server), up to the services that hand a cloud's machines
// their credentials.
var reserved = prefixes(
	// IPv4, from IANA's registry of special-purpose addresses (RFC 6890).
	"0.0.0.0/8",        // this network
	"10.0.0.0/8",       // private
	"100.64.0.0/10",    // carriers' NAT; metadata at 100.100.100.200 (Alibaba)
	"127.0.0.0/8",      // loopback
	"168.63.129.16/32", // metadata (Azure), an address like any other otherwise
	"169.254.0.0/16",   // link-local; metadata at 169.254.169.254 (AWS, GCP, Azure) and others
	"172.16.0.0/12",    // private
	"192.0.0.0/24",     // protocol assignments; metadata at 192.0.0.192 (Oracle)
	"192.0.2.0/24",     // documentation
	"192.88.99.0/24",   // 6to4 relays, gone
	"192.168.0.0/16",   // private
	"198.18.0.0/15",    // benchmarks
	"198.51.100.0/24",  // documentation
	"203.0.113.0/24",   // documentation
	"224.0.0.0/4",      // multicast
	"240.0.0.0/4",      // reserved; broadcast
	// IPv6 within 2000::/3, which alone is unicast of the internet (RFC 4291
	// §2.4): what is outside it is loopback, unspecified, IPv4-compatible, NAT64,
	// unique local (metadata at fd00:ec2::254), link-local, multicast or nothing.
	"2001::/23",     // protocol assignments: Teredo, benchmarks, ORCHID
	"2001:db8::/32", // documentation
	"2002::/16",     // 6to4
	"3fff::/20",     // documentation (RFC 9637)
)

var globalUnicast6 = netip.MustParsePrefix("2000::/3")

func prefixes(texts ...string) []netip.Prefix {
	var p []netip.Prefix
	for _, t := range texts {
		p = append(p, netip.MustParsePrefix(t))
	}
	return p
}

// grant is what a peer address may be used for.
type grant int

const (
	refused    grant = iota
	relaysOnly       // only as another allocation of this server
	granted
)

// peerPolicy says who may be a peer. It does not change.
type peerPolicy struct {
	allow, deny []netip.Prefix
	own         map[netip.Addr]bool // addresses of this host
}

// judge decides about an address as it came from a client. An address of this
// host can only be another allocation, unless it was allowed by name: two agents
// that use the same relay meet there, and its other services are not for them,
// least of all those that trust what comes from their own machine.
func (p *peerPolicy) judge(a netip.Addr) grant {
	switch {
	case !a.IsValid() || a.Zone() != "" || a.Is4In6():
		return refused // an IPv4 address has a form of its own; two are for evasion
	case contains(p.deny, a):
		return refused
	case slices.ContainsFunc(embedded(a), func(e netip.Addr) bool { return p.judge(e) != granted }):
		return refused
	case contains(p.allow, a):
		return granted
	case contains(reserved, a) || a.Is6() && !globalUnicast6.Contains(a):
		return refused
	case p.own[a]:
		return relaysOnly
	}
	return granted
}

func contains(list []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
}

var (
	nat64  = prefixes("64:ff9b::/96") // RFC 6052 §2.1
	sixTo4 = prefixes("2002::/16")    // RFC 3056 §2
	teredo = prefixes("2001::/32")    // RFC 4380 §4
)

// embedded returns the IPv4 addresses to which an IPv6 address may lead.
func embedded(a netip.Addr) []netip.Addr {
	if !a.Is6() {
		return nil
	}
	b := a.As16()
	switch {
	case contains(nat64, a):
		return []netip.Addr{netip.AddrFrom4([4]byte(b[12:]))}
	case contains(sixTo4, a):
		return []netip.Addr{netip.AddrFrom4([4]byte(b[2:]))}
	case contains(teredo, a): // the server's, and the client's with all bits inverted
		return []netip.Addr{netip.AddrFrom4([4]byte(b[4:])), netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]})}
	}
	return nil
}

// newPeerPolicy asks the network for the addresses of this host. The broadcast
// addresses of its networks are denied: one datagram there is many.
func newPeerPolicy(c ServerConfig) (*peerPolicy, error) {
	p := &peerPolicy{allow: c.AllowPeers, deny: c.DenyPeers, own: make(map[netip.Addr]bool)}
	for _, r := range c.RelayIPs {
		p.own[r.Public], p.own[r.Bind] = true, true
	}
	interfaces, err := c.Net.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil {
			continue // an interface without addresses
		}
		for _, a := range addrs {
			prefix, err := netip.ParsePrefix(a.String())
			if err != nil {
				continue
			}
			own := prefix.Addr().Unmap()
			p.own[own] = true
			if own.Is4() && prefix.Bits() < 31 {
				p.deny = append(p.deny, netip.PrefixFrom(broadcast(prefix), 32))
			}
		}
	}
	return p, nil
}

// broadcast is the last address of an IPv4 network.
func broadcast(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	host := ^uint32(0) >> p.Bits()
	for i := range b {
		b[i] |= byte(host >> (24 - 8*i))
	}
	return netip.AddrFrom4(b)
}
