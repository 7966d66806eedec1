//go:build unix

package keys

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestKeyFileModes(t *testing.T) {
	const root, user = 0, 1000
	for _, tt := range []struct {
		mode  fs.FileMode
		owner uint32
		ok    bool
	}{
		{0o600, user, true},
		{0o400, user, true},
		{0o700, user, true},
		{0o600, root, true},
		{0o440, root, true}, // Kubernetes, with fsGroup
		{0o640, root, true},
		{0o640, user, false}, // the group may be "users"
		{0o440, user, false},
		{0o660, root, false},
		{0o620, root, false},
		{0o610, root, false},
		{0o644, root, false}, // Kubernetes by default
		{0o444, root, false}, // Docker by default
		{0o644, user, false},
		{0o604, user, false},
		{0o602, user, false},
		{0o601, user, false},
		{0o777, root, false},
	} {
		if reason := checkMode(tt.mode, tt.owner); (reason == "") != tt.ok {
			t.Errorf("mode %04o of user %d: %q, want accepted %v", tt.mode, tt.owner, reason, tt.ok)
		}
	}
}

func TestKeyFileThatOthersRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "k")
	if err := testIdentity(t, "a", 1).Save(path); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("saved with mode %v, %v", info.Mode(), err)
	}
	for _, mode := range []fs.FileMode{0o604, 0o644, 0o660, 0o666} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		var e *KeyFileError
		if _, err := Load(path, "a"); !errors.As(err, &e) {
			t.Errorf("mode %v: %v", mode, err)
		}
		if _, err := LoadOrGenerate(path, "a"); !errors.As(err, &e) {
			t.Errorf("mode %v: %v", mode, err)
		}
	}
}

// Kubernetes mounts a secret as links: k -> ..data/k, ..data -> ..2026_11_23.
func TestMountedSecret(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "..2026_11_23"), 0o700); err != nil {
		t.Fatal(err)
	}
	id := testIdentity(t, "a", 1)
	real := filepath.Join(dir, "..2026_11_23", "k")
	path := filepath.Join(dir, "k")
	for _, err := range []error{
		id.Save(real),
		os.Chmod(real, 0o400),
		os.Symlink("..2026_11_23", filepath.Join(dir, "..data")),
		os.Symlink(filepath.Join("..data", "k"), path),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	got, err := Load(path, "a")
	if err != nil || got.PublicKey() != id.PublicKey() {
		t.Fatalf("%v, %v", got, err)
	}
	if err := os.Chmod(real, 0o444); err != nil {
		t.Fatal(err)
	}
	var e *KeyFileError
	if _, err := Load(path, "a"); !errors.As(err, &e) {
		t.Errorf("the mode of the target does not count: %v", err)
	}
}

func TestDanglingLinkIsNotReplaced(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "k")
	if err := os.Symlink(filepath.Join(dir, "elsewhere"), path); err != nil {
		t.Fatal(err)
	}
	if err := testIdentity(t, "a", 1).Save(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("saved through a link: %v", err)
	}
	if _, err := LoadOrGenerate(path, "a"); err == nil {
		t.Error("generated through a link")
	}
	if names := list(t, dir); len(names) != 1 {
		t.Errorf("files: %v", names)
	}
}

// Opening a named pipe that nobody writes to would wait for ever.
func TestPipesAreRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path, "a"); !errors.Is(err, errNotRegular) {
		t.Errorf("key: %v", err)
	}
	if _, err := NewDirectory(DirectoryConfig{Path: path}); !errors.Is(err, errNotRegular) {
		t.Errorf("directory: %v", err)
	}
	if f, err := openNonblock(path); err != nil {
		t.Error(err)
	} else if err := f.Close(); err != nil {
		t.Error(err)
	}
}

// Whoever can write to the directory of a FirstUse, or to the file of a Directory, chooses whom to trust.
func TestWritableByOthers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "known")
	newTestFirstUse(t, dir)
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("created with mode %v, %v", info.Mode(), err)
	}
	for mode, ok := range map[fs.FileMode]bool{0o700: true, 0o750: true, 0o755: true, 0o770: false, 0o702: false, 0o777: false} {
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := NewFirstUse(FirstUseConfig{Path: dir}); (err == nil) != ok {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}

	d, path, reported := newDirectory(t, listing(Entry{"a", testKey(t, 1), nil}))
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := d.Err(); !errors.Is(err, errWorldWritable) {
		t.Errorf("directory that others write to: %v", err)
	}
	writeFile(t, path, listing(Entry{"b", testKey(t, 2), nil}))
	if a, b := decision(t, d, claim(t, "a", 1)), decision(t, d, claim(t, "b", 2)); a != Yes || b != Unknown {
		t.Errorf("read all the same: %v, %v", a, b)
	}
	if _, err := NewDirectory(DirectoryConfig{Path: path}); !errors.Is(err, errWorldWritable) {
		t.Errorf("new directory that others write to: %v", err)
	}
	if err := os.Chmod(path, 0o664); err != nil {
		t.Fatal(err)
	}
	if got := decision(t, d, claim(t, "b", 2)); got != Yes || d.Err() != nil {
		t.Errorf("put right: %v, %v", got, d.Err())
	}
	if got := reported.take(); len(got) != 2 || got[0] == nil || got[1] != nil {
		t.Errorf("reported %v", got)
	}
}
