package mesh

import (
	"net/netip"
	"testing"
	"time"
)

// TestShortestCheck: one check that took long for another reason than the path does not
// make SCTP wait long for what is lost.
func TestShortestCheck(t *testing.T) {
	var r roundTrips
	one := pairAddrs{netip.MustParseAddrPort("10.0.0.2:5000"), netip.MustParseAddrPort("10.0.0.3:5000")}
	two := pairAddrs{netip.MustParseAddrPort("10.0.0.2:5000"), netip.MustParseAddrPort("10.0.0.4:5000")}
	for i, c := range []struct {
		pair      pairAddrs
		rtt, want time.Duration
	}{
		{one, 0, 0},
		{one, time.Second, time.Second},
		{one, 100 * time.Millisecond, 100 * time.Millisecond},
		{one, 2 * time.Second, 100 * time.Millisecond},
		{two, 3 * time.Second, 3 * time.Second},
		{two, 0, 3 * time.Second},
	} {
		if got := r.note(c.pair, c.rtt); got != c.want {
			t.Errorf("%d: %v, not %v", i, got, c.want)
		}
	}
}

// TestRTOMax: what is sent is not sent again before its acknowledgement can come, and not
// much later either.
func TestRTOMax(t *testing.T) {
	for rtt, want := range map[time.Duration]time.Duration{
		0:                      300 * time.Millisecond,
		50 * time.Millisecond:  300 * time.Millisecond,
		100 * time.Millisecond: 350 * time.Millisecond,
		2 * time.Second:        3200 * time.Millisecond,
		time.Minute:            10 * time.Second,
	} {
		if got := rtoMax(rtt); got != want {
			t.Errorf("%v: %v, not %v", rtt, got, want)
		}
	}
}
