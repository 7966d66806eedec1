package turn

import (
	"net"
	"net/netip"
	"sync"
)

// grants are the permissions and channels of one allocation, counted because
// pion/turn does not bound them.
type grants struct {
	mu          sync.Mutex
	permissions map[netip.Addr]struct{}
	channels    map[uint16]struct{}
}

func newGrants() *grants {
	return &grants{permissions: make(map[netip.Addr]struct{}), channels: make(map[uint16]struct{})}
}

// room reports whether a peer can have a permission, and be bound to a channel
// unless that is 0. What is there already is renewed.
func (g *grants) room(peer netip.Addr, channel uint16) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, ok := g.permissions[peer]; !ok && len(g.permissions) >= maxPermissions {
		return false
	}
	if _, ok := g.channels[channel]; !ok && channel != 0 && len(g.channels) >= maxChannels {
		return false
	}
	return true
}

func (g *grants) permission(ip net.IP, made bool) {
	peer, _ := netip.AddrFromSlice(ip)
	g.mu.Lock()
	defer g.mu.Unlock()
	if made {
		g.permissions[peer] = struct{}{}
	} else {
		delete(g.permissions, peer)
	}
}

func (g *grants) channel(number uint16, made bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if made {
		g.channels[number] = struct{}{}
	} else {
		delete(g.channels, number)
	}
}
