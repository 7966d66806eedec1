package signaling

import (
	"crypto/rand"
	"encoding/hex"
)

// Hash is the SHA-256 of a sealed envelope. The zero value means none.
type Hash [32]byte

// String returns the hash in hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// IsZero reports whether h is the zero value.
func (h Hash) IsZero() bool { return h == Hash{} }

// Instance identifies one running node: an agent that restarts has a new one.
// The zero value means none.
type Instance [16]byte

// NewInstance returns a random instance.
func NewInstance() Instance {
	var i Instance
	rand.Read(i[:]) // never fails
	return i
}

// String returns the instance in hexadecimal.
func (i Instance) String() string { return hex.EncodeToString(i[:]) }

// IsZero reports whether i is the zero value.
func (i Instance) IsZero() bool { return i == Instance{} }

// Nonce makes every envelope different. The zero value means none.
type Nonce [16]byte

// IsZero reports whether n is the zero value.
func (n Nonce) IsZero() bool { return n == Nonce{} }

// Kind is what an envelope carries.
type Kind uint8

// The kinds of envelopes.
const (
	Offer     Kind = 1 // asks for a session
	Answer    Kind = 2 // agrees to the offer that Ref names
	Candidate Kind = 3 // a further address for the session of the offer that Ref names
	Reject    Kind = 4 // declines the offer, or the ask, that Ref names
	Ask       Kind = 5 // asks the recipient for an offer of a generation above its own
)

// String returns "offer", "answer", "candidate", "reject" or "ask".
func (k Kind) String() string {
	switch k {
	case Offer:
		return "offer"
	case Answer:
		return "answer"
	case Candidate:
		return "candidate"
	case Reject:
		return "reject"
	case Ask:
		return "ask"
	}
	return "unknown"
}

// first reports whether an envelope of this kind begins something and so refers
// to no other.
func (k Kind) first() bool { return k == Offer || k == Ask }
