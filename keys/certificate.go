package keys

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"time"
)

const (
	// CertificateLifetime is how long a certificate of [NewCertificate] is valid from the moment
	// it is made.
	CertificateLifetime = 30 * 24 * time.Hour

	// CertificateSkew is how far before that moment its validity begins, so that an agent whose
	// clock is slow accepts it.
	CertificateSkew = time.Hour
)

var (
	// ErrExpired means that a certificate, or what a trust policy granted, has ended.
	ErrExpired = errors.New("expired")

	// ErrNotYetValid means that a certificate's validity has not begun: it is meant for later, or
	// one of two clocks is wrong.
	ErrNotYetValid = errors.New("not yet valid")

	// ErrBadCertificate means that bytes are no certificate with an ECDSA P-256 key.
	ErrBadCertificate = errors.New("not an acceptable certificate")
)

// Certificate is a DTLS certificate: a short-lived key of its own that protects connections. It needs no
// certification authority, since an agent signs its fingerprint with its identity key. It is immutable and
// safe for concurrent use as long as nobody writes to its fields.
type Certificate struct {
	PrivateKey *ecdsa.PrivateKey
	Leaf       *x509.Certificate
}

// NewCertificate makes a self-signed certificate with a new ECDSA P-256 key, valid from [CertificateSkew]
// before now until [CertificateLifetime] after it.
//
// DTLS 1.2 sends certificates in the clear. So the certificate names nobody: its subject is what
// browsers write, its serial number is random, and nothing in it is the same in two certificates.
func NewCertificate(now time.Time) (*Certificate, error) {
	c, err := newCertificate(now)
	return c, wrap("new certificate", err)
}

func newCertificate(now time.Time) (*Certificate, error) {
	now = now.Round(0) // validity is the world's time
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{ // without a serial number it gets one as RFC 5280 §4.1.2.2 has it
		Subject:               pkix.Name{CommonName: "WebRTC"},
		NotBefore:             now.Add(-CertificateSkew),
		NotAfter:              now.Add(CertificateLifetime),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		SignatureAlgorithm:    x509.ECDSAWithSHA256,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &Certificate{PrivateKey: key, Leaf: leaf}, nil
}

// Fingerprint returns the SHA-256 of the certificate.
func (c *Certificate) Fingerprint() Fingerprint { return FingerprintOf(c.Leaf.Raw) }

// CertificateError says why a certificate was refused. It unwraps to Err.
type CertificateError struct {
	Reason    string
	NotBefore time.Time // validity; zero when the certificate could not be parsed
	NotAfter  time.Time
	Err       error // ErrExpired, ErrNotYetValid or ErrBadCertificate
}

func (e *CertificateError) Error() string { return "keys: " + e.text() }

func (e *CertificateError) text() string { return "certificate: " + e.Reason }

// Unwrap returns e.Err.
func (e *CertificateError) Unwrap() error { return e.Err }

// CheckCertificate checks what a DTLS stack leaves unchecked when it compares fingerprints only: that
// der is one certificate of at most [MaxCertificateSize] with an ECDSA P-256 key, and that now is within
// its validity, both ends included (RFC 5280 §4.1.2.5). It does not check who issued it. The error is a
// [*CertificateError].
func CheckCertificate(der []byte, now time.Time) error {
	const op = "check"
	bad := func(reason string) error {
		return wrap(op, &CertificateError{Reason: reason, Err: ErrBadCertificate})
	}
	if len(der) > MaxCertificateSize {
		return bad(fmt.Sprintf("%d bytes, more than %d", len(der), MaxCertificateSize))
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return bad("it cannot be parsed: " + shown(err.Error())) // the error can quote what a stranger sent
	}
	refuse := func(err error, format string, args ...any) error {
		return wrap(op, &CertificateError{fmt.Sprintf(format, args...), c.NotBefore, c.NotAfter, err})
	}
	if key, ok := c.PublicKey.(*ecdsa.PublicKey); !ok {
		return refuse(ErrBadCertificate, "its key is %v, want ECDSA P-256", c.PublicKeyAlgorithm)
	} else if key.Curve != elliptic.P256() {
		return refuse(ErrBadCertificate, "its curve is %s, want P-256", key.Curve.Params().Name)
	}
	if now.Before(c.NotBefore) {
		return refuse(ErrNotYetValid, "valid from %s, now it is %s", stamp(c.NotBefore), stamp(now))
	}
	// Certificates count in seconds: the last one is valid to its end.
	if !now.Before(c.NotAfter.Add(time.Second)) {
		return refuse(ErrExpired, "valid until %s, now it is %s", stamp(c.NotAfter), stamp(now))
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
