//go:build unix

package keys

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
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

// fixedModes creates files as on a mount that has one mode for all.
func fixedModes(mode fs.FileMode) func(string, []byte, func(string) error) error {
	return func(path string, data []byte, check func(string) error) error {
		return createFile(path, data, func(written string) error {
			if err := os.Chmod(written, mode); err != nil {
				return err
			}
			return check(written)
		})
	}
}

// TestKeyWhereModesAreFixed: a key that could not be loaded again is not written,
// and the error says that it is the file system.
func TestKeyWhereModesAreFixed(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "k")
	id := testIdentity(t, "a", 1)
	for _, mode := range []fs.FileMode{0o777, 0o755, 0o666, 0o644, 0o660, 0o670} {
		err := id.saveBy(fixedModes(mode), path)
		var e *KeyFileError
		if !errors.As(err, &e) || e.Path != path || !strings.Contains(e.Reason, fmt.Sprintf("mode %04o", mode)) || !strings.Contains(e.Reason, "file system") {
			t.Errorf("mode %04o: %v", mode, err)
		}
		if names := list(t, dir); len(names) > 0 {
			t.Fatalf("mode %04o: files %v", mode, names)
		}
	}
	for _, mode := range []fs.FileMode{0o600, 0o700, 0o400} {
		if err := id.saveBy(fixedModes(mode), path); err != nil {
			t.Errorf("mode %04o: %v", mode, err)
		}
		if _, err := LoadOrGenerate(path, "a"); err != nil {
			t.Errorf("mode %04o: %v", mode, err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// TestKeyThatChangesOnItsWay: what the file system makes of a key is found out
// before the key is in use.
func TestKeyThatChangesOnItsWay(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "k")
	other := filepath.Join(t.TempDir(), "other")
	if err := testIdentity(t, "a", 2).Save(other); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"other key": readFile(t, other), "cut off": readFile(t, other)[:80], "nothing": nil} {
		err := testIdentity(t, "a", 1).saveBy(func(path string, _ []byte, check func(string) error) error { return createFile(path, data, check) }, path)
		if err == nil || len(list(t, dir)) > 0 {
			t.Errorf("%s: %v, files %v", name, err, list(t, dir))
		}
	}
}

// TestNoDescriptorLeft: a process without a free descriptor still knows whom it
// trusts.
func TestNoDescriptorLeft(t *testing.T) {
	f := newTestFirstUse(t, t.TempDir())
	d, path, _ := newDirectory(t, listing(Entry{"a", testKey(t, 1), nil}))
	old := time.Now().Add(-time.Minute)
	if err := f.Learn(t.Context(), claim(t, "a", 1)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	both := Compose(d, f)
	if got := decision(t, both, claim(t, "a", 1)); got != Yes {
		t.Fatal(got)
	}
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	none := before
	none.Cur = 0
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	_, opened := os.Open(path)
	yes, err := Check(t.Context(), both, claim(t, "a", 1))
	other, _ := Check(t.Context(), f, claim(t, "a", 2))
	learned := f.Learn(t.Context(), claim(t, "b", 2))
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(opened, syscall.EMFILE) {
		t.Fatalf("a file could be opened: %v", opened)
	}
	var e *RememberError
	if yes.Decision != Yes || err != nil || other.Decision != Refused || !errors.As(learned, &e) || !errors.Is(learned, syscall.EMFILE) {
		t.Errorf("the right key %v, %v; another one %v; learned %v", yes, err, other, learned)
	}
}
