package keys

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestSaveAndLoad(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "agent-a.key")
	id := testIdentity(t, "agent-a", 1)
	if err := id.Save(path); err != nil {
		t.Fatal(err)
	}
	back, err := Load(path, "agent-a")
	if err != nil {
		t.Fatal(err)
	}
	if back.ID() != "agent-a" || back.PublicKey() != id.PublicKey() {
		t.Errorf("loaded %v, saved %v", back, id)
	}
	s := Statement{Domain: "d"}
	sig, err := back.Sign(s)
	if err == nil {
		err = id.PublicKey().Verify(s, sig)
	}
	if err != nil {
		t.Error(err)
	}
	if names := list(t, dir); len(names) != 1 {
		t.Errorf("files left: %v", names)
	}
}

func list(t *testing.T, dir string) (names []string) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		names = append(names, f.Name())
	}
	return names
}

func TestSaveNeverReplaces(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "k")
	if err := testIdentity(t, "a", 1).Save(path); err != nil {
		t.Fatal(err)
	}
	before := readFile(t, path)
	if err := testIdentity(t, "a", 2).Save(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second save: %v", err)
	}
	if !bytes.Equal(before, readFile(t, path)) {
		t.Error("the file changed")
	}
	if names := list(t, dir); len(names) != 1 {
		t.Errorf("files left: %v", names)
	}
	absent := filepath.Join(dir, "absent", "k")
	if err := testIdentity(t, "a", 1).Save(absent); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), absent) {
		t.Errorf("into a missing directory: %v", err)
	}
	noLinks := func(string, []byte, func(string) error) error {
		return fmt.Errorf("%w: %w", errNoLinks, fs.ErrPermission)
	}
	if err := testIdentity(t, "a", 1).saveBy(noLinks, absent); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), absent) || !strings.Contains(err.Error(), "hard links") {
		t.Errorf("without links: %v", err)
	}
}

func TestLoadMissing(t *testing.T) {
	if _, err := Load(filepath.Join(t.TempDir(), "k"), "a"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestKeyFileVectors(t *testing.T) {
	private, _, reason := parseKey(readFile(t, "testdata/rfc8032.pem"))
	if reason != "" {
		t.Fatal(reason)
	}
	// What Save writes is what OpenSSL writes, to the byte.
	id, err := NewIdentity("a", private)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "k")
	if err := id.Save(path); err != nil {
		t.Fatal(err)
	}
	if got := readFile(t, path); !bytes.Equal(got, readFile(t, "testdata/rfc8032.pem")) {
		t.Errorf("saved\n%s", got)
	}
}

func TestEveryTruncationOfAKeyFileIsAnError(t *testing.T) {
	whole := readFile(t, "testdata/rfc8032.pem")
	for n := range len(whole) - 1 { // without its last line feed it is still whole
		if k, _, reason := parseKey(whole[:n]); reason == "" || k != nil {
			t.Errorf("%d of %d bytes: %d bytes of key, %q", n, len(whole), len(k), reason)
		}
	}
}

func TestRefusedKeyFiles(t *testing.T) {
	good := string(readFile(t, "testdata/rfc8032.pem"))
	block, _ := pem.Decode([]byte(good))
	encode := func(b pem.Block) string { return string(pem.EncodeToMemory(&b)) }
	for name, text := range map[string]string{
		"empty":             "",
		"not PEM":           "secret-of-mine",
		"text in front":     "secret-of-mine\n" + good,
		"text behind":       good + "secret-of-mine\n",
		"two keys":          good + good,
		"broken key before": "-----BEGIN PRIVATE KEY-----\nsecret-of-mine\n" + good,
		"certificate":       encode(pem.Block{Type: "CERTIFICATE", Bytes: block.Bytes}),
		"public key":        encode(pem.Block{Type: "PUBLIC KEY", Bytes: block.Bytes}),
		"SEC 1":             encode(pem.Block{Type: "EC PRIVATE KEY", Bytes: block.Bytes}),
		"encrypted":         encode(pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: block.Bytes}),
		"headers":           encode(pem.Block{Type: keyBlock, Headers: map[string]string{"DEK-Info": "secret-of-mine"}, Bytes: block.Bytes}),
		"DER behind":        encode(pem.Block{Type: keyBlock, Bytes: append(bytes.Clone(block.Bytes), 5, 0)}),
		"not DER":           encode(pem.Block{Type: keyBlock, Bytes: []byte("secret-of-mine")}),
		"no DER":            encode(pem.Block{Type: keyBlock}),
		"ECDSA":             string(readFile(t, "testdata/p256.pem")),
		"short seed":        encode(pem.Block{Type: keyBlock, Bytes: append([]byte("\x30\x2d\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x21\x04\x1f"), block.Bytes[16:47]...)}),
		"too large":         good + strings.Repeat("\n", MaxKeyFileSize),
		"damaged base64":    strings.Replace(good, "MC4", "M!4", 1),
		"another END line":  strings.Replace(good, "-----END PRIVATE", "-----END PUBLIC", 1),
	} {
		path := filepath.Join(t.TempDir(), "k")
		writeFile(t, path, text)
		_, err := Load(path, "a")
		var e *KeyFileError
		switch {
		case name == "too large" && errors.Is(err, errTooLarge):
		case !errors.As(err, &e) || e.Path != path:
			t.Errorf("%s: %v, want a KeyFileError about it", name, err)
		}
		if err != nil && (strings.Contains(err.Error(), "secret-of-mine") || strings.Contains(err.Error(), "MC4C")) {
			t.Errorf("%s: the error shows the content: %v", name, err)
		}
	}
	path := filepath.Join(t.TempDir(), "k")
	writeFile(t, path, strings.ReplaceAll(good, "\n", "\r\n"))
	if _, err := Load(path, "a"); err != nil {
		t.Errorf("with Windows line ends: %v", err)
	}
	if _, err := Load(t.TempDir(), "a"); !errors.Is(err, errNotRegular) {
		t.Errorf("a directory: %v", err)
	}
}

func TestLoadOrGenerate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "k")
	first, err := LoadOrGenerate(path, "a")
	if err != nil {
		t.Fatal(err)
	}
	second, err := LoadOrGenerate(path, "a")
	if err != nil || second.PublicKey() != first.PublicKey() {
		t.Errorf("%v, %v; want the key of before, %v", second, err, first)
	}
	// A broken key is not replaced: that would be a new identity in silence.
	writeFile(t, path, "")
	var e *KeyFileError
	if _, err := LoadOrGenerate(path, "a"); !errors.As(err, &e) {
		t.Errorf("broken file: %v", err)
	}
	if len(readFile(t, path)) != 0 {
		t.Error("the broken file was replaced")
	}
}

func TestLoadOrGenerateTogether(t *testing.T) {
	path := filepath.Join(t.TempDir(), "k")
	var wg sync.WaitGroup
	got := make([]PublicKey, 16)
	for n := range got {
		wg.Go(func() {
			id, err := LoadOrGenerate(path, "a")
			if err != nil {
				t.Error(err)
				return
			}
			got[n] = id.PublicKey()
		})
	}
	wg.Wait()
	for _, k := range got {
		if k != got[0] {
			t.Errorf("keys %v and %v", k, got[0])
		}
	}
}

func TestProcessesLoadOrGenerateTogether(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "k")
	const processes = 4
	var out [processes]bytes.Buffer
	var cmds [processes]*exec.Cmd
	for n := range cmds {
		cmds[n] = exec.CommandContext(t.Context(), self)
		cmds[n].Env = append(os.Environ(), childEnv+"="+path)
		cmds[n].Stdout, cmds[n].Stderr = &out[n], &out[n]
		if err := cmds[n].Start(); err != nil {
			t.Fatal(err)
		}
	}
	for n := range cmds {
		if err := cmds[n].Wait(); err != nil {
			t.Errorf("%v: %s", err, &out[n])
		}
	}
	id, err := Load(path, "agent-a")
	if err != nil {
		t.Fatal(err)
	}
	for n := range out {
		if got := strings.TrimSpace(out[n].String()); got != id.PublicKey().String() {
			t.Errorf("a process has %s, the file %v", got, id.PublicKey())
		}
	}
}

func FuzzKeyFile(f *testing.F) {
	f.Add(readFile(f, "testdata/rfc8032.pem"))
	f.Add(readFile(f, "testdata/p256.pem"))
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"))
	for _, half := range publicHalves(f) {
		f.Add(pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: half.der}))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		k, found, reason := parseKey(data)
		if (k == nil) != (found != "") || (found == "") != (reason == "") {
			t.Fatalf("%d bytes of key, found %q, reason %q", len(k), found, reason)
		}
		if k == nil {
			return
		}
		// The standard library, which does not look at a public half, reads the same key.
		block, _ := pem.Decode(data)
		if other, err := x509.ParsePKCS8PrivateKey(block.Bytes); err != nil || !k.Equal(other.(ed25519.PrivateKey)) {
			t.Fatalf("the standard library reads another key, %v", err)
		}
		if _, err := NewIdentity("a", k); err != nil {
			t.Fatal(err)
		}
		if len(k) != ed25519.PrivateKeySize {
			t.Fatal(len(k))
		}
	})
}
