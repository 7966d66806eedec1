package mesh

import (
	"time"

	"golang.org/x/time/rate"

	"github.com/infrafabric/agentmesh/keys"
)

// failures bounds what envelopes with bad signatures cost: beyond a rate no
// more signatures are checked for the key they claim, by the way they came.
//
// They are charged to that way, a server, and never to the agent that they
// name: its envelopes by every other way are dealt with as ever. A server that
// is honest lets nobody send under a key that is not his, so there it is the
// offender's own; one that is not can drop envelopes in any case, and nothing
// else is gained by having them dropped here.
//
// It is pure but for the times it is given; the Node's dispatcher owns it.
type failures struct {
	most int // keys counted for each way
	ways map[string]*wayFailures
}

type wayFailures struct {
	all  *rate.Limiter
	keys map[keys.PublicKey]*rate.Limiter
}

func newFailures(most int) *failures { return &failures{most, map[string]*wayFailures{}} }

// full reports whether a signature of that key is not to be checked now.
func (f *failures) full(now time.Time, via string, key keys.PublicKey) bool {
	w := f.ways[via]
	if w == nil {
		return false
	}
	l := w.keys[key]
	return w.all.TokensAt(now) < 1 || l != nil && l.TokensAt(now) < 1
}

// charge counts one failure.
func (f *failures) charge(now time.Time, via string, key keys.PublicKey) {
	w := f.ways[via]
	if w == nil {
		w = &wayFailures{rate.NewLimiter(wayFailuresPerSecond, 2*wayFailuresPerSecond), map[keys.PublicKey]*rate.Limiter{}}
		f.ways[via] = w
	}
	w.all.AllowN(now, 1)
	l := w.keys[key]
	if l == nil {
		if len(w.keys) >= f.most {
			// Each key begins anew; what they fail together stays bounded.
			clear(w.keys)
		}
		l = rate.NewLimiter(keyFailuresPerSecond, 2*keyFailuresPerSecond)
		w.keys[key] = l
	}
	l.AllowN(now, 1)
}
