package keys

import (
	"bytes"
	"crypto/ed25519"
	"encoding/asn1"
)

// oidEd25519 is id-Ed25519 (RFC 8410 §3).
var oidEd25519 = asn1.ObjectIdentifier{1, 3, 101, 112}

// otherAlgorithms names what else stands in PKCS #8 files.
var otherAlgorithms = []struct {
	oid  asn1.ObjectIdentifier
	name string
}{
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}, "an RSA key"},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}, "an RSA-PSS key"},
	{asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}, "an EC (elliptic curve) key"},
	{asn1.ObjectIdentifier{1, 2, 840, 10040, 4, 1}, "a DSA key"},
	{asn1.ObjectIdentifier{1, 3, 101, 110}, "an X25519 key, which cannot sign"},
	{asn1.ObjectIdentifier{1, 3, 101, 111}, "an X448 key, which cannot sign"},
	{asn1.ObjectIdentifier{1, 3, 101, 113}, "an Ed448 key"},
}

// parsePKCS8 reads one Ed25519 key as RFC 8410 §7 writes it:
//
//	OneAsymmetricKey ::= SEQUENCE {             RFC 5958 §2
//	  version             INTEGER,              0, or 1 with a public key
//	  privateKeyAlgorithm SEQUENCE { id-Ed25519 },
//	  privateKey          OCTET STRING { OCTET STRING of 32 bytes },
//	  attributes      [0] SET OPTIONAL,         not looked at
//	  publicKey       [1] BIT STRING OPTIONAL }
//
// A public key must be that of the private one: a file that states one thing twice
// and differently was put together wrongly, or by somebody who wants its owner to
// speak with another key than the one that he sees.
func parsePKCS8(der []byte) (_ ed25519.PrivateKey, found, reason string) {
	whole, rest, ok := takeDER(der)
	if !ok || !isDERValue(whole, asn1.TagSequence) {
		return nil, "bytes that are no DER sequence", wantKey
	}
	if len(rest) > 0 {
		return nil, "bytes after the key, within the PEM block", wantKey
	}
	version, rest, ok := takeDER(whole.Bytes)
	if !ok || !isDERValue(version, asn1.TagInteger) || len(version.Bytes) != 1 || version.Bytes[0] > 1 {
		return nil, "DER that is no PKCS #8 key of version 0 or 1", wantKey
	}
	algorithm, rest, ok := takeDER(rest)
	if ok && isDERValue(algorithm, asn1.TagOctetString) {
		return nil, "an EC (elliptic curve) key, SEC 1, under the label of PKCS #8", wantKey
	}
	if ok && isDERValue(algorithm, asn1.TagInteger) {
		return nil, "an RSA key, PKCS #1, under the label of PKCS #8", wantKey
	}
	var oid asn1.ObjectIdentifier
	if !ok || !isDERValue(algorithm, asn1.TagSequence) {
		return nil, "DER that is no PKCS #8 key", wantKey
	}
	parameters, err := asn1.Unmarshal(algorithm.Bytes, &oid)
	if err != nil {
		return nil, "DER that is no PKCS #8 key", wantKey
	}
	if !oid.Equal(oidEd25519) {
		for _, other := range otherAlgorithms {
			if oid.Equal(other.oid) {
				return nil, other.name, wantKey
			}
		}
		return nil, "a key of the algorithm " + oid.String(), wantKey
	}
	private, rest, ok := takeDER(rest)
	if !ok || !isDERValue(private, asn1.TagOctetString) || len(parameters) > 0 {
		return nil, "a damaged Ed25519 key", wantKey
	}
	seed, tail, ok := takeDER(private.Bytes)
	if !ok || !isDERValue(seed, asn1.TagOctetString) || len(seed.Bytes) != ed25519.SeedSize || len(tail) > 0 {
		return nil, "an Ed25519 key that is not 32 bytes within two octet strings (RFC 8410 §7)", wantKey
	}
	key := ed25519.NewKeyFromSeed(seed.Bytes)
	if reason := checkRest(rest, key.Public().(ed25519.PublicKey)); reason != "" {
		return nil, reason, "make the file anew from its private key: openssl pkey -in OLD -out NEW"
	}
	return key, "", ""
}

// checkRest says what is wrong with what follows the private key.
func checkRest(rest []byte, own ed25519.PublicKey) (found string) {
	for next := 0; len(rest) > 0; {
		v, behind, ok := takeDER(rest)
		if !ok || v.Class != asn1.ClassContextSpecific || v.Tag < next || v.Tag > 1 {
			return "fields behind the private key that RFC 5958 does not have"
		}
		rest, next = behind, v.Tag+1
		if v.Tag == 0 {
			continue // attributes: names and usages, which nothing here depends on
		}
		bits := v.Bytes
		if v.IsCompound {
			// The tag should stand in place of that of the bit string; some programs
			// (ring before 0.17) put it around.
			inner, tail, ok := takeDER(bits)
			if !ok || !isDERValue(inner, asn1.TagBitString) || len(tail) > 0 {
				return "a public half that is no bit string"
			}
			bits = inner.Bytes
		}
		// The first byte counts the bits of the last one that mean nothing.
		if len(bits) != 1+ed25519.PublicKeySize || bits[0] != 0 {
			return "a public half of another size"
		}
		if !bytes.Equal(bits[1:], own) {
			return "a public half that belongs to another private key"
		}
	}
	return ""
}

// takeDER takes one value off der. Its bytes are part of der, so that whoever
// clears that has cleared the key.
func takeDER(der []byte) (v asn1.RawValue, rest []byte, ok bool) {
	rest, err := asn1.Unmarshal(der, &v)
	return v, rest, err == nil
}

// isDERValue reports a value of ASN.1's own types; of them only sequences hold others.
func isDERValue(v asn1.RawValue, tag int) bool {
	return v.Class == asn1.ClassUniversal && v.Tag == tag && v.IsCompound == (tag == asn1.TagSequence)
}
