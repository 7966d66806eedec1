package keys_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/infrafabric/agentmesh/keys"
)

// exampleIdentity has a key that never changes, so that examples print the same each time. Programs use
// LoadOrGenerate.
func exampleIdentity(id string, n byte) *keys.Identity {
	seed := make([]byte, ed25519.SeedSize)
	seed[0] = n
	i, err := keys.NewIdentity(id, ed25519.NewKeyFromSeed(seed))
	if err != nil {
		log.Fatal(err)
	}
	return i
}

func exampleDir() (dir string, remove func()) {
	dir, err := os.MkdirTemp("", "keys")
	if err != nil {
		log.Fatal(err)
	}
	return dir, func() { _ = os.RemoveAll(dir) }
}

// An agent that makes its key when it is started for the first time.
func ExampleLoadOrGenerate() {
	dir, remove := exampleDir()
	defer remove()
	path := filepath.Join(dir, "agent-a.key")

	first, err := keys.LoadOrGenerate(path, "agent-a")
	if err != nil {
		log.Fatal(err)
	}
	again, err := keys.LoadOrGenerate(path, "agent-a")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(first.ID(), first.PublicKey() == again.PublicKey())
	// Output: agent-a true
}

func ExampleLoad() {
	_, err := keys.Load("no-such.key", "agent-a")
	fmt.Println(errors.Is(err, os.ErrNotExist))
	// Output: true
}

func ExampleGenerate() {
	dir, remove := exampleDir()
	defer remove()
	path := filepath.Join(dir, "agent-a.key")

	id, err := keys.Generate("agent-a")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(id.Save(path))
	fmt.Println(errors.Is(id.Save(path), os.ErrExist)) // never replaced
	// Output:
	// <nil>
	// true
}

// Any crypto.Signer with an Ed25519 key will do, such as that of a key management service.
func ExampleNewIdentity() {
	signer := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	id, err := keys.NewIdentity("if://agent/swarm/legal-1@1.2.0", signer)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(id) // never shows the private key
	// Output: if://agent/swarm/legal-1@1.2.0 SHA256:E545QOZLVJFyIIjZoNdBYo/IJuCUddNBp4Cs3jxLgHA
}

// A signature is valid for its own domain, mesh and parties only.
func ExampleIdentity_Sign() {
	a := exampleIdentity("agent-a", 1)
	offer := keys.Statement{Domain: "example/v1 offer", Mesh: "acme-prod", From: "agent-a", To: "agent-b", Body: []byte("v=0")}
	sig, err := a.Sign(offer)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(a.PublicKey().Verify(offer, sig))

	answer := offer
	answer.Domain = "example/v1 answer"
	fmt.Println(a.PublicKey().Verify(answer, sig))
	// Output:
	// <nil>
	// keys: verify: signature does not verify
}

func ExampleStatement_Bytes() {
	fmt.Printf("%q\n", keys.Statement{Domain: "d", Mesh: "m", From: "a", To: "b", Body: []byte("xyz")}.Bytes())
	// Output: "\x00\x00\x00\x01d\x00\x00\x00\x01m\x00\x00\x00\x01a\x00\x00\x00\x01b\x00\x00\x00\x03xyz"
}

func ExampleParsePublicKey() {
	k, err := keys.ParsePublicKey("ed25519:11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")
	fmt.Println(k, err)
	fmt.Println(k.Fingerprint())
	// Output:
	// ed25519:11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo <nil>
	// SHA256:If4x36FUomFia/hUBG/SJxt77UtqvkWqWId+9H+XIbk
}

func ExampleParseDirectory() {
	entries, err := keys.ParseDirectory(strings.NewReader(`
# agents of acme-prod
agent-a ed25519:11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo
agent-b ed25519:PUAXw-hDiVqStwqnTRt-vJyYLM8uxJaMwM1V8Sr0Zgw operator # may rotate keys
`))
	if err != nil {
		log.Fatal(err)
	}
	for _, e := range entries {
		fmt.Println(e.ID, e.Roles)
	}
	// Output:
	// agent-a []
	// agent-b [operator]
}

func ExampleSyntaxErrors() {
	_, err := keys.ParseDirectory(strings.NewReader("agent-a\nagent*b key\n"))
	var faults keys.SyntaxErrors
	if errors.As(err, &faults) {
		for _, f := range faults {
			fmt.Printf("line %d: %s\n", f.Line, f.Reason)
		}
	}
	// Output:
	// line 1: no key after the agent ID
	// line 2: agent ID "agent*b": byte 5 (0x2a) is not allowed
}

func ExampleNewDirectory() {
	dir, remove := exampleDir()
	defer remove()
	path := filepath.Join(dir, "agents")
	a, other := exampleIdentity("agent-a", 1), exampleIdentity("agent-a", 2)
	line := keys.Entry{ID: "agent-a", Key: a.PublicKey(), Roles: []string{"operator"}}.String()
	if err := os.WriteFile(path, []byte(line+"\n"), 0o644); err != nil {
		log.Fatal(err)
	}

	trust, err := keys.NewDirectory(keys.DirectoryConfig{
		Path:     path,
		OnReload: func(err error) { log.Print("directory of agents: ", err) },
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	v, err := keys.Check(ctx, trust, keys.Claim{ID: "agent-a", Key: a.PublicKey(), Time: time.Now()})
	fmt.Println(v.Decision, v.Roles, err)
	v, err = keys.Check(ctx, trust, keys.Claim{ID: "agent-a", Key: other.PublicKey(), Time: time.Now()})
	var mismatch *keys.KeyMismatchError
	fmt.Println(v.Decision, errors.As(err, &mismatch))
	v, err = keys.Check(ctx, trust, keys.Claim{ID: "agent-b", Key: other.PublicKey(), Time: time.Now()})
	fmt.Println(v.Decision, err)
	// Output:
	// yes [operator] <nil>
	// refused true
	// unknown <nil>
}

func ExampleNewFirstUse() {
	dir, remove := exampleDir()
	defer remove()
	trust, err := keys.NewFirstUse(keys.FirstUseConfig{Path: filepath.Join(dir, "known-agents")})
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	claim := keys.Claim{ID: "agent-b", Key: exampleIdentity("agent-b", 1).PublicKey(), Time: time.Now()}
	v, err := keys.Check(ctx, trust, claim)
	fmt.Println(v.Decision, err)

	// agent-b was dialled and proved its key.
	learned, err := keys.Learn(ctx, trust, claim)
	fmt.Println(learned, err)
	v, err = keys.Check(ctx, trust, claim)
	fmt.Println(v.Decision, err)

	claim.Key = exampleIdentity("agent-b", 2).PublicKey()
	v, err = keys.Check(ctx, trust, claim)
	var changed *keys.KeyChangedError
	fmt.Println(v.Decision, errors.As(err, &changed))
	// Output:
	// unknown <nil>
	// true <nil>
	// yes <nil>
	// refused true
}

// Agents in the directory have roles, others are remembered when they are met.
func ExampleCompose() {
	dir, remove := exampleDir()
	defer remove()
	path := filepath.Join(dir, "agents")
	if err := os.WriteFile(path, []byte("# nobody yet\n"), 0o644); err != nil {
		log.Fatal(err)
	}
	directory, err := keys.NewDirectory(keys.DirectoryConfig{Path: path})
	if err != nil {
		log.Fatal(err)
	}
	known, err := keys.NewFirstUse(keys.FirstUseConfig{Path: filepath.Join(dir, "known-agents")})
	if err != nil {
		log.Fatal(err)
	}
	trust := keys.Compose(directory, known)

	ctx := context.Background()
	a, b := exampleIdentity("agent-a", 1), exampleIdentity("agent-a", 2)
	claim := keys.Claim{ID: "agent-a", Key: a.PublicKey(), Time: time.Now()}
	if _, err := keys.Learn(ctx, trust, claim); err != nil {
		log.Fatal(err)
	}
	v, err := keys.Check(ctx, trust, claim)
	fmt.Println(v.Decision, err)

	// The operator lists another key: the directory's refusal wins over what is remembered.
	line := keys.Entry{ID: "agent-a", Key: b.PublicKey()}.String()
	if err := os.WriteFile(path, []byte(line+"\n"), 0o644); err != nil {
		log.Fatal(err)
	}
	v, err = keys.Check(ctx, trust, claim)
	fmt.Println(v.Decision, errors.Is(err, keys.ErrRefused))
	// Output:
	// yes <nil>
	// refused true
}

func ExampleFind() {
	dir, remove := exampleDir()
	defer remove()
	trust, err := keys.NewFirstUse(keys.FirstUseConfig{Path: dir})
	if err != nil {
		log.Fatal(err)
	}
	found, err := keys.Find(context.Background(), trust, "agent-b")
	fmt.Println(found, err)
	// Output: [] <nil>
}

func ExampleCheck() {
	claim := keys.Claim{ID: "agent-a", Key: exampleIdentity("agent-a", 1).PublicKey(), Time: time.Now()}
	v, err := keys.Check(context.Background(), keys.TrustAny, claim)
	fmt.Println(v.Decision, err)

	claim.ID = "*"
	v, err = keys.Check(context.Background(), keys.TrustAny, claim)
	fmt.Println(v.Decision, err)
	// Output:
	// yes <nil>
	// refused keys: trust: agent "*" refused: agent ID "*": byte 0 (0x2a) is not allowed
}

func ExampleNewCertificate() {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	c, err := keys.NewCertificate(now)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(c.Leaf.Subject, c.Leaf.NotAfter.Format(time.DateOnly))
	fmt.Println(keys.CheckCertificate(c.Leaf.Raw, now))
	fmt.Println(keys.CheckCertificate(c.Leaf.Raw, now.Add(31*24*time.Hour)))
	// Output:
	// CN=WebRTC 2026-12-23
	// <nil>
	// keys: check: certificate: valid until 2026-12-23T12:00:00Z, now it is 2026-12-24T12:00:00Z
}

func ExampleParseFingerprint() {
	f := keys.FingerprintOf([]byte("certificate in DER"))
	parsed, err := keys.ParseFingerprint(strings.ToLower(f.String()))
	fmt.Println(parsed == f, err)
	// Output: true <nil>
}

func ExampleCheckAgentID() {
	fmt.Println(keys.CheckAgentID("spiffe://acme/billing"))
	fmt.Println(keys.CheckAgentID("agent a"))
	// Output:
	// <nil>
	// keys: agent ID "agent a": byte 5 (0x20) is not allowed
}
