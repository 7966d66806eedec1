package keys

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// ErrBadFingerprint means that text is not a SHA-256 certificate fingerprint.
var ErrBadFingerprint = errors.New("not a SHA-256 fingerprint")

// Fingerprint is the SHA-256 of a certificate in DER. It can be compared with ==: it is public, and
// comparing it needs no constant time.
type Fingerprint [sha256.Size]byte

// FingerprintOf returns the fingerprint of a certificate in DER.
func FingerprintOf(der []byte) Fingerprint { return sha256.Sum256(der) }

// ParseFingerprint reads the value of an SDP fingerprint attribute without the name of the hash (RFC 8122
// §5): 32 pairs of hexadecimal digits with colons between them, 95 characters. The RFC writes upper case; lower case is read
// too, because some implementations write it. The error matches [ErrBadFingerprint].
func ParseFingerprint(s string) (Fingerprint, error) {
	f, err := parseFingerprint(s)
	return f, wrap("parse fingerprint", err)
}

func parseFingerprint(s string) (f Fingerprint, err error) {
	if want := 3*len(f) - 1; len(s) != want {
		return Fingerprint{}, fmt.Errorf("%w: %d characters, want %d", ErrBadFingerprint, len(s), want)
	}
	for i := range f {
		if i > 0 && s[3*i-1] != ':' {
			return Fingerprint{}, fmt.Errorf("%w: no colon before pair %d", ErrBadFingerprint, i+1)
		}
		if _, err := hex.Decode(f[i:i+1], []byte(s[3*i:3*i+2])); err != nil {
			return Fingerprint{}, fmt.Errorf("%w: pair %d is not hexadecimal", ErrBadFingerprint, i+1)
		}
	}
	return f, nil
}

// String returns the form of RFC 8122 §5: upper case, colons between pairs.
func (f Fingerprint) String() string {
	var b strings.Builder
	for i, c := range f {
		if i > 0 {
			b.WriteByte(':')
		}
		fmt.Fprintf(&b, "%02X", c)
	}
	return b.String()
}

// MarshalText returns the text of String. The error is always nil.
func (f Fingerprint) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText reads what MarshalText wrote. The error matches [ErrBadFingerprint] and leaves f as it
// was.
func (f *Fingerprint) UnmarshalText(text []byte) error {
	g, err := ParseFingerprint(string(text))
	if err != nil {
		return err
	}
	*f = g
	return nil
}
