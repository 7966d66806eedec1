package keys

import (
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// Set in processes that a test starts from its own binary: they load or generate the identity in this file and
// print its public key.
const childEnv = "KEYS_TEST_LOAD_OR_GENERATE"

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		id, err := LoadOrGenerate(path, "agent-a")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(id.PublicKey())
		return
	}
	goleak.VerifyTestMain(m)
}

// epoch is the present of tests that need one.
var epoch = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// testIdentity returns the identity whose seed is 32 times n.
func testIdentity(t testing.TB, id string, n byte) *Identity {
	t.Helper()
	seed := make([]byte, ed25519.SeedSize)
	for i := range seed {
		seed[i] = n
	}
	i, err := NewIdentity(id, ed25519.NewKeyFromSeed(seed))
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func testKey(t testing.TB, n byte) PublicKey { return testIdentity(t, "x", n).PublicKey() }

func claim(t testing.TB, id string, n byte) Claim {
	return Claim{ID: id, Key: testKey(t, n), Time: epoch}
}

// writeFile writes a file in place.
func writeFile(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// replaceFile renames a new file over path.
func replaceFile(t testing.TB, path, text string) {
	t.Helper()
	next := filepath.Join(filepath.Dir(path), "next")
	writeFile(t, next, text)
	if err := os.Rename(next, path); err != nil {
		t.Fatal(err)
	}
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
