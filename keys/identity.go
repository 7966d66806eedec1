package keys

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

var (
	// ErrSigner means that a crypto.Signer is not usable: it is nil, its public key is not an
	// acceptable Ed25519 key, or its signature does not verify.
	ErrSigner = errors.New("unusable signer")

	// ErrNotExportable means that an identity's private key is held by a crypto.Signer outside
	// this process and so cannot be saved.
	ErrNotExportable = errors.New("private key cannot be exported")
)

// Identity is an agent ID with the Ed25519 key that speaks for it. It is immutable and safe for
// concurrent use, provided that a signer given to [NewIdentity] is. Identities cannot be compared with
// ==; compare ID and PublicKey. The zero value has no key and cannot sign.
//
// No way of printing, logging or encoding an Identity shows its private key; Save alone writes it.
type Identity struct {
	id     string
	public PublicKey

	// The private key is known to these functions only. As a field, even behind a pointer, it would be
	// printed by fmt with a verb such as %s whenever an Identity is an unexported field of somebody's
	// struct, where fmt may not call methods. Functions also keep == from compiling, which on a private
	// key would not take constant time.
	sign   func(message []byte) ([]byte, error) // nil in the zero value
	export func() (der []byte, err error)       // PKCS #8; nil when the key is held elsewhere
}

// Generate returns an identity with a new random key. The error is a [*NameError] when id is not an
// agent ID ([CheckAgentID]).
func Generate(id string) (*Identity, error) {
	const op = "generate identity"
	if err := CheckAgentID(id); err != nil {
		return nil, wrap(op, err)
	}
	seed := make([]byte, ed25519.SeedSize)
	defer clear(seed)
	rand.Read(seed) // never fails
	i, err := newIdentity(id, ed25519.NewKeyFromSeed(seed))
	return i, wrap(op, err)
}

// NewIdentity returns the identity of a key held by signer, such as a key management service, a hardware
// token, or an [ed25519.PrivateKey], which is copied. The signer's public key is read once, must be an
// ed25519.PublicKey, and the signer must be safe for concurrent use. The error matches [ErrSigner] or is a
// [*NameError].
func NewIdentity(id string, signer crypto.Signer) (*Identity, error) {
	i, err := newIdentity(id, signer)
	return i, wrap("identity", err)
}

func newIdentity(id string, signer crypto.Signer) (*Identity, error) {
	if err := CheckAgentID(id); err != nil {
		return nil, err
	}
	if signer == nil {
		return nil, fmt.Errorf("%w: it is nil", ErrSigner)
	}
	private, inside := signer.(ed25519.PrivateKey)
	if inside {
		if len(private) != ed25519.PrivateKeySize {
			return nil, fmt.Errorf("%w: private key of %d bytes, want %d", ErrSigner, len(private), ed25519.PrivateKeySize)
		}
		// A private key carries its public half. Signing with a wrong half gives away the
		// private scalar with two signatures of one message.
		own := ed25519.NewKeyFromSeed(private.Seed())
		if !bytes.Equal(own, private) {
			return nil, fmt.Errorf("%w: public half does not belong to the private key", ErrSigner)
		}
		private, signer = own, own
	}
	public, ok := signer.Public().(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%w: public key is a %T, want ed25519.PublicKey", ErrSigner, signer.Public())
	}
	p, err := publicKeyFrom(public)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSigner, err)
	}
	i := &Identity{id: id, public: p}
	if inside {
		i.sign = func(message []byte) ([]byte, error) { return ed25519.Sign(private, message), nil }
		i.export = func() ([]byte, error) { return x509.MarshalPKCS8PrivateKey(private) }
	} else {
		i.sign = func(message []byte) ([]byte, error) { return signOutside(signer, p, message) }
	}
	return i, nil
}

// signOutside lets a signer sign and does not take its word for it: one that answers with another key, hashes
// first or computes wrongly must not put signatures into the world that every other agent counts as forged.
func signOutside(signer crypto.Signer, public PublicKey, message []byte) ([]byte, error) {
	sig, err := crypto.SignMessage(signer, rand.Reader, message, crypto.Hash(0))
	if err != nil {
		return nil, err
	}
	if len(sig) != ed25519.SignatureSize {
		return nil, fmt.Errorf("%w: signature of %d bytes, want %d", ErrSigner, len(sig), ed25519.SignatureSize)
	}
	if !ed25519.Verify(public.b[:], message, sig) {
		return nil, fmt.Errorf("%w: its signature does not verify under its public key", ErrSigner)
	}
	return sig, nil
}

// ID returns the agent ID.
func (i Identity) ID() string { return i.id }

// PublicKey returns the key that verifies what Sign signs.
func (i Identity) PublicKey() PublicKey { return i.public }

// Sign returns the Ed25519 signature (64 bytes, RFC 8032 §5.1.6) of s. It does not compare s.From with ID: a
// statement may name its author in another way. The error matches [ErrStatement] or [ErrSigner], or is the
// signer's own.
//
// An external signer may block for as long as its service takes; what it returns is verified before it is handed
// on.
func (i Identity) Sign(s Statement) ([]byte, error) {
	const op = "sign"
	if err := s.check(); err != nil {
		return nil, wrap(op, err)
	}
	if i.sign == nil {
		return nil, wrap(op, fmt.Errorf("%w: the identity has no key", ErrSigner))
	}
	sig, err := i.sign(s.Bytes())
	return sig, wrap(op, err)
}

// String returns the agent ID and the public key's fingerprint.
func (i Identity) String() string { return i.id + " " + i.public.Fingerprint() }

// GoString returns what %#v prints: no private key.
func (i Identity) GoString() string {
	return fmt.Sprintf("keys.Identity{ID: %q, PublicKey: %q}", i.id, i.public)
}

// Format prints GoString for %#v and String for every other verb, so that none (such as %d) reaches
// the fields.
func (i Identity) Format(f fmt.State, verb rune) {
	switch {
	case verb == 'v' && f.Flag('#'):
		_, _ = io.WriteString(f, i.GoString())
	case verb == 'q':
		_, _ = fmt.Fprintf(f, "%q", i.String())
	default:
		_, _ = io.WriteString(f, i.String())
	}
}

// LogValue returns the agent ID and the public key's fingerprint as a group.
func (i Identity) LogValue() slog.Value {
	return slog.GroupValue(slog.String("id", i.id), slog.String("key", i.public.Fingerprint()))
}

// MarshalJSON writes {"id": …, "public_key": …}. There is no way back.
func (i Identity) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		ID        string    `json:"id"`
		PublicKey PublicKey `json:"public_key"`
	}{i.id, i.public})
}
