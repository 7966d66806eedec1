package keys

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// disk creates files until it is full.
type disk struct {
	full   error
	writes int
}

func (d *disk) create(path string, data []byte, check func(string) error) error {
	d.writes++
	if d.full != nil {
		return &fs.PathError{Op: "open", Path: filepath.Join(filepath.Dir(path), ".agentmesh-1.tmp"), Err: d.full}
	}
	return createFile(path, data, check)
}

var errReadOnly = errors.New("read-only file system")

// TestCannotRemember: a memory that cannot be written to is refused when it is
// opened, with the directory and the cause.
func TestCannotRemember(t *testing.T) {
	dir := t.TempDir()
	var e *RememberError
	if _, err := newFirstUse(FirstUseConfig{Path: dir}, (&disk{full: errReadOnly}).create); !errors.As(err, &e) || *e != (RememberError{"", dir, e.Err}) || !errors.Is(err, errReadOnly) {
		t.Errorf("existing: %v", err)
	} else if want := "keys: no agent can be remembered in " + dir + ": read-only file system"; err.Error() != want {
		t.Errorf("%q, want %q", err, want)
	}
	absent := filepath.Join(dir, "a", "b")
	if _, err := NewFirstUse(FirstUseConfig{Path: absent}); !errors.As(err, &e) || e.Path != absent || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("cannot be made: %v", err)
	}
	if names := list(t, dir); len(names) > 0 {
		t.Errorf("files %v", names)
	}
	// A name that leads nowhere, and a disk that fills up between the probe and its end.
	nowhere := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("nothing", nowhere); err == nil {
		if _, err := NewFirstUse(FirstUseConfig{Path: nowhere}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a link that leads nowhere: %v", err)
		}
	}
	stays := t.TempDir()
	if _, err := newFirstUse(FirstUseConfig{Path: stays}, func(path string, _ []byte, _ func(string) error) error {
		return os.MkdirAll(filepath.Join(path, "a"), 0o700)
	}); !errors.As(err, &e) || e.Path != stays {
		t.Errorf("the probe stays: %v", err)
	}
	if got := cause(fmt.Errorf("%w: %w", errNoLinks, &fs.PathError{Op: "link", Path: "p", Err: errReadOnly})); !errors.Is(got, errNoLinks) {
		t.Errorf("no links: %v", got)
	}
	// Other processes that find out, or tidy up, at the same time are no fault.
	writeFile(t, filepath.Join(dir, probeName), "#\n")
	newTestFirstUse(t, dir)
	if _, err := newFirstUse(FirstUseConfig{Path: t.TempDir()}, func(string, []byte, func(string) error) error { return nil }); err != nil {
		t.Errorf("the probe is gone: %v", err)
	}
}

// TestLearnIsNotTriedInALoop: after a write that failed the disk is left alone for
// a while, and whoever asks hears why at once.
func TestLearnIsNotTriedInALoop(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d := new(disk)
		f, err := newFirstUse(FirstUseConfig{Path: dir}, d.create)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Learn(t.Context(), claim(t, "known", 1)); err != nil {
			t.Fatal(err)
		}
		d.full, d.writes = errReadOnly, 0
		for range 100 {
			for n, id := range []string{"a", "b"} {
				learned, err := Learn(t.Context(), f, claim(t, id, byte(n+2)))
				var e *RememberError
				if learned || !errors.As(err, &e) || e.ID != id || e.Path != dir || !errors.Is(err, errReadOnly) || strings.Contains(err.Error(), ".tmp") {
					t.Fatalf("learned %v, %v", learned, err)
				}
				if got := decision(t, f, claim(t, id, byte(n+2))); got != Unknown {
					t.Fatalf("%s is %v: with another policy that says yes it would be refused", id, got)
				}
			}
			// What is known needs no writing.
			if err := f.Learn(t.Context(), claim(t, "known", 1)); err != nil {
				t.Fatal(err)
			}
			if got := decision(t, f, claim(t, "known", 1)); got != Yes {
				t.Fatal(got)
			}
			var changed *KeyChangedError
			if err := f.Learn(t.Context(), claim(t, "known", 2)); !errors.As(err, &changed) {
				t.Fatal(err)
			}
			time.Sleep(learnPause / 100)
		}
		if d.writes != 1 {
			t.Errorf("%d writes within %v", d.writes, learnPause)
		}
		d.full = nil
		for n, id := range []string{"a", "b"} {
			if learned, err := Learn(t.Context(), f, claim(t, id, byte(n+2))); !learned || err != nil {
				t.Errorf("the disk has room again: %v, %v", learned, err)
			}
		}
	})
}

// TestFullSaysWhoAndWhere: a memory that is full does not wait to be tried again.
func TestFullSaysWhoAndWhere(t *testing.T) {
	dir := t.TempDir()
	f := newTestFirstUse(t, dir)
	f.limit = 1
	writeFile(t, filepath.Join(dir, "1"), "")
	var e *RememberError
	if err := f.Learn(t.Context(), claim(t, "a", 1)); !errors.As(err, &e) || e.ID != "a" || e.Path != dir || !errors.Is(err, ErrFull) {
		t.Errorf("full: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "1")); err != nil {
		t.Fatal(err)
	}
	if err := f.Learn(t.Context(), claim(t, "a", 1)); err != nil {
		t.Errorf("with room: %v", err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := f.Learn(t.Context(), claim(t, "b", 2)); !errors.As(err, &e) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory is gone: %v", err)
	}
}

// ofAnother expects a *KeyOfAnotherError about two names.
func ofAnother(t *testing.T, what string, err error, id, other string) {
	t.Helper()
	var e *KeyOfAnotherError
	if !errors.As(err, &e) || e.ID != id || e.Other != other || !strings.Contains(err.Error(), id) || !strings.Contains(err.Error(), other) || !strings.Contains(err.Error(), e.Path) {
		t.Errorf("%s: %v, want %s refused with the key of %s", what, err, id, other)
	}
}

// TestOneKeyOneName: a key that is remembered of one agent speaks for no other one,
// whoever wrote it down and when.
func TestOneKeyOneName(t *testing.T) {
	dir := t.TempDir()
	f, elsewhere := newTestFirstUse(t, dir), newTestFirstUse(t, dir)
	a, b := claim(t, "a", 1), claim(t, "b", 1)
	for name, f := range map[string]*FirstUse{"here": f, "another process": elsewhere} {
		if got := decision(t, f, b); got != Unknown {
			t.Errorf("%s, before: %v", name, got)
		}
	}
	if err := f.Learn(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]*FirstUse{"here": f, "another process": elsewhere, "opened later": newTestFirstUse(t, dir)} {
		v, err := Check(t.Context(), f, b)
		if v.Decision != Refused {
			t.Errorf("%s: %v", name, v)
		}
		ofAnother(t, name, err, "b", "a")
		ofAnother(t, name+" learns", f.Learn(t.Context(), b), "b", "a")
		v, err = Check(t.Context(), Compose(TrustAny, f), b)
		if v.Decision != Refused {
			t.Errorf("%s, composed: %v", name, v)
		}
		ofAnother(t, name+", composed", err, "b", "a")
		if got := decision(t, f, a); got != Yes {
			t.Errorf("%s: its owner: %v", name, got)
		}
	}
	if names := list(t, dir); len(names) != 1 {
		t.Errorf("files %v", names)
	}

	// A file for the second name that was written by hand, or by an older program.
	writeFile(t, f.memory.file("b"), Entry{ID: "b", Key: b.Key}.String()+"\n")
	for name, f := range map[string]*FirstUse{"here": f, "opened later": newTestFirstUse(t, dir)} {
		_, err := Check(t.Context(), f, a)
		ofAnother(t, name+", two files", err, "a", "b")
		_, err = Check(t.Context(), f, b)
		ofAnother(t, name+", two files", err, "b", "a")
		ofAnother(t, name+", two files, learned", f.Learn(t.Context(), a), "a", "b")
	}
	// The agent was renamed: what is forgotten makes room for its new name.
	if err := f.Forget("a"); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]*FirstUse{"here": f, "another process": elsewhere} {
		if got := decision(t, f, b); got != Yes {
			t.Errorf("%s, renamed: %v", name, got)
		}
	}
	// A key roll-over: the old key is nobody's when its file is replaced.
	replaceFile(t, f.memory.file("b"), Entry{ID: "b", Key: testKey(t, 2)}.String()+"\n")
	if err := os.Remove(filepath.Join(dir, "next")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if got := decision(t, f, claim(t, "b", 2)); got != Yes {
		t.Errorf("new key: %v", got)
	}
	if got := decision(t, f, claim(t, "c", 1)); got != Unknown {
		t.Errorf("old key: %v", got)
	}
	_, err := Check(t.Context(), f, claim(t, "c", 2))
	ofAnother(t, "new key of another", err, "c", "b")
}

// TestOneKeyOneNameByHand: what is written into a file, in place or under the
// wrong name, counts as it stands, and what is gone is forgotten.
func TestOneKeyOneNameByHand(t *testing.T) {
	f := newTestFirstUse(t, t.TempDir())
	for n, id := range []string{"a", "b", "c"} {
		if err := f.Learn(t.Context(), claim(t, id, byte(n+1))); err != nil {
			t.Fatal(err)
		}
	}
	_, err := Check(t.Context(), f, claim(t, "d", 2))
	ofAnother(t, "before", err, "d", "b")
	writeFile(t, f.memory.file("b"), Entry{ID: "b", Key: testKey(t, 4)}.String()+"\n")
	if got := decision(t, f, claim(t, "d", 2)); got != Unknown {
		t.Errorf("a key that is no longer b's: %v", got)
	}
	// A copy of a's entry under c's name shuts c out, and not a.
	writeFile(t, f.memory.file("c"), Entry{ID: "a", Key: testKey(t, 1)}.String()+"\n")
	var e *EntryFileError
	if _, err := Check(t.Context(), f, claim(t, "c", 3)); !errors.As(err, &e) {
		t.Errorf("c: %v", err)
	}
	if got := decision(t, f, claim(t, "a", 1)); got != Yes {
		t.Errorf("a: %v", got)
	}
	for _, id := range []string{"a", "b", "c"} {
		if err := os.Remove(f.memory.file(id)); err != nil {
			t.Fatal(err)
		}
	}
	if got := decision(t, f, claim(t, "d", 5)); got != Unknown || len(f.memory.files) > 0 || len(f.memory.names) > 0 {
		t.Errorf("%v, with %d files and %d keys in memory", got, len(f.memory.files), len(f.memory.names))
	}
}

// TestOneKeyOneNameOvertaken: a process that learned the key under another name in
// the meantime wins, and what was written here is taken back.
func TestOneKeyOneNameOvertaken(t *testing.T) {
	dir := t.TempDir()
	other := newTestFirstUse(t, dir)
	f, err := newFirstUse(FirstUseConfig{Path: dir}, func(path string, data []byte, check func(string) error) error {
		if filepath.Base(path) != probeName {
			writeFile(t, other.memory.file("b"), Entry{ID: "b", Key: testKey(t, 1)}.String()+"\n")
		}
		return createFile(path, data, check)
	})
	if err != nil {
		t.Fatal(err)
	}
	ofAnother(t, "overtaken", f.Learn(t.Context(), claim(t, "a", 1)), "a", "b")
	if names := list(t, dir); len(names) != 1 || names[0] != fileName("b") {
		t.Errorf("files %v", names)
	}
	if got := decision(t, f, claim(t, "b", 1)); got != Yes {
		t.Errorf("the one that won: %v", got)
	}
}

// TestOneKeyOneNameTogether: two processes that meet one key under two names at
// once do not both believe it.
func TestOneKeyOneNameTogether(t *testing.T) {
	dir := t.TempDir()
	for round := range 20 {
		names := []string{fmt.Sprint("a", round), fmt.Sprint("b", round)}
		var wg sync.WaitGroup
		for _, id := range names {
			f, c := newTestFirstUse(t, dir), claim(t, id, byte(round+1))
			wg.Go(func() { _ = f.Learn(t.Context(), c) })
		}
		wg.Wait()
		known := 0
		for _, id := range names {
			if v, _ := Check(t.Context(), newTestFirstUse(t, dir), claim(t, id, byte(round+1))); v.Decision == Yes {
				known++
			}
		}
		if known > 1 {
			t.Fatalf("round %d: one key speaks for %v", round, names)
		}
	}
}

// TestOneKeyOneNameComposed: the rule holds between a directory and a memory, and
// between two directories.
func TestOneKeyOneNameComposed(t *testing.T) {
	d, path, _ := newDirectory(t, listing(Entry{"a", testKey(t, 1), nil}))
	other, _, _ := newDirectory(t, listing(Entry{"b", testKey(t, 1), nil}, Entry{"c", testKey(t, 2), nil}))
	f := newTestFirstUse(t, t.TempDir())
	for name, trust := range map[string]Trust{"memory": Compose(d, f), "memory first": Compose(f, d), "two directories": Compose(d, other)} {
		v, err := Check(t.Context(), trust, claim(t, "b", 1))
		if v.Decision != Refused {
			t.Errorf("%s: %v", name, v)
		}
		ofAnother(t, name, err, "b", "a")
		if _, err := Learn(t.Context(), trust, claim(t, "b", 1)); !errors.Is(err, ErrRefused) {
			t.Errorf("%s learned: %v", name, err)
		}
		if got := decision(t, trust, claim(t, "c", 2)); got == Refused {
			t.Errorf("%s: another agent: %v", name, got)
		}
	}
	// Renamed in the directory while the memory has the old name.
	if err := f.Learn(t.Context(), claim(t, "a", 1)); err != nil {
		t.Fatal(err)
	}
	replaceFile(t, path, listing(Entry{"b", testKey(t, 1), nil}))
	_, err := Check(t.Context(), Compose(d, f), claim(t, "b", 1))
	ofAnother(t, "renamed", err, "b", "a")
	if err := f.Forget("a"); err != nil {
		t.Fatal(err)
	}
	if got := decision(t, Compose(d, f), claim(t, "b", 1)); got != Yes {
		t.Errorf("renamed and forgotten: %v", got)
	}
}

// TestLearnOvertaken: another process remembers the agent first. With the same key that is
// as good, with another one the agent has changed its key, and a file that cannot be read
// is an error.
func TestLearnOvertaken(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		ok   bool
		is   any
	}{
		"the same key": {Entry{ID: "a", Key: testKey(t, 1)}.String() + "\n", true, nil},
		"another key":  {Entry{ID: "a", Key: testKey(t, 2)}.String() + "\n", false, new(*KeyChangedError)},
		"damaged":      {"a\n", false, new(*EntryFileError)},
	} {
		dir := t.TempDir()
		var f *FirstUse
		var err error
		f, err = newFirstUse(FirstUseConfig{Path: dir}, func(path string, data []byte, check func(string) error) error {
			if filepath.Base(path) != probeName {
				writeFile(t, f.memory.file("a"), c.text)
			}
			return createFile(path, data, check)
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Learn(t.Context(), claim(t, "a", 1)); (err == nil) != c.ok || c.is != nil && !errors.As(err, c.is) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
