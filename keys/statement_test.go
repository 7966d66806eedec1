package keys

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"testing"
)

type statementVector struct {
	Domain, Mesh, From, To, Body, Bytes, Signature string
}

func (v statementVector) statement(t *testing.T) (s Statement, encoded, sig []byte) {
	t.Helper()
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	return Statement{v.Domain, v.Mesh, v.From, v.To, unhex(v.Body)}, unhex(v.Bytes), unhex(v.Signature)
}

func statementVectors(t *testing.T) (vectors []statementVector) {
	t.Helper()
	if err := json.Unmarshal(readFile(t, "testdata/statements.json"), &vectors); err != nil || len(vectors) == 0 {
		t.Fatal(len(vectors), err)
	}
	return vectors
}

func TestStatementVectors(t *testing.T) {
	private, _, reason := parseKey(readFile(t, "testdata/rfc8032.pem"))
	if reason != "" {
		t.Fatal(reason)
	}
	id, err := NewIdentity("agent-a", private)
	if err != nil {
		t.Fatal(err)
	}
	if id.PublicKey() != rfcKey(t) {
		t.Fatalf("key %v", id.PublicKey())
	}
	for i, v := range statementVectors(t) {
		s, encoded, sig := v.statement(t)
		if got := s.Bytes(); !bytes.Equal(got, encoded) {
			t.Errorf("%d: bytes %x, want %x", i, got, encoded)
		}
		if got, err := id.Sign(s); err != nil || !bytes.Equal(got, sig) {
			t.Errorf("%d: signature %x, %v, want %x", i, got, err, sig)
		}
		if err := rfcKey(t).Verify(s, sig); err != nil {
			t.Errorf("%d: %v", i, err)
		}
	}
}

// A signature is for one purpose, mesh, pair and body.
func TestSignatureCoversEveryPart(t *testing.T) {
	id := testIdentity(t, "agent-a", 1)
	base := Statement{"agentmesh/v1 offer", "m", "agent-a", "agent-b", []byte("body")}
	sig, err := id.Sign(base)
	if err != nil {
		t.Fatal(err)
	}
	other := map[string]Statement{
		"domain":      {"agentmesh/v1 answer", "m", "agent-a", "agent-b", []byte("body")},
		"mesh":        {"agentmesh/v1 offer", "n", "agent-a", "agent-b", []byte("body")},
		"from":        {"agentmesh/v1 offer", "m", "agent-c", "agent-b", []byte("body")},
		"to":          {"agentmesh/v1 offer", "m", "agent-a", "agent-c", []byte("body")},
		"swapped":     {"agentmesh/v1 offer", "m", "agent-b", "agent-a", []byte("body")},
		"body":        {"agentmesh/v1 offer", "m", "agent-a", "agent-b", []byte("Body")},
		"byte moved":  {"agentmesh/v1 offer", "m", "agent-a", "agent-bb", []byte("ody")},
		"part moved":  {"agentmesh/v1 offer", "", "magent-a", "agent-b", []byte("body")},
		"body absent": {"agentmesh/v1 offer", "m", "agent-a", "agent-b", nil},
	}
	pub := id.PublicKey()
	for name, s := range other {
		if err := pub.Verify(s, sig); !errors.Is(err, ErrBadSignature) {
			t.Errorf("another %s verifies: %v", name, err)
		}
	}
	if err := pub.Verify(base, sig); err != nil {
		t.Error(err)
	}
	if err := testKey(t, 2).Verify(base, sig); !errors.Is(err, ErrBadSignature) {
		t.Errorf("another key verifies: %v", err)
	}
	for n := range len(sig) {
		if err := pub.Verify(base, sig[:n]); !errors.Is(err, ErrBadSignature) {
			t.Errorf("%d bytes of signature verify: %v", n, err)
		}
		bad := slices.Clone(sig)
		bad[n] ^= 1
		if err := pub.Verify(base, bad); !errors.Is(err, ErrBadSignature) {
			t.Errorf("signature with another byte %d verifies: %v", n, err)
		}
	}
	if err := pub.Verify(base, append(slices.Clone(sig), 0)); !errors.Is(err, ErrBadSignature) {
		t.Errorf("65 bytes of signature verify: %v", err)
	}
}

func TestStatementLimits(t *testing.T) {
	id := testIdentity(t, "a", 1)
	fits := Statement{Domain: "d", Body: make([]byte, MaxStatementSize-21)}
	sig, err := id.Sign(fits)
	if err != nil {
		t.Fatal(err)
	}
	if err := id.PublicKey().Verify(fits, sig); err != nil {
		t.Error(err)
	}
	for name, s := range map[string]Statement{
		"too large": {Domain: "d", Body: make([]byte, MaxStatementSize-20)},
		"no domain": {Mesh: "m", From: "a", To: "b", Body: []byte("x")},
	} {
		if _, err := id.Sign(s); !errors.Is(err, ErrStatement) {
			t.Errorf("%s: signed: %v", name, err)
		}
		if err := id.PublicKey().Verify(s, sig); !errors.Is(err, ErrBadSignature) || !errors.Is(err, ErrStatement) {
			t.Errorf("%s: verified: %v", name, err)
		}
	}
}

func BenchmarkSign(b *testing.B) {
	id := testIdentity(b, "a", 1)
	s := Statement{Domain: "agentmesh/v1 batch", Mesh: "m", From: "a", To: "b", Body: make([]byte, 64)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := id.Sign(s); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	id := testIdentity(b, "a", 1)
	s := Statement{Domain: "agentmesh/v1 batch", Mesh: "m", From: "a", To: "b", Body: make([]byte, 64)}
	sig, _ := id.Sign(s)
	k := id.PublicKey()
	b.ReportAllocs()
	for b.Loop() {
		if err := k.Verify(s, sig); err != nil {
			b.Fatal(err)
		}
	}
}
