package mesh

import (
	"net/netip"
	"reflect"
	"sync"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/stun/v4"
	"github.com/pion/webrtc/v4"
)

const (
	// rtoLeast is the least of SCTP's longest retransmission timeout: a partition
	// that heals resumes within it. On a longer path it is more, see rtoMax.
	rtoLeast = 300 * time.Millisecond
	rtoMost  = 10 * time.Second
	// sackDelay is how long SCTP may keep an acknowledgement back (RFC 9260 §6.2).
	sackDelay = 200 * time.Millisecond
)

// rtoMax is SCTP's longest retransmission timeout on a path of that round trip. A
// shorter one sends everything twice.
func rtoMax(rtt time.Duration) time.Duration {
	return min(max(rtt+rtt/2+sackDelay, rtoLeast), rtoMost)
}

// setRTOMax sets it for an association that has not begun. pion reads it from the
// settings then, but hands them out to nobody: all it offers is to set them before
// there is a path, and before the round trip is known. Where it keeps them elsewhere
// nothing is set, and rtoLeast counts.
func setRTOMax(api *webrtc.API, d time.Duration) {
	f := reflect.ValueOf(api).Elem().FieldByName("settingEngine")
	if f.IsValid() && f.Type() == reflect.TypeFor[*webrtc.SettingEngine]() {
		(*webrtc.SettingEngine)(f.UnsafePointer()).SetSCTPRTOMax(d)
	}
}

// roundTrips are the shortest of the checks of a connection's pairs. pion keeps the last
// ones, and those may be long for no reason of the path: while a relay is asked for a
// permission, which may have to be repeated, nothing is sent and no answer is looked at.
type roundTrips struct {
	mu    sync.Mutex
	least map[pairAddrs]time.Duration
}

type pairAddrs struct{ local, remote netip.AddrPort }

// heard is called for each check of the other side: the last of this side's may have
// been answered. It switches no pair.
func (r *roundTrips) heard(_ *stun.Message, local, remote ice.Candidate, pair *ice.CandidatePair) bool {
	r.note(pairAddrs{addrPort(local.Address(), local.Port()), addrPort(remote.Address(), remote.Port())}, seconds(pair.CurrentRoundTripTime()))
	return false
}

// note takes the round trip of a pair's last check, zero before the first, and returns
// the shortest.
func (r *roundTrips) note(p pairAddrs, rtt time.Duration) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	was, ok := r.least[p]
	if rtt <= 0 || ok && was <= rtt {
		return was
	}
	if r.least == nil {
		r.least = map[pairAddrs]time.Duration{}
	}
	r.least[p] = rtt
	return rtt
}

// selected returns that of the pair that a connection has selected.
func (r *roundTrips) selected(t *webrtc.ICETransport) time.Duration {
	s, _ := t.GetSelectedCandidatePairStats()
	p, err := t.GetSelectedCandidatePair()
	if err != nil || p == nil {
		return seconds(s.CurrentRoundTripTime)
	}
	return r.note(pairAddrs{addrPort(p.Local.Address, int(p.Local.Port)), addrPort(p.Remote.Address, int(p.Remote.Port))}, seconds(s.CurrentRoundTripTime))
}

func addrPort(address string, port int) netip.AddrPort {
	a, _ := netip.ParseAddr(address)
	return netip.AddrPortFrom(a, uint16(port))
}
