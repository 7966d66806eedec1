package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/infrafabric/agentmesh/keys"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// call runs the tool and returns what it printed.
func call(t *testing.T, wantCode int, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	if code := run(args, &out, &errs); code != wantCode {
		t.Fatalf("keytool %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), code, wantCode, &out, &errs)
	}
	return out.String(), errs.String()
}

// From nothing to a directory that a policy reads.
func TestFromKeyToDirectory(t *testing.T) {
	dir := t.TempDir()
	agents := filepath.Join(dir, "agents")
	var lines string
	for _, id := range []string{"agent-a", "#agent-b"} {
		key := filepath.Join(dir, id+".key")
		line, fingerprint := call(t, 0, "create", "-id", id, "-key", key)
		identity, err := keys.Load(key, id)
		if err != nil {
			t.Fatal(err)
		}
		if want := (keys.Entry{ID: id, Key: identity.PublicKey()}).String() + "\n"; line != want {
			t.Errorf("created %q, want %q", line, want)
		}
		if want := identity.PublicKey().Fingerprint() + "\n"; fingerprint != want {
			t.Errorf("fingerprint %q, want %q", fingerprint, want)
		}
		if shown, errs := call(t, 0, "show", "-id", id, "-key", key); shown != line+fingerprint || errs != "" {
			t.Errorf("shown %q, %q; want %q", shown, errs, line+fingerprint)
		}
		lines += line
	}
	if err := os.WriteFile(agents, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, _ := call(t, 0, "check", agents); out != "2 agents, 2 keys\n" {
		t.Errorf("checked: %q", out)
	}
	if _, err := keys.NewDirectory(keys.DirectoryConfig{Path: agents}); err != nil {
		t.Error(err)
	}
}

func TestCreateNeverReplaces(t *testing.T) {
	key := filepath.Join(t.TempDir(), "k")
	call(t, 0, "create", "-id", "a", "-key", key)
	before, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	if out, _ := call(t, 1, "create", "-id", "a", "-key", key); out != "" {
		t.Errorf("printed %q", out)
	}
	if after, err := os.ReadFile(key); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the key file changed, %v", err)
	}
}

func TestCheckPrintsEveryFault(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agents")
	if err := os.WriteFile(path, []byte("# agents\nagent-a\n\nagent*b x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, errs := call(t, 1, "check", path)
	if lines := strings.Split(errs, "\n"); out != "" || len(lines) != 3 || !strings.Contains(lines[0], "line 2:") || !strings.Contains(lines[1], "line 4:") {
		t.Errorf("printed %q, %q", out, errs)
	}
	call(t, 1, "check", path+"-absent")
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	call(t, 1, "check", path)
}

// What is given by mistake is named, and so are both lines of a key with two names.
func TestMistakesAreNamed(t *testing.T) {
	dir := t.TempDir()
	key, agents := filepath.Join(dir, "k"), filepath.Join(dir, "agents")
	line, _ := call(t, 0, "create", "-id", "agent-a", "-key", key)
	for text, want := range map[string]string{
		line + strings.Replace(line, "agent-a", "agent-b", 1): `line 2: agent "agent-b" has the key of agent "agent-a" on line 1`,
		"\ufeff" + line: "byte order mark",
		"agent-a ssh-ed25519 AAAAC3NzaC1lZDI1NTE5\n": "OpenSSH public key",
	} {
		if err := os.WriteFile(agents, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, errs := call(t, 1, "check", agents); !strings.Contains(errs, want) {
			t.Errorf("printed %q, want %q", errs, want)
		}
	}
	if _, errs := call(t, 1, "show", "-id", "agent-a", "-key", agents); !strings.Contains(errs, agents) || !strings.Contains(errs, "found ") {
		t.Errorf("a directory in place of a key: %q", errs)
	}
}

func TestFailures(t *testing.T) {
	dir := t.TempDir()
	call(t, 1, "create", "-id", "a b", "-key", filepath.Join(dir, "k"))
	call(t, 1, "create", "-id", "a", "-key", filepath.Join(dir, "absent", "k"))
	call(t, 1, "show", "-id", "a", "-key", filepath.Join(dir, "k"))
	if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
		t.Errorf("files %v, %v", files, err)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{
		{}, {"help"}, {"create"}, {"create", "-id", "a"}, {"create", "-key", "k"}, {"create", "-id", "a", "-key", "k", "more"},
		{"show"}, {"show", "-no-such-flag"}, {"check"}, {"check", "a", "b"}, {"check", "-x"},
	} {
		if out, errs := call(t, 2, args...); out != "" || !strings.Contains(errs, "usage:") {
			t.Errorf("%v: printed %q, %q", args, out, errs)
		}
	}
	call(t, 0, "create", "-h")
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestOutputThatCannotBeWritten(t *testing.T) {
	key := filepath.Join(t.TempDir(), "k")
	call(t, 0, "create", "-id", "a", "-key", key)
	var errs bytes.Buffer
	if code := run([]string{"show", "-id", "a", "-key", key}, brokenWriter{}, &errs); code != 1 {
		t.Errorf("exit code %d", code)
	}
}
