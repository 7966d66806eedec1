package turn

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// answerRate bounds the answers to requests that are not authenticated: whoever
// forges the source of requests makes the server write to somebody else. Memory
// is fixed, so that forged sources cannot use it up.
type answerRate struct {
	seed      maphash.Seed
	perSecond float64
	start     time.Time

	mu      sync.Mutex
	buckets [maxSources]bucket
}

// bucket holds tokens, one per answer; the zero value is full.
type bucket struct {
	spent float64       // tokens missing at the time
	at    time.Duration // since start
}

func newAnswerRate(perSecond int) *answerRate {
	return &answerRate{seed: maphash.MakeSeed(), perSecond: float64(perSecond), start: time.Now()}
}

// allow takes a token for an answer to a.
func (r *answerRate) allow(a netip.Addr, now time.Time) bool {
	if a.Is6() {
		p, _ := a.WithZone("").Prefix(64) // one host's, or one home's (RFC 6177)
		a = p.Addr()
	}
	b := &r.buckets[maphash.Comparable(r.seed, a)%maxSources]
	r.mu.Lock()
	defer r.mu.Unlock()
	if at := now.Sub(r.start); at > b.at {
		b.spent = max(0, b.spent-(at-b.at).Seconds()*r.perSecond)
		b.at = at
	}
	if b.spent+1 > r.perSecond {
		return false
	}
	b.spent++
	return true
}
