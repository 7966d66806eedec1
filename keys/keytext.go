package keys

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"strings"
	"unicode/utf8"
)

const (
	// keyBlock is the PEM label of an unencrypted PKCS #8 key (RFC 7468 §10).
	keyBlock = "PRIVATE KEY"

	beginPEM = "-----BEGIN "

	wantKey = "want one unencrypted Ed25519 key, PKCS #8 in PEM, as openssl genpkey -algorithm ed25519 writes it"
	saveAs  = "save it as plain UTF-8 or ASCII"
	keyOnly = "leave nothing but the key in the file"
)

// otherBlocks names what stands in PEM blocks of other labels, and what to do.
var otherBlocks = map[string][2]string{
	"ENCRYPTED PRIVATE KEY":      {"an encrypted private key", "decrypt it: openssl pkey -in OLD -out NEW"},
	"OPENSSH PRIVATE KEY":        {"an OpenSSH private key", wantKey},
	"SSH2 ENCRYPTED PRIVATE KEY": {"an SSH private key", wantKey},
	"RSA PRIVATE KEY":            {"an RSA private key in the form of PKCS #1", wantKey},
	"EC PRIVATE KEY":             {"an EC (elliptic curve) private key in the form of SEC 1", wantKey},
	"DSA PRIVATE KEY":            {"a DSA private key", wantKey},
	"EC PARAMETERS":              {"parameters of an elliptic curve", wantKey},
	"DH PARAMETERS":              {"Diffie-Hellman parameters", wantKey},
	"PUBLIC KEY":                 {"a public key", "give the file of the private key"},
	"RSA PUBLIC KEY":             {"an RSA public key", wantKey},
	"CERTIFICATE":                {"a certificate", "give the file of the private key"},
	"X509 CERTIFICATE":           {"a certificate", "give the file of the private key"},
	"TRUSTED CERTIFICATE":        {"a certificate", "give the file of the private key"},
	"CERTIFICATE REQUEST":        {"a certificate request", "give the file of the private key"},
	"NEW CERTIFICATE REQUEST":    {"a certificate request", "give the file of the private key"},
	"X509 CRL":                   {"a list of revoked certificates", wantKey},
	"PKCS7":                      {"a PKCS #7 structure", wantKey},
	"CMS":                        {"a CMS structure", wantKey},
	"PGP PRIVATE KEY BLOCK":      {"an OpenPGP private key", wantKey},
	"PGP PUBLIC KEY BLOCK":       {"an OpenPGP public key", wantKey},
	"PGP MESSAGE":                {"an OpenPGP message", wantKey},
}

// nameBlock names what stands under a PEM label.
func nameBlock(label string) (found, reason string) {
	if label == keyBlock {
		return "a private key", ""
	}
	if other, ok := otherBlocks[label]; ok {
		return other[0], other[1]
	}
	return "a PEM block of another kind", wantKey // the label could be anything
}

// parseKey reads the text of a private key file. What is said of any other text is
// fixed, since errors of the decoders could quote what they read.
func parseKey(data []byte) (_ ed25519.PrivateKey, found, reason string) {
	if found, reason = wrongEncoding(data); found != "" {
		return nil, found, reason
	}
	if !bytes.HasPrefix(data, []byte(beginPEM)) {
		found, reason = nameOther(data)
		return nil, found, reason
	}
	// A second key would be ignored in silence, and which one speaks would depend on order.
	if labels := pemLabels(data); len(labels) > 1 {
		var names []string
		for _, label := range labels {
			name, _ := nameBlock(label)
			names = append(names, name)
		}
		return nil, "several PEM blocks: " + strings.Join(names, ", "), keyOnly
	} else if len(labels) == 1 && labels[0] != keyBlock {
		found, reason = nameBlock(labels[0])
		return nil, found, reason
	}
	block, rest := pem.Decode(data)
	switch {
	case block == nil:
		found, reason = nameDamage(data)
		return nil, found, reason
	case strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"):
		return nil, "an encrypted private key", otherBlocks["ENCRYPTED PRIVATE KEY"][1]
	case len(block.Headers) > 0:
		return nil, "a PEM block with headers", wantKey
	case block.Type != keyBlock:
		return nil, "a damaged PEM block", wantKey
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, "text after the key", keyOnly
	}
	defer clear(block.Bytes)
	return parsePKCS8(block.Bytes)
}

// wrongEncoding names text that only looks like what it should be.
func wrongEncoding(data []byte) (found, reason string) {
	switch {
	case len(data) == 0:
		return "nothing", wantKey
	case bytes.HasPrefix(data, []byte("\ufeff")):
		return "a byte order mark in front", saveAs + " without a byte order mark"
	case isUTF16(data):
		return "UTF-16 text", saveAs
	}
	return "", ""
}

// isSSH reports the name of an algorithm that begins an OpenSSH public key.
func isSSH(s string) bool {
	for _, prefix := range []string{"ssh-ed25519", "ssh-rsa", "ssh-dss", "ssh-ed448", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"} {
		if strings.HasPrefix(s, prefix) {
			return true
		}
	}
	return false
}

// isUTF16 reports text as Windows programs and redirections of PowerShell write it.
func isUTF16(data []byte) bool {
	if len(data) < 2 {
		return false
	}
	return bytes.HasPrefix(data, []byte{0xff, 0xfe}) || bytes.HasPrefix(data, []byte{0xfe, 0xff}) ||
		data[0] == 0 && printable(data[1]) || data[1] == 0 && printable(data[0])
}

func printable(c byte) bool { return c > ' ' && c < 0x7f }

// pemLabels returns the labels of PEM blocks that begin in data, as far as they
// are told from text; at most four, for errors.
func pemLabels(data []byte) (labels []string) {
	for len(labels) < 4 {
		_, rest, ok := bytes.Cut(data, []byte(beginPEM))
		if !ok {
			break
		}
		label, _, ok := bytes.Cut(rest, []byte("-----"))
		if !ok || len(label) > 64 {
			label = nil
		}
		labels, data = append(labels, string(label)), rest
	}
	return labels
}

// nameDamage names what is wrong with one PEM block that cannot be decoded.
func nameDamage(data []byte) (found, reason string) {
	text := bytes.TrimSpace(data)
	switch {
	case bytes.Contains(text, []byte(`\n`)):
		return `a PEM block whose line breaks are written as \n`, "write real line breaks"
	case !bytes.Contains(text, []byte("-----END ")):
		return "a PEM block without its END line: the file may be cut off", wantKey
	case !bytes.Contains(text, []byte("\n")) && bytes.Contains(text, []byte("\r")):
		return "a PEM block whose lines end in carriage returns alone", "end lines in line feeds"
	case !bytes.Contains(text, []byte("\n")):
		return "a PEM block in a single line", "write its line breaks"
	case !bytes.Contains(text, []byte("-----END "+keyBlock+"-----")):
		return "a PEM block whose END line names another kind", wantKey
	}
	return "a damaged PEM block", wantKey
}

// nameOther names a file that does not begin with a PEM block.
func nameOther(data []byte) (found, reason string) {
	text := bytes.TrimSpace(data)
	begins := func(prefixes ...string) bool {
		for _, p := range prefixes {
			if bytes.HasPrefix(text, []byte(p)) {
				return true
			}
		}
		return false
	}
	switch {
	case len(text) == 0:
		return "nothing but white space", wantKey
	case begins(beginPEM):
		return "white space in front of the key", keyOnly
	case bytes.Contains(text, []byte(beginPEM)):
		return "text in front of the PEM block", keyOnly
	case begins("PuTTY-User-Key-File"):
		return "a PuTTY private key", wantKey
	case isSSH(string(text[:min(len(text), 32)])):
		return "an OpenSSH public key", wantKey
	case begins("---- BEGIN SSH2"):
		return "an SSH key in the form of RFC 4716", wantKey
	case begins("AGE-SECRET-KEY-", "# created:"):
		return "an age key", wantKey
	case begins(publicKeyPrefix):
		return "the text form of a public key", "give the file of the private key"
	case begins("{", "["):
		return "JSON, perhaps a JWK", wantKey
	case begins("<"):
		return "XML or HTML", wantKey
	case isDER(data):
		return nameDER(data), "convert it: openssl pkey -inform DER -in OLD -out NEW"
	case !utf8.Valid(data) || bytes.IndexByte(data, 0) >= 0:
		if len(data) == ed25519.SeedSize || len(data) == ed25519.PrivateKeySize {
			return "binary data of the size of a bare key", wantKey
		}
		return "binary data", wantKey
	}
	return nameEncoded(text), wantKey
}

// nameEncoded names text that may be an encoding of bytes.
func nameEncoded(text []byte) string {
	bare := func(n int) bool { return n == ed25519.SeedSize || n == ed25519.PrivateKeySize }
	if raw, err := hex.DecodeString(string(text)); err == nil {
		defer clear(raw)
		if bare(len(raw)) {
			return "hexadecimal digits of the size of a bare key"
		}
		return "hexadecimal digits"
	}
	for _, e := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		raw, err := e.DecodeString(string(text))
		if err != nil {
			continue
		}
		defer clear(raw)
		switch {
		case isDER(raw):
			return "base64 without the BEGIN and END lines of PEM"
		case bare(len(raw)):
			return "base64 of the size of a bare key"
		}
	}
	return "text that is no PEM block"
}

func isDER(data []byte) bool {
	v, _, ok := takeDER(data)
	return ok && isDERValue(v, asn1.TagSequence)
}

func nameDER(der []byte) string {
	if _, found, _ := parsePKCS8(der); found == "" {
		return "a private key in DER"
	}
	if _, err := x509.ParseCertificate(der); err == nil {
		return "a certificate in DER"
	}
	return "DER in place of PEM"
}
