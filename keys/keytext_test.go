package keys

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"
)

// inUTF16 encodes text as Windows programs do.
func inUTF16(text string, mark bool) string {
	var b []byte
	if mark {
		b = []byte{0xff, 0xfe}
	}
	for _, u := range utf16.Encode([]rune(text)) {
		b = append(b, byte(u), byte(u>>8))
	}
	return string(b)
}

// TestFoundInKeyFiles: what people give in place of a key file is named for what
// it is, and nothing of it is shown.
func TestFoundInKeyFiles(t *testing.T) {
	good := string(readFile(t, "testdata/rfc8032.pem"))
	block, _ := pem.Decode([]byte(good))
	body := base64.StdEncoding.EncodeToString(block.Bytes)
	encode := func(label string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: label, Bytes: der}))
	}
	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	xDER, err := x509.MarshalPKCS8PrivateKey(x25519)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := NewCertificate(epoch)
	if err != nil {
		t.Fatal(err)
	}
	rsaInfo, _ := hex.DecodeString("3017" + "020100" + "300d06092a864886f70d0101010500" + "0403020100")
	pkcs1, _ := hex.DecodeString("3009" + "020100" + "020103" + "020105")
	// of is PKCS #8 whose algorithm is the given DER in hexadecimal digits.
	of := func(algorithm string) string {
		der, err := hex.DecodeString("020100" + algorithm + "040100")
		if err != nil {
			t.Fatal(err)
		}
		return encode(keyBlock, append([]byte{0x30, byte(len(der))}, der...))
	}

	for name, tt := range map[string]struct{ text, found string }{
		"empty":               {"", "nothing"},
		"blank":               {" \r\n\t", "nothing but white space"},
		"byte order mark":     {"\ufeff" + good, "a byte order mark in front"},
		"UTF-16":              {inUTF16(good, true), "UTF-16 text"},
		"UTF-16, no mark":     {inUTF16(good, false), "UTF-16 text"},
		"text of openssl":     {good + "ED25519 Private-Key:\npriv:\n", "text after the key"},
		"bag attributes":      {"Bag Attributes\n    friendlyName: a\n" + good, "text in front of the PEM block"},
		"quoted":              {`"` + good + `"`, "text in front of the PEM block"},
		"indented":            {"\n  " + good, "white space in front of the key"},
		"two keys":            {good + good, "several PEM blocks: a private key, a private key"},
		"key and certificate": {good + encode("CERTIFICATE", cert.Leaf.Raw), "several PEM blocks: a private key, a certificate"},
		"chain":               {strings.Repeat(encode("CERTIFICATE", cert.Leaf.Raw), 9), "several PEM blocks: a certificate, a certificate, a certificate, a certificate"},
		"parameters and key":  {encode("EC PARAMETERS", nil) + encode("EC PRIVATE KEY", sec1), "several PEM blocks: parameters of an elliptic curve, an EC (elliptic curve) private key in the form of SEC 1"},
		"certificate":         {encode("CERTIFICATE", cert.Leaf.Raw), "a certificate"},
		"request":             {encode("CERTIFICATE REQUEST", block.Bytes), "a certificate request"},
		"public key":          {encode("PUBLIC KEY", block.Bytes), "a public key"},
		"encrypted":           {encode("ENCRYPTED PRIVATE KEY", block.Bytes), "an encrypted private key"},
		"encrypted, old form": {"-----BEGIN PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n" + body + "\n-----END PRIVATE KEY-----\n", "an encrypted private key"},
		"other headers":       {"-----BEGIN PRIVATE KEY-----\nX: y\n\n" + body + "\n-----END PRIVATE KEY-----\n", "a PEM block with headers"},
		"OpenSSH":             {encode("OPENSSH PRIVATE KEY", []byte("openssh-key-v1\x00")), "an OpenSSH private key"},
		"RSA":                 {encode("RSA PRIVATE KEY", pkcs1), "an RSA private key in the form of PKCS #1"},
		"EC":                  {encode("EC PRIVATE KEY", sec1), "an EC (elliptic curve) private key in the form of SEC 1"},
		"OpenPGP":             {"-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlFgE\n=abcd\n-----END PGP PRIVATE KEY BLOCK-----\n", "an OpenPGP private key"},
		"unknown label":       {encode("PASSWORD OF MINE", nil), "a PEM block of another kind"},
		"RSA in PKCS 8":       {encode(keyBlock, rsaInfo), "an RSA key"},
		"ECDSA in PKCS 8":     {string(readFile(t, "testdata/p256.pem")), "an EC (elliptic curve) key"},
		"X25519":              {encode(keyBlock, xDER), "an X25519 key, which cannot sign"},
		"RSA-PSS":             {of("300b06092a864886f70d01010a"), "an RSA-PSS key"},
		"DSA":                 {of("300906072a8648ce380401"), "a DSA key"},
		"X448":                {of("300506032b656f"), "an X448 key, which cannot sign"},
		"Ed448":               {of("300506032b6571"), "an Ed448 key"},
		"unknown algorithm":   {of("300506032b6501"), "a key of the algorithm 1.3.101.1"},
		"no algorithm":        {of("0500"), "DER that is no PKCS #8 key"},
		"empty algorithm":     {of("3000"), "DER that is no PKCS #8 key"},
		"version alone":       {encode(keyBlock, []byte("\x30\x03\x02\x01\x00")), "DER that is no PKCS #8 key"},
		"label with dashes":   {encode(keyBlock+"-----X", block.Bytes), "a damaged PEM block"},
		"mark of UTF-16":      {"\xff\xfe", "UTF-16 text"},
		"one letter":          {"a\x00", "UTF-16 text"},
		"one letter, big":     {"\x00a", "UTF-16 text"},
		"a space":             {" \x00", "binary data"},
		"one byte":            {"\xff", "binary data"},
		"some hex":            {"0f0f", "hexadecimal digits"},
		"key in hex":          {hex.EncodeToString(block.Bytes[16:]) + hex.EncodeToString(block.Bytes[16:]), "hexadecimal digits of the size of a bare key"},
		"SEC 1 mislabelled":   {encode(keyBlock, sec1), "an EC (elliptic curve) key, SEC 1, under the label of PKCS #8"},
		"PKCS 1 mislabelled":  {encode(keyBlock, pkcs1), "an RSA key, PKCS #1, under the label of PKCS #8"},
		"cert mislabelled":    {encode(keyBlock, cert.Leaf.Raw), "DER that is no PKCS #8 key of version 0 or 1"},
		"bytes behind":        {encode(keyBlock, append(bytes.Clone(block.Bytes), 5, 0)), "bytes after the key, within the PEM block"},
		"no bytes":            {encode(keyBlock, nil), "bytes that are no DER sequence"},
		"bare seed in PKCS 8": {encode(keyBlock, bytes.Replace(block.Bytes, []byte("\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20"), []byte("\x30\x2c\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x20"), 1)), "an Ed25519 key that is not 32 bytes within two octet strings (RFC 8410 §7)"},
		"parameters":          {encode(keyBlock, bytes.Replace(block.Bytes, []byte("\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70"), []byte("\x30\x30\x02\x01\x00\x30\x07\x06\x03\x2b\x65\x70\x05\x00"), 1)), "a damaged Ed25519 key"},
		"cut off":             {good[:90], "a PEM block without its END line: the file may be cut off"},
		"escaped line breaks": {strings.ReplaceAll(good, "\n", `\n`), `a PEM block whose line breaks are written as \n`},
		"joined lines":        {strings.ReplaceAll(good, "\n", " "), "a PEM block in a single line"},
		"carriage returns":    {strings.ReplaceAll(good, "\n", "\r"), "a PEM block whose lines end in carriage returns alone"},
		"other END line":      {strings.Replace(good, "END PRIVATE", "END PUBLIC", 1), "a PEM block whose END line names another kind"},
		"damaged":             {strings.Replace(good, "MC4", "M!4", 1), "a damaged PEM block"},
		"DER":                 {string(block.Bytes), "a private key in DER"},
		"certificate in DER":  {string(cert.Leaf.Raw), "a certificate in DER"},
		"other DER":           {string(pkcs1), "DER in place of PEM"},
		"base64 alone":        {body + "\n", "base64 without the BEGIN and END lines of PEM"},
		"bare base64":         {base64.RawURLEncoding.EncodeToString(block.Bytes[16:]), "base64 of the size of a bare key"},
		"bare hex":            {hex.EncodeToString(block.Bytes[16:]) + "\n", "hexadecimal digits of the size of a bare key"},
		"bare bytes":          {string(block.Bytes[16:]), "binary data of the size of a bare key"},
		"binary":              {"\x7fELF\x00\x01\xff", "binary data"},
		"PuTTY":               {"PuTTY-User-Key-File-3: ssh-ed25519\n", "a PuTTY private key"},
		"ssh public key":      {"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI me@here\n", "an OpenSSH public key"},
		"SSH2 public key":     {"---- BEGIN SSH2 PUBLIC KEY ----\nAAAA\n", "an SSH key in the form of RFC 4716"},
		"age":                 {"# created: 2026-01-01T00:00:00Z\nAGE-SECRET-KEY-1\n", "an age key"},
		"own public key":      {rfcText + "\n", "the text form of a public key"},
		"JWK":                 {`{"kty":"OKP","crv":"Ed25519","d":"x"}`, "JSON, perhaps a JWK"},
		"error page":          {"<!DOCTYPE html>", "XML or HTML"},
		"anything":            {"secret-of-mine", "text that is no PEM block"},
	} {
		path := filepath.Join(t.TempDir(), "k")
		writeFile(t, path, tt.text)
		_, err := Load(path, "a")
		var e *KeyFileError
		if !errors.As(err, &e) || e.Found != tt.found || e.Path != path || e.Reason == "" {
			t.Errorf("%s: %v, want it to find %s", name, err, tt.found)
			continue
		}
		if text := err.Error(); !strings.Contains(text, tt.found) || strings.Contains(text, "of-mine") || strings.Contains(text, "OF MINE") || strings.Contains(text, body[24:32]) {
			t.Errorf("%s: %s", name, text)
		}
	}
}

// half is a PKCS #8 key with a public half.
type half struct {
	name string
	der  []byte
	ok   bool
}

// publicHalves are forms of version 2 of PKCS #8 (RFC 5958) around one private key.
func publicHalves(t testing.TB) []half {
	private, _, reason := parseKey(readFile(t, "testdata/rfc8032.pem"))
	if reason != "" {
		t.Fatal(reason)
	}
	own, other := private[32:], testKey(t, 1).Bytes()
	der := func(version byte, behind ...[]byte) []byte {
		b := append([]byte{2, 1, version, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20}, private.Seed()...)
		for _, x := range behind {
			b = append(b, x...)
		}
		return append([]byte{0x30, byte(len(b))}, b...)
	}
	implicit := func(k []byte) []byte { return append([]byte{0x81, byte(len(k) + 1), 0}, k...) }
	explicit := func(k []byte) []byte { return append([]byte{0xa1, byte(len(k) + 3), 3, byte(len(k) + 1), 0}, k...) }
	attributes := []byte{0xa0, 2, 0x31, 0}
	return []half{
		{"version 1", der(0), true},
		{"version 2 without", der(1), true},
		{"version 2", der(1, implicit(own)), true},
		{"as ring wrote it", der(1, explicit(own)), true},
		{"version 1 with", der(0, implicit(own)), true},
		{"attributes", der(0, attributes), true},
		{"attributes and", der(1, attributes, implicit(own)), true},
		{"another's", der(1, implicit(other)), false},
		{"another's as ring wrote it", der(1, explicit(other)), false},
		{"another's in version 1", der(0, implicit(other)), false},
		{"another's behind attributes", der(1, attributes, implicit(other)), false},
		{"own and another's", der(1, implicit(own), implicit(other)), false},
		{"before attributes", der(1, implicit(own), attributes), false},
		{"short", der(1, implicit(own[:31])), false},
		{"empty", der(1, implicit(nil)), false},
		{"unused bits", der(1, append([]byte{0x81, 33, 1}, own...)), false},
		{"no bit string", der(1, []byte{0xa1, 2, 5, 0}), false},
		{"something else", der(1, []byte{5, 0}), false},
		{"field 2", der(1, []byte{0x82, 0}), false},
		{"cut off", der(1, implicit(own)[:20]), false},
		{"version 3", der(2, implicit(own)), false},
	}
}

// TestPublicHalf: a file that states a public key is only read when that belongs to
// its private one.
func TestPublicHalf(t *testing.T) {
	want := rfcKey(t)
	for _, h := range publicHalves(t) {
		path := filepath.Join(t.TempDir(), "k")
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: h.der}), 0o600); err != nil {
			t.Fatal(err)
		}
		id, err := Load(path, "a")
		var e *KeyFileError
		switch {
		case h.ok && (err != nil || id.PublicKey() != want):
			t.Errorf("%s: %v, %v", h.name, id, err)
		case !h.ok && (!errors.As(err, &e) || e.Found == ""):
			t.Errorf("%s: %v, %v", h.name, id, err)
		case strings.HasPrefix(h.name, "another's") && e.Found != "a public half that belongs to another private key":
			t.Errorf("%s: %v", h.name, err)
		}
	}
}

// FuzzPKCS8: what is read is what the standard library reads, which is laxer and does
// not look at a public half.
func FuzzPKCS8(f *testing.F) {
	for _, h := range publicHalves(f) {
		f.Add(h.der)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		k, found, _ := parsePKCS8(der)
		other, err := x509.ParsePKCS8PrivateKey(der)
		private, _ := other.(ed25519.PrivateKey)
		switch {
		case (k == nil) != (found != ""):
			t.Fatalf("%d bytes of key, found %q", len(k), found)
		case k != nil && (err != nil || !k.Equal(private)):
			t.Fatalf("the standard library reads another key, %v", err)
		}
	})
}
