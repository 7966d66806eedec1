//go:build unix

package keys

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestRelativePathWithoutDirectory: a path is resolved when it is given; where the
// working directory is gone that fails, and not the first question.
func TestRelativePathWithoutDirectory(t *testing.T) {
	if runtime.GOOS != "linux" {
		return // other systems know the name of a directory that is gone
	}
	dir := filepath.Join(t.TempDir(), "gone")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if d, err := NewDirectory(DirectoryConfig{Path: "agents"}); d != nil || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("directory: %v", err)
	}
	if _, err := NewFirstUse(FirstUseConfig{Path: "known"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("first use: %v", err)
	} else if e := new(RememberError); errors.As(err, &e) {
		t.Errorf("first use: the directory was made: %v", err)
	}
}

// TestSyncDir: a directory that is not there is an error, a file system that cannot
// be told to write is none.
func TestSyncDir(t *testing.T) {
	if err := syncDir(filepath.Join(t.TempDir(), "a")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("not there: %v", err)
	}
	if runtime.GOOS != "linux" {
		return
	}
	f, err := os.Open("/proc")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Sync(); !errors.Is(err, syscall.EINVAL) {
		t.Fatalf("/proc was to refuse: %v", err)
	}
	if err := syncDir("/proc"); err != nil {
		t.Errorf("/proc: %v", err)
	}
}

// TestReadRegular: what can block or is not a file is not opened, and the error says so.
func TestReadRegular(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, pipe, os.DevNull} {
		var e *fs.PathError
		if _, _, err := readRegular(path, 1); !errors.Is(err, errNotRegular) || !errors.As(err, &e) || e.Path != path {
			t.Errorf("%s: %v", path, err)
		}
	}
	path := filepath.Join(dir, "file")
	writeFile(t, path, "12")
	if data, info, err := readRegular(path, 2); err != nil || string(data) != "12" || info.Size() != 2 {
		t.Errorf("%q, %v", data, err)
	}
	if _, _, err := readRegular(path, 1); !errors.Is(err, errTooLarge) || err.Error() != "read "+path+": file too large: 2 bytes, more than 1" {
		t.Errorf("%v", err)
	}
}

// TestCreateFile: what the disk refuses, and what the check does, is the error, and
// nothing is left.
func TestCreateFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	refused := errors.New("refused")
	if err := createFile(path, []byte("1"), func(written string) error {
		if text := string(readFile(t, written)); text != "1" {
			t.Errorf("written %q", text)
		}
		return refused
	}); !errors.Is(err, refused) {
		t.Errorf("%v", err)
	}
	if err := createFile(filepath.Join(dir, "a", "b"), nil, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	if names := list(t, dir); len(names) > 0 {
		t.Errorf("left: %v", names)
	}
	if err := createFile(path, []byte("1"), nil); err != nil {
		t.Fatal(err)
	}
	if err := createFile(path, []byte("2"), nil); !errors.Is(err, fs.ErrExist) || string(readFile(t, path)) != "1" {
		t.Errorf("a second one: %v", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 || len(list(t, dir)) != 1 {
		t.Errorf("%v, %v, %v", info, err, list(t, dir))
	}
}

// TestSaveTellsWhy: what cannot be exported, written or read back is told with the path and no key.
func TestSaveTellsWhy(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	lost := errors.New("lost")
	id := testIdentity(t, "a", 1)
	broken := *id
	broken.export = func() ([]byte, error) { return nil, lost }
	if err := broken.Save(path); !errors.Is(err, lost) {
		t.Errorf("export: %v", err)
	}
	for name, tt := range map[string]struct {
		before func(written string) error
		want   string
	}{
		"gone":        {os.Remove, "what was written cannot be read back"},
		"another key": {func(p string) error { _ = os.Remove(p); return testIdentity(t, "a", 2).Save(p) }, "is read back as another key"},
		"damaged":     {func(p string) error { return os.WriteFile(p, []byte("x"), 0o600) }, "a new file with mode 0600 would be refused here"},
		"open":        {func(p string) error { return os.Chmod(p, 0o644) }, "others have access"},
	} {
		err := id.saveBy(func(path string, data []byte, check func(string) error) error {
			return createFile(path, data, func(written string) error {
				if err := tt.before(written); err != nil {
					t.Fatal(err)
				}
				return check(written)
			})
		}, path)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), ".tmp") != (name == "gone") {
			t.Errorf("%s: %v", name, err)
		}
		if names := list(t, dir); len(names) > 0 {
			t.Errorf("%s left %v", name, names)
		}
	}
}

// TestEntryThatComesAndGoes: of a file that was there when it was looked at and is not
// when it is read, nothing is remembered.
func TestEntryThatComesAndGoes(t *testing.T) {
	dir := t.TempDir()
	f := newTestFirstUse(t, dir)
	if err := f.Learn(t.Context(), claim(t, "a", 1)); err != nil {
		t.Fatal(err)
	}
	path := f.memory.file("a")
	link, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path, path+"~~"); err != nil { // removed, its number could be that of the next
		t.Fatal(err)
	}
	if _, _, err := readEntry(path, link, sighting{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("gone: %v", err)
	}
	writeFile(t, path+"~", Entry{ID: "a", Key: testKey(t, 2)}.String()+"\n")
	if err := os.Rename(path+"~", path); err != nil {
		t.Fatal(err)
	}
	if _, reason, err := readEntry(path, link, sighting{}); err != nil || reason != "replaced while it was read" {
		t.Errorf("replaced: %q, %v", reason, err)
	}
	// A name below a file is no entry, and none that is missing.
	f.memory.dir = path
	if _, reason, err := f.memory.entry("b"); err != nil || reason == "" {
		t.Errorf("below a file: %q, %v", reason, err)
	}
}

// TestSettled: a file is read again until it is two seconds old by its own time, or has
// been seen unchanged for as long.
func TestSettled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	writeFile(t, path, "1")
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	at := func(mod time.Time) fs.FileInfo {
		t.Helper()
		if err := os.Chtimes(path, mod, mod); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	for age, fresh := range map[time.Duration]bool{
		-time.Hour: true, 0: true, time.Second: true, settleTime - time.Millisecond: true, settleTime: false, time.Hour: false,
	} {
		info := at(now.Add(-age))
		s := sighting{}.next(info, now)
		if s.fresh != fresh || s.holds(info) == fresh || !s.since.Equal(now) {
			t.Errorf("%v old: %+v", age, s)
		}
		if !fresh {
			continue
		}
		if s := s.next(info, now.Add(settleTime-1)); age < 0 && !s.fresh {
			t.Errorf("%v old, settled a moment before: %+v", age, s)
		}
		if s := s.next(info, now.Add(settleTime)); s.fresh || !s.since.Equal(now) {
			t.Errorf("%v old, not settled: %+v", age, s)
		}
		if s := s.next(at(now.Add(time.Minute)), now.Add(settleTime)); !s.fresh || !s.since.Equal(now.Add(settleTime)) {
			t.Errorf("%v old, changed: %+v", age, s)
		}
	}
	info := at(now)
	if (sighting{}).holds(info) || (sighting{info: info, fresh: true}).holds(info) || !(sighting{info: info}).holds(info) {
		t.Error("what a sighting holds")
	}
}
