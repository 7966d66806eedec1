package keys

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// listing is a directory file of entries.
func listing(entries ...Entry) string {
	text := "# agents\n"
	for _, e := range entries {
		text += e.String() + "\n"
	}
	return text
}

type reloads struct {
	mu  sync.Mutex
	got []error
}

func (r *reloads) add(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = append(r.got, err)
}

// take returns what was reported since the last call.
func (r *reloads) take() []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	got := r.got
	r.got = nil
	return got
}

func newDirectory(t testing.TB, text string) (*Directory, string, *reloads) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agents")
	writeFile(t, path, text)
	r := new(reloads)
	d, err := NewDirectory(DirectoryConfig{Path: path, OnReload: r.add})
	if err != nil {
		t.Fatal(err)
	}
	return d, path, r
}

func decision(t testing.TB, trust Trust, c Claim) Decision {
	t.Helper()
	v, err := Check(t.Context(), trust, c)
	if (err == nil) == (v.Decision == Refused) {
		t.Errorf("%v with error %v", v.Decision, err)
	}
	return v.Decision
}

func TestDirectoryVerdicts(t *testing.T) {
	d, path, _ := newDirectory(t, listing(
		Entry{"a", testKey(t, 1), []string{"writer", "operator"}},
		Entry{"a", testKey(t, 2), nil},
		Entry{"b", testKey(t, 3), nil}))
	v, err := Check(t.Context(), d, claim(t, "a", 1))
	if want := (Verdict{Decision: Yes, Roles: []string{"operator", "writer"}}); err != nil || !reflect.DeepEqual(v, want) {
		t.Errorf("%v, %v; want %v", v, err, want)
	}
	// Roles are those of the key that was shown.
	if v, err := Check(t.Context(), d, claim(t, "a", 2)); err != nil || v.Decision != Yes || v.Roles != nil {
		t.Errorf("%v, %v", v, err)
	}
	v, err = Check(t.Context(), d, claim(t, "a", 3))
	var e *KeyMismatchError
	if v.Decision != Refused || !errors.Is(err, ErrRefused) || !errors.As(err, &e) {
		t.Fatalf("key of another agent: %v, %v", v, err)
	}
	if e.ID != "a" || e.Got != testKey(t, 3) || !slices.Equal(e.Listed, []PublicKey{testKey(t, 1), testKey(t, 2)}) {
		t.Errorf("%#v", e)
	}
	for n := range byte(3) {
		if k := testKey(t, n+1); !strings.Contains(err.Error(), k.Fingerprint()) {
			t.Errorf("%q does not name %s", err, k.Fingerprint())
		}
	}
	if got := decision(t, d, claim(t, "c", 4)); got != Unknown {
		t.Errorf("not listed: %v", got)
	}
	v, err = Check(t.Context(), d, claim(t, "c", 2))
	var o *KeyOfAnotherError
	if v.Decision != Refused || !errors.Is(err, ErrRefused) || !errors.As(err, &o) || o.ID != "c" || o.Key != testKey(t, 2) || o.Other != "a" || o.Path != path {
		t.Errorf("not listed, with the key of another: %v, %v", v, err)
	}
	if got, err := Find(t.Context(), d, "a"); err != nil || !slices.Equal(got, e.Listed) {
		t.Errorf("found %v, %v", got, err)
	}
	if got, err := Find(t.Context(), d, "c"); err != nil || got != nil {
		t.Errorf("found %v, %v", got, err)
	}
}

func TestDirectoryRolesAreCopies(t *testing.T) {
	d, _, _ := newDirectory(t, listing(Entry{"a", testKey(t, 1), []string{"reader"}}))
	v, _ := d.Check(t.Context(), claim(t, "a", 1))
	v.Roles[0] = "operator"
	if v, _ := d.Check(t.Context(), claim(t, "a", 1)); v.Roles[0] != "reader" {
		t.Error("a caller changed the roles of the directory")
	}
}

// The life of a file: each step is seen by the next question, and reported once.
func TestDirectoryReload(t *testing.T) {
	a, b := Entry{"a", testKey(t, 1), nil}, Entry{"b", testKey(t, 2), nil}
	d, path, reported := newDirectory(t, listing(a))
	expect := func(step string, wantA, wantB Decision, good bool, reports int) {
		t.Helper()
		for range 3 { // asking again changes nothing and tells nothing
			if got := decision(t, d, claim(t, "a", 1)); got != wantA {
				t.Errorf("%s: a is %v, want %v", step, got, wantA)
			}
			if got := decision(t, d, claim(t, "b", 2)); got != wantB {
				t.Errorf("%s: b is %v, want %v", step, got, wantB)
			}
			if err := d.Err(); (err == nil) != good {
				t.Errorf("%s: error %v", step, err)
			}
		}
		got := reported.take()
		if len(got) != reports || reports > 0 && (got[0] == nil) != good {
			t.Errorf("%s: reported %v, want %d", step, got, reports)
		}
	}
	expect("as it was", Yes, Unknown, true, 0)
	replaceFile(t, path, listing(a, b))
	expect("added", Yes, Yes, true, 1)
	writeFile(t, path, listing(b))
	expect("removed, in place", Unknown, Yes, true, 1)
	writeFile(t, path, "nonsense\n")
	expect("broken", Unknown, Yes, false, 1)
	writeFile(t, path, "otherwise\nnonsense\n")
	expect("broken in another way", Unknown, Yes, false, 1)
	writeFile(t, path, "")
	expect("cut off to nothing", Unknown, Yes, false, 1)
	writeFile(t, path, listing(a, b)[:30])
	expect("half written", Unknown, Yes, false, 1)
	writeFile(t, path, listing(b))
	expect("restored", Unknown, Yes, true, 1)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	expect("missing", Unknown, Yes, false, 1)
	if !errors.Is(d.Err(), fs.ErrNotExist) {
		t.Errorf("missing: %v", d.Err())
	}
	writeFile(t, path, listing(a))
	expect("another one", Yes, Unknown, true, 1)
	replaceFile(t, path, listing(a))
	expect("the same again", Yes, Unknown, true, 0)
	writeFile(t, path, "# nobody\n")
	expect("nobody", Unknown, Unknown, true, 1)
}

// Two writes within one tick of the file system's clock leave the same time and, here, the same size.
func TestDirectoryWriteWithinOneTick(t *testing.T) {
	for name, text := range map[string][2]string{
		"both good":    {listing(Entry{"a", testKey(t, 1), nil}), listing(Entry{"a", testKey(t, 2), nil})},
		"broken first": {listing(Entry{"*", testKey(t, 1), nil}), listing(Entry{"a", testKey(t, 2), nil})},
	} {
		d, path, _ := newDirectory(t, listing(Entry{"b", testKey(t, 3), nil}))
		now := time.Now()
		for _, text := range text {
			writeFile(t, path, text)
			if err := os.Chtimes(path, now, now); err != nil {
				t.Fatal(err)
			}
			_ = d.Err()
		}
		if got := decision(t, d, claim(t, "a", 2)); got != Yes || d.Err() != nil {
			t.Errorf("%s: the second write was missed: %v, %v", name, got, d.Err())
		}
	}
}

// A file that has settled is not read for each question.
func TestDirectoryIsNotReadAgain(t *testing.T) {
	d, path, _ := newDirectory(t, listing(Entry{"a", testKey(t, 1), nil}))
	old := time.Now().Add(-time.Minute)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	if err := d.Err(); err != nil { // reads it as an old file
		t.Fatal(err)
	}
	// A change that leaves no trace shows whether it is read.
	writeFile(t, path, listing(Entry{"a", testKey(t, 2), nil}))
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	if got := decision(t, d, claim(t, "a", 1)); got != Yes {
		t.Errorf("read again: %v", got)
	}
	// A new file with the same size and time is another file.
	next := path + ".next"
	writeFile(t, next, listing(Entry{"a", testKey(t, 2), nil}))
	for _, err := range []error{os.Chtimes(next, old, old), os.Rename(next, path)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := decision(t, d, claim(t, "a", 1)); got != Refused {
		t.Errorf("a rename was missed: %v", got)
	}
}

func TestDirectoryCallbackMayAsk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agents")
	writeFile(t, path, listing())
	var d *Directory
	var seen Decision
	d, err := NewDirectory(DirectoryConfig{Path: path, OnReload: func(error) { seen = decision(t, d, claim(t, "a", 1)) }})
	if err != nil {
		t.Fatal(err)
	}
	replaceFile(t, path, listing(Entry{"a", testKey(t, 1), nil}))
	if err := d.Err(); err != nil || seen != Yes {
		t.Errorf("%v, %v", seen, err)
	}
}

func TestDirectoryWithoutCallback(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agents")
	writeFile(t, path, listing())
	d, err := NewDirectory(DirectoryConfig{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	replaceFile(t, path, listing(Entry{"a", testKey(t, 1), nil}))
	if got := decision(t, d, claim(t, "a", 1)); got != Yes {
		t.Error(got)
	}
}

func TestNewDirectoryFails(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "agents")
	if _, err := NewDirectory(DirectoryConfig{}); err == nil || !strings.Contains(err.Error(), "DirectoryConfig.Path") {
		t.Errorf("no path: %v", err)
	}
	if _, err := NewDirectory(DirectoryConfig{Path: path}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if _, err := NewDirectory(DirectoryConfig{Path: dir}); !errors.Is(err, errNotRegular) {
		t.Errorf("not a file: %v", err)
	}
	writeFile(t, path, "")
	if _, err := NewDirectory(DirectoryConfig{Path: path}); !errors.Is(err, errEmptyDirectory) {
		t.Errorf("empty file: %v", err)
	}
	writeFile(t, path, "x\n")
	var e *SyntaxError
	if _, err := NewDirectory(DirectoryConfig{Path: path}); !errors.As(err, &e) || e.Line != 1 {
		t.Errorf("broken file: %v", err)
	}
	if err := os.Truncate(path, MaxDirectorySize+1); err != nil {
		t.Fatal(err)
	}
	if _, err := NewDirectory(DirectoryConfig{Path: path}); !errors.Is(err, errTooLarge) {
		t.Errorf("large file: %v", err)
	}
}

func TestDirectoryConcurrently(t *testing.T) {
	keep := Entry{"keep", testKey(t, 1), nil}
	d, path, _ := newDirectory(t, listing(keep))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 100 {
				if v, err := Check(t.Context(), d, Claim{ID: "keep", Key: keep.Key, Time: epoch}); err != nil || v.Decision != Yes {
					t.Error(v, err)
				}
			}
		})
	}
	for n := range 50 {
		replaceFile(t, path, listing(keep, Entry{fmt.Sprint("a", n), testKey(t, 2), nil}))
	}
	wg.Wait()
}

func BenchmarkDirectoryCheck(b *testing.B) {
	d, path, _ := newDirectory(b, listing(Entry{"a", testKey(b, 1), nil}))
	old := time.Now().Add(-time.Minute)
	if err := os.Chtimes(path, old, old); err != nil {
		b.Fatal(err)
	}
	c := claim(b, "a", 1)
	for b.Loop() {
		if v, err := Check(b.Context(), d, c); err != nil || v.Decision != Yes {
			b.Fatal(v, err)
		}
	}
}
