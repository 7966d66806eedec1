package keys

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

// TestAttackSwappedEntry: somebody swaps what is remembered of an agent, while
// it is asked for, between the entry, a link to an entry with a key of his own,
// and nothing. However the two fall together, his key never passes.
func TestAttackSwappedEntry(t *testing.T) {
	f := newTestFirstUse(t, t.TempDir())
	good, bad := claim(t, "a", 1), claim(t, "a", 2)
	dir := t.TempDir()
	mine, entry := filepath.Join(dir, "mine"), filepath.Join(dir, "entry")
	writeFile(t, mine, Entry{ID: "a", Key: bad.Key}.String()+"\n")
	if err := f.Learn(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(stop)
		for i := range 300 {
			os.Remove(entry)
			if i%2 == 0 {
				if err := os.Symlink(mine, entry); err != nil {
					t.Error(err)
				}
			} else {
				writeFile(t, entry, Entry{ID: "a", Key: good.Key}.String()+"\n")
			}
			if err := os.Rename(entry, f.memory.file("a")); err != nil {
				t.Error(err)
			}
		}
	})
	for n := 0; ; n++ {
		if v, err := Check(t.Context(), f, bad); v.Decision == Yes {
			t.Errorf("a key behind a link passed: %v", err)
		}
		if v, err := Check(t.Context(), f, good); v.Decision == Refused {
			var e *EntryFileError
			if !errors.As(err, &e) {
				t.Errorf("the right key: %v", err)
			}
		}
		select {
		case <-stop:
			wg.Wait()
			return
		default:
		}
	}
}

// TestAttackHugeFiles: a file that is larger than its kind may be is refused
// without being read, however large.
func TestAttackHugeFiles(t *testing.T) {
	huge := func(path string) {
		t.Helper()
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, 1<<40); err != nil { // takes no space
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "x")
	huge(path)
	if _, err := Load(path, "a"); err == nil {
		t.Error("a key file of a terabyte")
	}
	if _, err := NewDirectory(DirectoryConfig{Path: path}); err == nil {
		t.Error("a directory of a terabyte")
	}
	f := newTestFirstUse(t, t.TempDir())
	huge(f.memory.file("a"))
	var e *EntryFileError
	if v, err := Check(t.Context(), f, claim(t, "a", 1)); v.Decision != Refused || !errors.As(err, &e) {
		t.Errorf("an entry of a terabyte: %v, %v", v, err)
	}
}

// TestAttackPartialWrites: a writer that does not rename, but writes a
// directory in place and in pieces, while it is asked. What is seen may end after
// any line, but with no part of one: an agent that is in no version never
// passes, no key is taken for another, and no role is cut short.
func TestAttackPartialWrites(t *testing.T) {
	keep, gone := Entry{"keep", testKey(t, 1), []string{"operator"}}, claim(t, "gone", 3)
	d, path, _ := newDirectory(t, listing(keep))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(stop)
		for n := range 40 {
			text := listing(keep, Entry{fmt.Sprint("gone", n), gone.Key, nil}, Entry{"last", testKey(t, 2), []string{"observer"}})
			file, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0o644)
			if err != nil {
				t.Error(err)
				return
			}
			for len(text) > 0 {
				k := min(len(text), 1+n%23)
				if _, err := file.WriteString(text[:k]); err != nil {
					t.Error(err)
				}
				text = text[k:]
			}
			if err := file.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	for {
		v, err := Check(t.Context(), d, Claim{ID: "keep", Key: keep.Key, Time: epoch})
		if v.Decision == Refused || v.Decision == Yes && !slices.Equal(v.Roles, keep.Roles) {
			t.Errorf("listed in every version: %+v, %v", v, err)
		}
		if v, err := Check(t.Context(), d, gone); v.Decision == Yes {
			t.Errorf("listed in no version: %v", err)
		}
		select {
		case <-stop:
			wg.Wait()
			if got := decision(t, d, Claim{ID: "keep", Key: keep.Key, Time: epoch}); got != Yes || d.Err() != nil {
				t.Errorf("after the last write: %v, %v", got, d.Err())
			}
			return
		default:
		}
	}
}

// TestAttackKeyFileInTheWay: whoever prepares something under the name of a key
// file that is about to be made gets neither the key nor an identity of his.
func TestAttackKeyFileInTheWay(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	for name, prepare := range map[string]func(path string) error{
		"empty file":       func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"open file":        func(path string) error { return os.WriteFile(path, nil, 0o666) },
		"dangling link":    func(path string) error { return os.Symlink(target, path) },
		"directory":        func(path string) error { return os.Mkdir(path, 0o700) },
		"half of a key":    func(path string) error { return os.WriteFile(path, []byte("-----BEGIN PRIVATE KEY-----\nMC4"), 0o600) },
		"link to nowhere":  func(path string) error { return os.Symlink(path, path) },
		"link to a device": func(path string) error { return os.Symlink("/dev/null", path) },
	} {
		path := filepath.Join(dir, name)
		if err := prepare(path); err != nil {
			t.Fatal(err)
		}
		if id, err := LoadOrGenerate(path, "a"); err == nil {
			t.Errorf("%s: %v", name, id)
		}
		if _, err := os.Lstat(target); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("%s: a key was written through a link: %v", name, err)
		}
	}
}
