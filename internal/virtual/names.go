package virtual

import (
	"context"
	"net"
	"net/netip"
)

// LookupNetIP finds nothing: there are no names. Without it whoever looks one up for a
// host would ask the operating system, which takes real time. A test that wants names
// wraps the host.
func (h *Host) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}
