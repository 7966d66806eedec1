package keys

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"
)

// The key of RFC 8032 §7.1 test 1; the base64url is that of RFC 8037 §A.2.
const (
	rfcPublic      = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
	rfcText        = "ed25519:11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
	rfcFingerprint = "SHA256:If4x36FUomFia/hUBG/SJxt77UtqvkWqWId+9H+XIbk"
)

func rfcKey(t testing.TB) PublicKey {
	t.Helper()
	b, _ := hex.DecodeString(rfcPublic)
	k, err := PublicKeyFrom(b)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestPublicKeyText(t *testing.T) {
	k := rfcKey(t)
	if k.String() != rfcText || k.Fingerprint() != rfcFingerprint {
		t.Errorf("got %s, %s; want %s, %s", k, k.Fingerprint(), rfcText, rfcFingerprint)
	}
	for _, want := range []string{rfcText, rfcFingerprint} {
		if !bytes.Contains(readFile(t, "doc.go"), []byte(want)) {
			t.Errorf("the package comment does not show %s", want)
		}
	}
	back, err := ParsePublicKey(rfcText)
	if err != nil || back != k {
		t.Errorf("parsed %v, %v", back, err)
	}
	b := k.Bytes()
	b[0]++
	if k != back {
		t.Error("Bytes is not a copy")
	}
}

func TestPublicKeyIsStrict(t *testing.T) {
	text := strings.TrimPrefix(rfcText, publicKeyPrefix)
	bad := map[string]string{
		"empty":             "",
		"zero value's":      "none",
		"no prefix":         text,
		"upper case prefix": "ED25519:" + text,
		"padding":           rfcText + "=",
		"space in front":    " " + rfcText,
		"space behind":      rfcText + " ",
		"line feed":         rfcText + "\n",
		"line feed inside":  rfcText[:20] + "\n" + rfcText[20:],
		"line feed instead": rfcText[:20] + "\n" + rfcText[21:],
		"other alphabet":    strings.ReplaceAll(rfcText, "_", "/"),
		"stray bits":        rfcText[:len(rfcText)-1] + "p",
		"31 bytes":          publicKeyPrefix + base64.RawURLEncoding.EncodeToString(make([]byte, 31)),
		"33 bytes":          publicKeyPrefix + base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{7}, 33)),
		"zero":              publicKeyPrefix + base64.RawURLEncoding.EncodeToString(make([]byte, 32)),
	}
	for n := range len(rfcText) {
		bad["truncated to "+rfcText[:n]] = rfcText[:n]
	}
	for name, s := range bad {
		if k, err := ParsePublicKey(s); !errors.Is(err, ErrBadPublicKey) || !k.IsZero() {
			t.Errorf("%s: %v, %v; want ErrBadPublicKey and no key", name, k, err)
		}
	}
	for _, n := range []int{0, 31, 33} {
		if _, err := PublicKeyFrom(make([]byte, n)); !errors.Is(err, ErrBadPublicKey) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

// curve computes with the twisted Edwards curve -x² + y² = 1 + dx²y² of RFC 8032 §5.1, slowly.
type curve struct{ p, d *big.Int }

func newCurve() curve {
	p := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	d := new(big.Int).ModInverse(big.NewInt(121666), p)
	d.Mul(d, big.NewInt(-121665)).Mod(d, p)
	return curve{p, d}
}

func (c curve) add(x1, y1, x2, y2 *big.Int) (x, y *big.Int) {
	mul := func(a, b *big.Int) *big.Int { a = new(big.Int).Mul(a, b); return a.Mod(a, c.p) }
	one := big.NewInt(1)
	k := mul(c.d, mul(mul(x1, x2), mul(y1, y2)))
	x = mul(new(big.Int).Add(mul(x1, y2), mul(x2, y1)), new(big.Int).ModInverse(new(big.Int).Add(one, k), c.p))
	minus := new(big.Int).Sub(one, k)
	y = mul(new(big.Int).Add(mul(y1, y2), mul(x1, x2)), new(big.Int).ModInverse(minus.Mod(minus, c.p), c.p))
	return x, y
}

func littleEndian(y *big.Int) []byte {
	b := y.FillBytes(make([]byte, 32))
	slices.Reverse(b)
	return b
}

// The points of small order are the eight multiples of a point of order 8.
func TestSmallOrderIsRefused(t *testing.T) {
	c := newCurve()
	// The table's y of order 8; x from the curve equation: x² = (y² - 1) / (dy² + 1).
	y8 := slices.Clone(smallOrder[3][:])
	slices.Reverse(y8)
	y := new(big.Int).SetBytes(y8)
	yy := new(big.Int).Mul(y, y)
	den := new(big.Int).Mul(c.d, yy)
	den.Add(den, big.NewInt(1)).Mod(den, c.p)
	xx := new(big.Int).Sub(yy, big.NewInt(1))
	xx.Mul(xx, den.ModInverse(den, c.p)).Mod(xx, c.p)
	x := new(big.Int).ModSqrt(xx, c.p)
	if x == nil {
		t.Fatal("the table's point of order 8 is not on the curve")
	}
	seen := map[string]bool{}
	px, py := big.NewInt(0), big.NewInt(1) // the neutral element
	for n := range 8 {
		b := littleEndian(py)
		seen[string(b)] = true
		for _, sign := range []byte{0, 0x80} {
			enc := slices.Clone(b)
			enc[31] |= sign
			if _, err := PublicKeyFrom(enc); !errors.Is(err, ErrBadPublicKey) {
				t.Errorf("%d times the point of order 8, sign %#x: %v", n, sign, err)
			}
		}
		px, py = c.add(px, py, x, y)
	}
	if px.Sign() != 0 || py.Cmp(big.NewInt(1)) != 0 {
		t.Error("the table's point is not of order 8")
	}
	if len(seen) != len(smallOrder) {
		t.Errorf("%d different y, the table has %d", len(seen), len(smallOrder))
	}
}

func TestUnreducedKeyIsRefused(t *testing.T) {
	p := newCurve().p
	for n := range int64(25) {
		y := new(big.Int).Add(p, big.NewInt(n-6))
		if y.BitLen() > 255 {
			break
		}
		// p - 1 is of small order, p - 2 to p - 6 are good.
		_, err := PublicKeyFrom(littleEndian(y))
		if got, want := err == nil, n < 5; got != want {
			t.Errorf("p + %d accepted: %v, want %v", n-6, got, want)
		}
	}
}

func TestPublicKeyIsAValue(t *testing.T) {
	a, b := testKey(t, 1), testKey(t, 2)
	if a == b || a != testKey(t, 1) {
		t.Error("== does not compare keys")
	}
	if (map[PublicKey]int{a: 1, b: 2})[testKey(t, 2)] != 2 {
		t.Error("not a map key")
	}
	want := bytes.Compare(a.Bytes(), b.Bytes())
	if a.Compare(b) != want || b.Compare(a) != -want || a.Compare(a) != 0 || want == 0 {
		t.Error("Compare does not order by bytes")
	}
	if a.IsZero() || !(PublicKey{}).IsZero() {
		t.Error("IsZero")
	}
}

func TestPublicKeyJSON(t *testing.T) {
	type doc struct{ Key, None PublicKey }
	in := doc{Key: testKey(t, 1)}
	b, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"Key":"` + in.Key.String() + `","None":""}`; string(b) != want {
		t.Errorf("got %s, want %s", b, want)
	}
	out := doc{None: testKey(t, 2)}
	if err := json.Unmarshal(b, &out); err != nil || out != in {
		t.Errorf("got %v, %v", out, err)
	}
	kept := out.Key
	if err := out.Key.UnmarshalText([]byte("nonsense")); !errors.Is(err, ErrBadPublicKey) || out.Key != kept {
		t.Errorf("after bad text: %v, %v", out.Key, err)
	}
}

// The zero key decodes to a point of order 4. For it the equation of RFC 8032 §5.1.7 has the solution S = 0,
// R = neutral whenever the hash is a multiple of 4: the test finds such a statement and would pass it without the check.
func TestZeroKeyVerifiesNothing(t *testing.T) {
	forged := make([]byte, ed25519.SignatureSize)
	forged[0] = 1 // the neutral element
	found := false
	for n := range byte(100) {
		s := Statement{Domain: "d", Body: []byte{n}}
		found = found || ed25519.Verify(make([]byte, 32), s.Bytes(), forged)
		if err := (PublicKey{}).Verify(s, forged); !errors.Is(err, ErrBadSignature) {
			t.Fatalf("body %d: %v", n, err)
		}
	}
	if !found {
		t.Error("no forgery among 100 statements: the test shows nothing")
	}
}

func FuzzParsePublicKey(f *testing.F) {
	f.Add(rfcText)
	f.Add("")
	f.Add(publicKeyPrefix)
	f.Add(rfcText + "\n")
	f.Fuzz(func(t *testing.T, s string) {
		k, err := ParsePublicKey(s)
		if (err == nil) == k.IsZero() {
			t.Fatalf("%q: %v, %v", s, k, err)
		}
		if err == nil && k.String() != s {
			t.Fatalf("%q and %q are one key", s, k)
		}
	})
}
