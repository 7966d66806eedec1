package keys

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

var (
	// ErrBadPublicKey means that bytes or text are no acceptable Ed25519 public key.
	ErrBadPublicKey = errors.New("not an acceptable Ed25519 public key")

	// ErrBadSignature means that a signature does not belong to the statement and the key.
	ErrBadSignature = errors.New("signature does not verify")
)

// publicKeyPrefix names the algorithm in the text form, so that another one can stand beside it.
const publicKeyPrefix = "ed25519:"

// PublicKey is an Ed25519 public key (RFC 8032 §5.1.5). It is a value: it can be copied, compared
// with == and used as a map key, and all its methods but UnmarshalText are safe for concurrent use.
// The zero value is "no key" and verifies nothing.
//
// A PublicKey made by this package is never zero, never one of the points of small order (under
// which signatures can be made without a private key, so that they prove nothing), and never a second
// encoding of the same point. Whether the bytes are a point of the curve at all is found out by
// Verify, which fails for those that are not.
type PublicKey struct{ b [ed25519.PublicKeySize]byte }

// PublicKeyFrom converts a key of the standard library. The error matches [ErrBadPublicKey].
func PublicKeyFrom(k ed25519.PublicKey) (PublicKey, error) {
	p, err := publicKeyFrom(k)
	return p, wrap("public key", err)
}

func publicKeyFrom(k []byte) (p PublicKey, err error) {
	if len(k) != len(p.b) {
		return PublicKey{}, fmt.Errorf("%w: %d bytes, want %d", ErrBadPublicKey, len(k), len(p.b))
	}
	copy(p.b[:], k)
	if reason := weak(p.b); reason != "" {
		return PublicKey{}, fmt.Errorf("%w: %s", ErrBadPublicKey, reason)
	}
	return p, nil
}

// smallOrder holds the y coordinates (little endian, RFC 8032 §5.1.2) of the eight points whose order
// divides the cofactor. For such a key A the verification equation [S]B = R + [k]A has solutions
// that anybody finds in a handful of tries.
var smallOrder = [...][32]byte{
	{}, // y = 0, order 4; the zero PublicKey is one of these
	{0x01},
	{0xec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
		0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}, // y = p - 1, order 2
	{0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0,
		0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05}, // order 8
	{0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f,
		0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a}, // order 8
}

// weak says what is wrong with an encoding; "" is nothing.
func weak(b [32]byte) string {
	b[31] &= 0x7f // the sign of x
	for i := range smallOrder {
		if b == smallOrder[i] {
			return "point of small order"
		}
	}
	// The field prime is 2^255 - 19, little endian ed ff … ff 7f: a y of at least that has a smaller
	// twin, and one key would have two names.
	if b[31] == 0x7f && b[0] >= 0xed && bytes.Count(b[1:31], []byte{0xff}) == 30 {
		return "y is not reduced"
	}
	return ""
}

// ParsePublicKey reads the form that [PublicKey.String] writes. Each key has one text: another
// alphabet, padding, white space or stray bits at the end are errors, so that comparing texts
// compares keys. The error matches [ErrBadPublicKey].
func ParsePublicKey(s string) (PublicKey, error) {
	p, err := parsePublicKey(s)
	return p, wrap("parse public key", err)
}

func parsePublicKey(s string) (PublicKey, error) {
	text, ok := strings.CutPrefix(s, publicKeyPrefix)
	if !ok {
		return PublicKey{}, fmt.Errorf("%w: found %s; want %s", ErrBadPublicKey, nameNoKey(s), wantPublicKey)
	}
	// What the decoder would skip or call corrupt, by name.
	for i := range len(text) {
		switch c := text[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		case c == '=':
			return PublicKey{}, fmt.Errorf("%w: padding at byte %d; want %s", ErrBadPublicKey, len(publicKeyPrefix)+i, wantPublicKey)
		case c == '+' || c == '/':
			return PublicKey{}, fmt.Errorf("%w: %q at byte %d, base64 in place of base64url", ErrBadPublicKey, c, len(publicKeyPrefix)+i)
		default:
			return PublicKey{}, fmt.Errorf("%w: byte %d (%#02x) is not of base64url", ErrBadPublicKey, len(publicKeyPrefix)+i, c)
		}
	}
	// No input is worth more than 43 bytes.
	if want := base64.RawURLEncoding.EncodedLen(ed25519.PublicKeySize); len(text) != want {
		return PublicKey{}, fmt.Errorf("%w: %d characters after %q, want %d", ErrBadPublicKey, len(text), publicKeyPrefix, want)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return PublicKey{}, fmt.Errorf("%w: its last character has bits behind the last byte", ErrBadPublicKey)
	}
	return publicKeyFrom(b)
}

const wantPublicKey = `a key as "ed25519:" and 43 characters of base64url`

// nameNoKey names what is often taken for a public key.
func nameNoKey(s string) string {
	switch {
	case s == "":
		return "nothing"
	case isSSH(s) || strings.HasPrefix(s, "AAAA"):
		return "an OpenSSH public key"
	case strings.HasPrefix(s, "SHA256:"):
		return "a fingerprint, which holds no key"
	case strings.HasPrefix(s, "-----BEGIN"):
		return "PEM"
	case len(s) >= len(publicKeyPrefix) && strings.EqualFold(s[:len(publicKeyPrefix)], publicKeyPrefix):
		return "the prefix in capitals"
	case strings.TrimSpace(s) != s:
		return "white space around it"
	case len(s) == 2*ed25519.PublicKeySize:
		return "64 characters, perhaps hexadecimal digits"
	case len(s) == base64.RawURLEncoding.EncodedLen(ed25519.PublicKeySize):
		return "43 characters without the prefix"
	}
	return "another prefix"
}

// String returns "ed25519:" and the 32 bytes in unpadded base64url (RFC 4648 §5), 51 characters; "none"
// for the zero value, which ParsePublicKey refuses.
func (p PublicKey) String() string {
	if p.IsZero() {
		return "none"
	}
	return publicKeyPrefix + base64.RawURLEncoding.EncodeToString(p.b[:])
}

// MarshalText returns the text of String; nothing for the zero value. The error is always nil.
func (p PublicKey) MarshalText() ([]byte, error) {
	if p.IsZero() {
		return []byte{}, nil
	}
	return []byte(p.String()), nil
}

// UnmarshalText reads what MarshalText wrote; empty text is the zero value. The error matches
// [ErrBadPublicKey] and leaves p as it was.
func (p *PublicKey) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*p = PublicKey{}
		return nil
	}
	k, err := ParsePublicKey(string(text))
	if err != nil {
		return err
	}
	*p = k
	return nil
}

// Bytes returns a copy of the 32 bytes.
func (p PublicKey) Bytes() []byte { return bytes.Clone(p.b[:]) }

// IsZero reports whether p is the zero value, "no key".
func (p PublicKey) IsZero() bool { return p == PublicKey{} }

// Compare orders keys by their bytes: -1 when p is less than o, 0 when they are equal, 1 when p is
// greater.
func (p PublicKey) Compare(o PublicKey) int { return bytes.Compare(p.b[:], o.b[:]) }

// Fingerprint returns "SHA256:" and the unpadded base64 (RFC 4648 §4) of the SHA-256 of the 32 bytes, 50
// characters, for people to compare. It has the shape that ssh prints but not its value: ssh hashes its
// own wire form of the key.
func (p PublicKey) Fingerprint() string {
	sum := sha256.Sum256(p.b[:])
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}

// Verify checks that sig is the signature of s by the owner of p (pure Ed25519, RFC 8032 §5.1.7). The error
// matches [ErrBadSignature]. It says nothing about whether p may speak for s.From: that is what [Check] is
// for.
func (p PublicKey) Verify(s Statement, sig []byte) error {
	const op = "verify"
	if p.IsZero() {
		// The zero bytes decode to a point of order 4: the equation alone would let one forged
		// signature in four pass.
		return wrap(op, fmt.Errorf("%w: no key", ErrBadSignature))
	}
	if err := s.check(); err != nil {
		return wrap(op, fmt.Errorf("%w: %w", ErrBadSignature, err))
	}
	if len(sig) != ed25519.SignatureSize || !ed25519.Verify(p.b[:], s.Bytes(), sig) {
		return wrap(op, ErrBadSignature)
	}
	return nil
}
