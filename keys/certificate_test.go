package keys

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"math/big"
	"testing"
	"time"
)

func TestNewCertificate(t *testing.T) {
	c, err := NewCertificate(epoch)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Leaf.CheckSignature(c.Leaf.SignatureAlgorithm, c.Leaf.RawTBSCertificate, c.Leaf.Signature); err != nil {
		t.Errorf("not self-signed: %v", err)
	}
	if !c.PrivateKey.PublicKey.Equal(c.Leaf.PublicKey) {
		t.Error("the key is not that of the certificate")
	}
	if !c.Leaf.NotBefore.Equal(epoch.Add(-time.Hour)) || !c.Leaf.NotAfter.Equal(epoch.Add(30*24*time.Hour)) {
		t.Errorf("valid from %v to %v", c.Leaf.NotBefore, c.Leaf.NotAfter)
	}
	if c.Leaf.SerialNumber.Sign() <= 0 || c.Leaf.SerialNumber.BitLen() > 159 {
		t.Errorf("serial number %v", c.Leaf.SerialNumber)
	}
	if c.Fingerprint() != FingerprintOf(c.Leaf.Raw) {
		t.Error("fingerprint")
	}
	other, err := NewCertificate(epoch)
	if err != nil {
		t.Fatal(err)
	}
	if other.Fingerprint() == c.Fingerprint() || other.Leaf.SerialNumber.Cmp(c.Leaf.SerialNumber) == 0 || other.PrivateKey.Equal(c.PrivateKey) {
		t.Error("two certificates have something in common")
	}
}

// DTLS 1.2 shows certificates to everybody on the way.
func TestCertificateNamesNobody(t *testing.T) {
	c, err := NewCertificate(epoch)
	if err != nil {
		t.Fatal(err)
	}
	l := c.Leaf
	if l.Subject.String() != "CN=WebRTC" || l.Issuer.String() != "CN=WebRTC" {
		t.Errorf("subject %v, issuer %v", l.Subject, l.Issuer)
	}
	if n := len(l.DNSNames) + len(l.EmailAddresses) + len(l.IPAddresses) + len(l.URIs); n > 0 {
		t.Errorf("%d alternative names", n)
	}
	if bytes.Contains(l.Raw, []byte("agent")) {
		t.Error("the certificate says what uses it")
	}
}

func TestCheckCertificateDates(t *testing.T) {
	c, err := NewCertificate(epoch)
	if err != nil {
		t.Fatal(err)
	}
	from, until := epoch.Add(-CertificateSkew), epoch.Add(CertificateLifetime)
	for _, tt := range []struct {
		now  time.Time
		want error
	}{
		{from.Add(-time.Nanosecond), ErrNotYetValid},
		{from, nil},
		{epoch, nil},
		{until, nil},
		{until.Add(time.Second - 1), nil},
		{until.Add(time.Second), ErrExpired},
		{until.Add(2 * time.Hour), ErrExpired},
		{time.Time{}, ErrNotYetValid},
	} {
		err := CheckCertificate(c.Leaf.Raw, tt.now)
		if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
			t.Errorf("at %v: %v, want %v", tt.now, err, tt.want)
		}
		var e *CertificateError
		if err != nil && (!errors.As(err, &e) || !e.NotBefore.Equal(from) || !e.NotAfter.Equal(until) || e.Reason == "") {
			t.Errorf("at %v: %#v", tt.now, e)
		}
	}
}

func TestCheckCertificateKey(t *testing.T) {
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ed := ed25519.NewKeyFromSeed(make([]byte, 32))
	for name, key := range map[string]crypto.Signer{"P-384": p384, "Ed25519": ed} {
		template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: epoch, NotAfter: epoch.Add(time.Hour)}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		var e *CertificateError
		if err := CheckCertificate(der, epoch); !errors.Is(err, ErrBadCertificate) || !errors.As(err, &e) || e.NotAfter.IsZero() {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCheckCertificateDamage(t *testing.T) {
	c, err := NewCertificate(epoch)
	if err != nil {
		t.Fatal(err)
	}
	der := c.Leaf.Raw
	bad := [][]byte{append(bytes.Clone(der), 0), append(bytes.Clone(der), der...), append(bytes.Clone(der), make([]byte, MaxCertificateSize)...)}
	for n := range der {
		bad = append(bad, der[:n])
	}
	for _, b := range bad {
		var e *CertificateError
		if err := CheckCertificate(b, epoch); !errors.Is(err, ErrBadCertificate) || !errors.As(err, &e) {
			t.Fatalf("%d bytes: %v", len(b), err)
		}
	}
}

func BenchmarkNewCertificate(b *testing.B) {
	for b.Loop() {
		if _, err := NewCertificate(epoch); err != nil {
			b.Fatal(err)
		}
	}
}
