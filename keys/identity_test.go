package keys

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"testing"
)

// fakeKMS signs with sign and claims to hold public.
type fakeKMS struct {
	public crypto.PublicKey
	sign   func(message []byte) ([]byte, error)
}

func (k fakeKMS) Public() crypto.PublicKey { return k.public }

func (k fakeKMS) Sign(_ io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts.HashFunc() != 0 {
		return nil, errors.New("asked to sign a hash")
	}
	return k.sign(message)
}

func TestSignerOutside(t *testing.T) {
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))
	other := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, 32))
	s := Statement{Domain: "d", Body: []byte("x")}
	down := errors.New("service is down")
	for _, tt := range []struct {
		name string
		sign func([]byte) ([]byte, error)
		want error
	}{
		{"good", func(m []byte) ([]byte, error) { return ed25519.Sign(private, m), nil }, nil},
		{"wrong key", func(m []byte) ([]byte, error) { return ed25519.Sign(other, m), nil }, ErrSigner},
		{"wrong message", func(m []byte) ([]byte, error) { return ed25519.Sign(private, m[1:]), nil }, ErrSigner},
		{"short", func(m []byte) ([]byte, error) { return ed25519.Sign(private, m)[:63], nil }, ErrSigner},
		{"long", func(m []byte) ([]byte, error) { return append(ed25519.Sign(private, m), 0), nil }, ErrSigner},
		{"nothing", func([]byte) ([]byte, error) { return nil, nil }, ErrSigner},
		{"error", func([]byte) ([]byte, error) { return nil, down }, down},
	} {
		id, err := NewIdentity("agent-a", fakeKMS{private.Public(), tt.sign})
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		sig, err := id.Sign(s)
		if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		if (sig == nil) != (tt.want != nil) {
			t.Errorf("%s: signature %x", tt.name, sig)
		}
		if err := id.Save(t.TempDir() + "/k"); !errors.Is(err, ErrNotExportable) {
			t.Errorf("%s: saved: %v", tt.name, err)
		}
	}
}

func TestUnusableSigners(t *testing.T) {
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))
	foreign := bytes.Clone(private)
	foreign[63] ^= 1
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, signer := range map[string]crypto.Signer{
		"nil":                 nil,
		"nil private key":     ed25519.PrivateKey(nil),
		"short private key":   private[:32],
		"foreign public half": ed25519.PrivateKey(foreign),
		"ECDSA":               ec,
		"no public key":       fakeKMS{},
		"short public key":    fakeKMS{public: ed25519.PublicKey{1, 2, 3}},
		"zero public key":     fakeKMS{public: make(ed25519.PublicKey, 32)},
	} {
		if id, err := NewIdentity("agent-a", signer); !errors.Is(err, ErrSigner) || id != nil {
			t.Errorf("%s: %v, %v", name, id, err)
		}
	}
	var zero Identity
	if _, err := zero.Sign(Statement{Domain: "d"}); !errors.Is(err, ErrSigner) {
		t.Errorf("zero identity signs: %v", err)
	}
	if err := zero.Save(t.TempDir() + "/k"); !errors.Is(err, ErrNotExportable) {
		t.Errorf("zero identity saves: %v", err)
	}
}

func TestIdentityOwnsItsKey(t *testing.T) {
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))
	id, err := NewIdentity("agent-a", private)
	if err != nil {
		t.Fatal(err)
	}
	clear(private)
	s := Statement{Domain: "d"}
	sig, err := id.Sign(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := id.PublicKey().Verify(s, sig); err != nil {
		t.Error(err)
	}
}

func TestIdentityNames(t *testing.T) {
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))
	for name, make := range map[string]func(id string) (*Identity, error){
		"NewIdentity":    func(id string) (*Identity, error) { return NewIdentity(id, private) },
		"Generate":       Generate,
		"Load":           func(id string) (*Identity, error) { return Load("absent", id) },
		"LoadOrGenerate": func(id string) (*Identity, error) { return LoadOrGenerate(t.TempDir()+"/k", id) },
	} {
		var e *NameError
		if _, err := make("agent a"); !errors.As(err, &e) {
			t.Errorf("%s: %v, want a NameError", name, err)
		}
	}
}

func TestGenerateIsRandom(t *testing.T) {
	a, err := Generate("agent-a")
	if err != nil {
		t.Fatal(err)
	}
	b, err := Generate("agent-a")
	if err != nil {
		t.Fatal(err)
	}
	if a.PublicKey() == b.PublicKey() || a.ID() != "agent-a" {
		t.Error("two identities with one key")
	}
}

func TestIdentityIsNotComparable(t *testing.T) {
	if reflect.TypeFor[Identity]().Comparable() {
		t.Error("identities can be compared with ==")
	}
}

func TestIdentitySignsConcurrently(t *testing.T) {
	id := testIdentity(t, "agent-a", 1)
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			s := Statement{Domain: "d", Body: []byte{byte(n)}}
			sig, err := id.Sign(s)
			if err == nil {
				err = id.PublicKey().Verify(s, sig)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// No way of printing shows the private key, of a value or a pointer, alone or within something that knows
// nothing of it.
func TestPrivateKeyIsNeverShown(t *testing.T) {
	private, _, _ := parseKey(readFile(t, "testdata/rfc8032.pem"))
	id, err := NewIdentity("agent-a", private)
	if err != nil {
		t.Fatal(err)
	}
	seed := private.Seed()
	numbers := fmt.Sprint(seed[:4])
	secrets := []string{
		string(seed[:4]),
		hex.EncodeToString(seed[:4]),
		strings.ToUpper(hex.EncodeToString(seed[:4])),
		base64.StdEncoding.EncodeToString(seed[:6]),
		strings.Trim(numbers, "[]"),
		strings.ReplaceAll(strings.Trim(numbers, "[]"), " ", ","),
		strings.ReplaceAll(strings.Trim(numbers, "[]"), " ", ", "),
		strings.Trim(fmt.Sprintf("%#v", seed[:4]), "[]byte{}"),
		strings.Trim(fmt.Sprintf("%b", seed[:4]), "[]"),
		strings.Trim(fmt.Sprintf("%o", seed[:4]), "[]"),
	}
	type Exported struct {
		Value   Identity
		Pointer *Identity
	}
	type hidden struct {
		value   Identity
		pointer *Identity
	}
	var shown []string
	for _, v := range []any{
		*id, id, &id, []Identity{*id}, []*Identity{id}, map[string]any{"id": *id},
		Exported{*id, id}, hidden{*id, id}, &hidden{*id, id},
	} {
		for _, verb := range []string{"v", "+v", "#v", "s", "q", "d", "x", "X", "o", "b", "c", "U", "t", "e", "08x", "# x"} {
			shown = append(shown, fmt.Sprintf("%"+verb, v))
		}
		if b, err := json.Marshal(v); err == nil {
			shown = append(shown, string(b))
		}
		var b bytes.Buffer
		if gob.NewEncoder(&b).Encode(v) == nil {
			shown = append(shown, b.String())
		}
		b.Reset()
		slog.New(slog.NewTextHandler(&b, nil)).Info("m", "v", v)
		slog.New(slog.NewJSONHandler(&b, nil)).Info("m", "v", v)
		shown = append(shown, b.String())
	}
	for _, s := range shown {
		for _, secret := range secrets {
			if strings.Contains(s, secret) {
				t.Fatalf("shown as %q: %s", secret, s)
			}
		}
	}
}

func TestIdentityForms(t *testing.T) {
	private, _, _ := parseKey(readFile(t, "testdata/rfc8032.pem"))
	id, err := NewIdentity("agent-a", private)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(id)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})).Info("m", "self", id)
	for _, tt := range []struct{ got, want string }{
		{fmt.Sprintf("%v", id), "agent-a " + rfcFingerprint},
		{fmt.Sprintf("%d", *id), "agent-a " + rfcFingerprint},
		{fmt.Sprintf("%q", id), `"agent-a ` + rfcFingerprint + `"`},
		{fmt.Sprintf("%#v", id), `keys.Identity{ID: "agent-a", PublicKey: "` + rfcText + `"}`},
		{string(b), `{"id":"agent-a","public_key":"` + rfcText + `"}`},
		{log.String(), "level=INFO msg=m self.id=agent-a self.key=" + rfcFingerprint + "\n"},
	} {
		if tt.got != tt.want {
			t.Errorf("got %s, want %s", tt.got, tt.want)
		}
	}
}
