package keys

import (
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestContract: the figures that the documentation names are what they were.
func TestContract(t *testing.T) {
	for _, n := range []struct {
		name      string
		got, want int
	}{
		{"MaxNameSize", MaxNameSize, 255},
		{"MaxStatementSize", MaxStatementSize, 16_777_216},
		{"MaxKeyFileSize", MaxKeyFileSize, 65_536},
		{"MaxDirectorySize", MaxDirectorySize, 16_777_216},
		{"MaxDirectoryLine", MaxDirectoryLine, 4096},
		{"MaxDirectoryEntries", MaxDirectoryEntries, 100_000},
		{"MaxKeysPerAgent", MaxKeysPerAgent, 16},
		{"MaxRoles", MaxRoles, 32},
		{"MaxRoleSize", MaxRoleSize, 64},
		{"MaxSyntaxErrors", MaxSyntaxErrors, 100},
		{"MaxRemembered", MaxRemembered, 65_536},
		{"MaxEvidence", MaxEvidence, 16},
		{"MaxEvidenceSize", MaxEvidenceSize, 65_536},
		{"MaxCertificateSize", MaxCertificateSize, 16_384},
	} {
		if n.got != n.want {
			t.Errorf("%s is %d, and %d is documented", n.name, n.got, n.want)
		}
	}
	if learnPause != 5*time.Second {
		t.Errorf("learnPause is %v", learnPause)
	}
}

// TestSortedSet: the caller's slice stays as it is.
func TestSortedSet(t *testing.T) {
	in := []string{"b", "a", "b"}
	if got := sortedSet(in); !slices.Equal(got, []string{"a", "b"}) || !slices.Equal(in, []string{"b", "a", "b"}) {
		t.Errorf("%q of %q", got, in)
	}
}

// TestRememberErrorNamesNoTemporaryFile: a file that is gone tells an operator nothing.
func TestRememberErrorNamesNoTemporaryFile(t *testing.T) {
	for _, err := range []error{
		&fs.PathError{Op: "open", Path: "/keys/temporary", Err: syscall.EROFS},
		&os.LinkError{Op: "link", Old: "/keys/temporary", New: "/keys/agent", Err: syscall.EROFS},
		syscall.EROFS,
	} {
		e := &RememberError{ID: "agent-b", Path: "/keys", Err: err}
		if !errors.Is(e, syscall.EROFS) {
			t.Errorf("%v does not match its reason", e)
		}
		if s := e.Error(); strings.Contains(s, "temporary") || !strings.HasSuffix(s, "/keys: "+syscall.EROFS.Error()) || !strings.Contains(s, `"agent-b"`) {
			t.Error(s)
		}
	}
}

// TestOtherAlgorithms: what other key stands in a PKCS #8 file is named.
func TestOtherAlgorithms(t *testing.T) {
	for _, x := range []struct {
		oid  asn1.ObjectIdentifier
		says string
	}{
		{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}, "an RSA key"},
		{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}, "an RSA-PSS key"},
		{asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}, "an EC (elliptic curve) key"},
		{asn1.ObjectIdentifier{1, 2, 840, 10040, 4, 1}, "a DSA key"},
		{asn1.ObjectIdentifier{1, 3, 101, 110}, "an X25519 key, which cannot sign"},
		{asn1.ObjectIdentifier{1, 3, 101, 111}, "an X448 key, which cannot sign"},
		{asn1.ObjectIdentifier{1, 3, 101, 113}, "an Ed448 key"},
	} {
		der, err := asn1.Marshal(struct {
			Version   int
			Algorithm struct{ OID asn1.ObjectIdentifier }
			Key       []byte
		}{0, struct{ OID asn1.ObjectIdentifier }{x.oid}, []byte{4, 1, 0}})
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "k")
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		var e *KeyFileError
		if _, err := Load(path, "a"); !errors.As(err, &e) || e.Found != x.says {
			t.Errorf("%v: %v, want it to find %s", x.oid, err, x.says)
		}
	}
}

// TestSyntaxErrorText: a fault has a place in its line, or none.
func TestSyntaxErrorText(t *testing.T) {
	for want, e := range map[string]*SyntaxError{
		"keys: directory line 3: why":         {Line: 3, Reason: "why"},
		"keys: directory line 3, byte 1: why": {Line: 3, Reason: "why", Column: 1},
	} {
		if got := e.Error(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestLists: a composition lists agents when each of its members does.
func TestLists(t *testing.T) {
	lists, err := NewDirectory(DirectoryConfig{Path: writeDirectory(t)})
	if err != nil {
		t.Fatal(err)
	}
	for name, x := range map[string]struct {
		trust Trust
		want  bool
	}{
		"a directory":             {lists, true},
		"anybody":                 {TrustAny, false},
		"two directories":         {Compose(lists, lists), true},
		"a directory and anybody": {Compose(lists, TrustAny), false},
		"one within another":      {Compose(lists, Compose(TrustAny, lists)), false},
	} {
		if got := Lists(x.trust); got != x.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// writeDirectory writes a directory file without entries.
func writeDirectory(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agents")
	if err := os.WriteFile(path, []byte("# nobody\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestNoKeyIsNamed: what stands in place of a public key is named.
func TestNoKeyIsNamed(t *testing.T) {
	for text, says := range map[string]string{
		"":                            "nothing",
		"ssh-ed25519 AAAAC3NzaC1lZDI": "an OpenSSH public key",
		"SHA256:abc":                  "a fingerprint, which holds no key",
		"-----BEGIN PUBLIC KEY-----":  "PEM",
	} {
		if _, err := ParsePublicKey(text); !errors.Is(err, ErrBadPublicKey) || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want it to name %s", text, err, says)
		}
	}
}
