package mesh

import (
	"slices"
	"time"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
)

// verdictReplay is what the memory of envelopes says.
type verdictReplay uint8

const (
	replayNew       verdictReplay = iota // not seen
	replayDuplicate                      // the same bytes, by another way
	replayReused                         // other bytes with a nonce that was used
	replayFull                           // too many from that key
)

// replayMemory remembers verified envelopes by key and nonce until they would
// be refused as stale. It is pure but for the times it is given; the Node's
// dispatcher owns it.
type replayMemory struct {
	keys map[keys.PublicKey]*nonces
}

type nonces struct {
	seen  map[[16]byte]signaling.Hash
	until []nonceEnd // in the order of arrival
}

type nonceEnd struct {
	nonce [16]byte
	at    time.Time // of the world: when the envelope is stale
}

func newReplayMemory() *replayMemory {
	return &replayMemory{keys: map[keys.PublicKey]*nonces{}}
}

// seen judges an envelope without remembering it.
func (r *replayMemory) seen(key keys.PublicKey, nonce [16]byte, hash signaling.Hash) verdictReplay {
	n := r.keys[key]
	if n == nil {
		return replayNew
	}
	switch h, ok := n.seen[nonce]; {
	case !ok:
		return replayNew
	case h == hash:
		return replayDuplicate
	}
	return replayReused
}

// remember judges a verified envelope and remembers it if it is new.
func (r *replayMemory) remember(now time.Time, key keys.PublicKey, nonce [16]byte, hash signaling.Hash, written time.Time) verdictReplay {
	r.expire(now, key)
	if v := r.seen(key, nonce, hash); v != replayNew {
		return v
	}
	n := r.keys[key]
	if n == nil {
		if len(r.keys) >= maxNonceKeys {
			for k := range r.keys {
				r.sweep(now, k)
			}
			if len(r.keys) >= maxNonceKeys {
				return replayFull
			}
		}
		n = &nonces{seen: map[[16]byte]signaling.Hash{}}
		r.keys[key] = n
	}
	if len(n.seen) >= maxNonces {
		if r.sweep(now, key); len(n.seen) >= maxNonces {
			return replayFull
		}
		r.keys[key] = n
	}
	n.seen[nonce] = hash
	// Its time lies at most a window from now, so it is fresh for at most two.
	n.until = append(n.until, nonceEnd{nonce, written.Add(freshness)})
	return replayNew
}

// sweep makes room: it forgets what would be refused by its time now, whatever its
// place. That is what came while the clock was ahead, too, which would keep what is
// behind it for as long as it was. It may become fresh once more; then it begins a
// negotiation that nobody goes on with.
func (r *replayMemory) sweep(now time.Time, key keys.PublicKey) {
	n := r.keys[key]
	if n == nil {
		return
	}
	n.until = slices.DeleteFunc(n.until, func(e nonceEnd) bool {
		gone := now.After(e.at) || e.at.After(now.Add(2*freshness))
		if gone {
			delete(n.seen, e.nonce)
		}
		return gone
	})
	if len(n.until) == 0 {
		delete(r.keys, key)
	}
}

// expire forgets what is stale by now. Arrival order is nearly the order of
// times; an entry behind a later one waits for it, at most one window longer.
func (r *replayMemory) expire(now time.Time, key keys.PublicKey) {
	n := r.keys[key]
	if n == nil {
		return
	}
	i := 0
	for i < len(n.until) && now.After(n.until[i].at) {
		delete(n.seen, n.until[i].nonce)
		i++
	}
	n.until = n.until[i:]
	if len(n.until) == 0 {
		delete(r.keys, key)
	}
}

// knows reports whether a fresh envelope of the key is remembered.
func (r *replayMemory) knows(key keys.PublicKey) bool { return r.keys[key] != nil }

// forget lets go of an envelope, which may then come again.
func (r *replayMemory) forget(key keys.PublicKey, nonce [16]byte) {
	if n := r.keys[key]; n != nil {
		delete(n.seen, nonce)
	}
}
