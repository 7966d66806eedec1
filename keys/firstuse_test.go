package keys

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func newTestFirstUse(t testing.TB, dir string) *FirstUse {
	t.Helper()
	f, err := NewFirstUse(FirstUseConfig{Path: dir})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFirstUse(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "known")
	f := newTestFirstUse(t, dir)
	c := claim(t, "if://agent/swarm/legal-1@1.2.0", 1)
	if got := decision(t, f, c); got != Unknown {
		t.Errorf("before: %v", got)
	}
	if got, err := Find(t.Context(), f, c.ID); err != nil || got != nil {
		t.Errorf("found %v, %v", got, err)
	}
	if learned, err := Learn(t.Context(), f, c); err != nil || !learned {
		t.Fatalf("learned %v, %v", learned, err)
	}
	for name, f := range map[string]*FirstUse{"same": f, "reopened": newTestFirstUse(t, dir)} {
		if got := decision(t, f, c); got != Yes {
			t.Errorf("%s: %v", name, got)
		}
		if got, err := Find(t.Context(), f, c.ID); err != nil || !slices.Equal(got, []PublicKey{c.Key}) {
			t.Errorf("%s: found %v, %v", name, got, err)
		}
		if got := decision(t, f, claim(t, "other", 2)); got != Unknown {
			t.Errorf("%s: another agent: %v", name, got)
		}
		if err := f.Learn(t.Context(), c); err != nil {
			t.Errorf("%s: learned again: %v", name, err)
		}
	}
	if learned, err := Learn(t.Context(), f, c); err != nil || learned {
		t.Errorf("known already: %v, %v", learned, err)
	}
	if names := list(t, dir); len(names) != 1 || len(names[0]) != 64 {
		t.Errorf("files %v", names)
	}
}

func TestFirstUseChangedKey(t *testing.T) {
	f := newTestFirstUse(t, t.TempDir())
	if err := f.Learn(t.Context(), claim(t, "a", 1)); err != nil {
		t.Fatal(err)
	}
	changed := claim(t, "a", 2)
	check := func(what string, err error) {
		t.Helper()
		var e *KeyChangedError
		if !errors.As(err, &e) || e.ID != "a" || e.Known != testKey(t, 1) || e.Got != testKey(t, 2) {
			t.Fatalf("%s: %v", what, err)
		}
		for _, part := range []string{e.Known.Fingerprint(), e.Got.Fingerprint(), "remove " + f.memory.file("a")} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %q does not say %q", what, err, part)
			}
		}
	}
	v, err := Check(t.Context(), f, changed)
	check("check", err)
	if v.Decision != Refused || !errors.Is(err, ErrRefused) {
		t.Errorf("%v, %v", v, err)
	}
	check("learn", f.Learn(t.Context(), changed))
	_, err = Learn(t.Context(), f, changed)
	check("function learn", err)
	if got := decision(t, f, claim(t, "a", 1)); got != Yes {
		t.Errorf("the known key: %v", got)
	}

	if err := f.Forget("a"); err != nil {
		t.Fatal(err)
	}
	if err := f.Learn(t.Context(), changed); err != nil {
		t.Errorf("after forgetting: %v", err)
	}
	if got := decision(t, f, claim(t, "a", 1)); got != Refused {
		t.Errorf("the forgotten key: %v", got)
	}
}

func TestForget(t *testing.T) {
	f := newTestFirstUse(t, t.TempDir())
	if err := f.Forget("a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("unknown: %v", err)
	}
	var e *NameError
	if err := f.Forget("../a b"); !errors.As(err, &e) {
		t.Errorf("not an ID: %v", err)
	}
	writeFile(t, f.memory.file("a"), "broken")
	if err := f.Forget("a"); err != nil {
		t.Errorf("broken: %v", err)
	}
	if got := decision(t, f, claim(t, "a", 1)); got != Unknown {
		t.Errorf("forgotten: %v", got)
	}
}

// Whatever is wrong with an entry, the agent is refused: not unknown, which would let the next key in.
func TestFirstUseDamagedEntries(t *testing.T) {
	f := newTestFirstUse(t, t.TempDir())
	c := claim(t, "a", 1)
	line := Entry{ID: c.ID, Key: c.Key}.String() + "\n"
	damaged := map[string]string{
		"another agent":    Entry{ID: "b", Key: c.Key}.String() + "\n",
		"two entries":      line + Entry{ID: "a", Key: testKey(t, 2)}.String() + "\n",
		"roles":            Entry{ID: "a", Key: c.Key, Roles: []string{"operator"}}.String() + "\n",
		"comment":          "# nothing\n",
		"comment behind":   line + "#\n",
		"spaces":           " " + line,
		"zeros":            strings.Repeat("\x00", len(line)),
		"large":            line + strings.Repeat("\n", MaxDirectoryLine),
		"key of any shape": "a ed25519:x\n",
	}
	for n := range line {
		damaged["truncated to "+line[:n]] = line[:n]
	}
	for name, text := range damaged {
		writeFile(t, f.memory.file("a"), text)
		check := func(err error) {
			t.Helper()
			var e *EntryFileError
			if !errors.As(err, &e) || e.ID != "a" || e.Path != f.memory.file("a") || !strings.Contains(err.Error(), e.Path) {
				t.Errorf("%s: %v, want an EntryFileError that names the file", name, err)
			}
		}
		v, err := Check(t.Context(), f, c)
		if v.Decision != Refused {
			t.Errorf("%s: %v", name, v.Decision)
		}
		check(err)
		check(f.Learn(t.Context(), c))
		_, err = Find(t.Context(), f, "a")
		check(err)
		if string(readFile(t, f.memory.file("a"))) != text {
			t.Errorf("%s: the file changed", name)
		}
	}
	writeFile(t, f.memory.file("a"), line)
	if got := decision(t, f, c); got != Yes {
		t.Errorf("undamaged: %v", got)
	}
}

func TestFirstUseRefusesLinks(t *testing.T) {
	f := newTestFirstUse(t, t.TempDir())
	c := claim(t, "a", 1)
	target := filepath.Join(t.TempDir(), "target")
	for name, make := range map[string]func() error{
		"link to a good entry": func() error {
			writeFile(t, target, Entry{ID: c.ID, Key: c.Key}.String()+"\n")
			return os.Symlink(target, f.memory.file("a"))
		},
		"dangling link": func() error { return os.Symlink(target+"-absent", f.memory.file("a")) },
		"directory":     func() error { return os.Mkdir(f.memory.file("a"), 0o700) },
	} {
		if err := make(); err != nil {
			t.Fatal(err)
		}
		var e *EntryFileError
		if v, err := Check(t.Context(), f, c); v.Decision != Refused || !errors.As(err, &e) {
			t.Errorf("%s: %v, %v", name, v, err)
		}
		if err := f.Learn(t.Context(), c); !errors.As(err, &e) {
			t.Errorf("%s: learned: %v", name, err)
		}
		if err := f.Forget("a"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Stat(target + "-absent"); err == nil {
		t.Error("wrote through a link")
	}
}

// Two that meet different keys at once cannot both win.
func TestFirstUseConcurrentLearners(t *testing.T) {
	dir := t.TempDir()
	for round := range 10 {
		id := fmt.Sprint("a", round)
		const learners = 8
		errs := make([]error, learners)
		var wg sync.WaitGroup
		for n := range learners {
			f := newTestFirstUse(t, dir)
			c := claim(t, id, byte(round*learners+n+1))
			wg.Go(func() { errs[n] = f.Learn(t.Context(), c) })
		}
		wg.Wait()
		winner := slices.IndexFunc(errs, func(err error) bool { return err == nil })
		if winner < 0 {
			t.Fatalf("nobody learned: %v", errs)
		}
		for n, err := range errs {
			var e *KeyChangedError
			if n != winner && (!errors.As(err, &e) || e.Known != testKey(t, byte(round*learners+winner+1))) {
				t.Errorf("learner %d beside %d: %v", n, winner, err)
			}
		}
		if got := decision(t, newTestFirstUse(t, dir), claim(t, id, byte(round*learners+winner+1))); got != Yes {
			t.Errorf("the winner's key: %v", got)
		}
	}
	if names := list(t, dir); len(names) != 10 {
		t.Errorf("files left: %v", names)
	}
}

// A process that died while it wrote leaves a file that is no entry, and not for ever.
func TestFirstUseAfterACrash(t *testing.T) {
	dir := t.TempDir()
	f := newTestFirstUse(t, dir)
	if err := f.Learn(t.Context(), claim(t, "a", 1)); err != nil {
		t.Fatal(err)
	}
	young, old := filepath.Join(dir, ".agentmesh-1.tmp"), filepath.Join(dir, ".agentmesh-2.tmp")
	writeFile(t, young, "b ed2")
	writeFile(t, old, "b ed2")
	ago := time.Now().Add(-2 * time.Hour)
	for _, name := range []string{old, f.memory.file("a")} {
		if err := os.Chtimes(name, ago, ago); err != nil {
			t.Fatal(err)
		}
	}
	f = newTestFirstUse(t, dir)
	if got := decision(t, f, claim(t, "b", 2)); got != Unknown {
		t.Errorf("half an entry: %v", got)
	}
	if got := decision(t, f, claim(t, "a", 1)); got != Yes {
		t.Errorf("whole entry: %v", got)
	}
	if _, err := os.Stat(old); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("old file: %v", err)
	}
	if _, err := os.Stat(young); err != nil {
		t.Errorf("file that may be in use: %v", err)
	}
}

func TestFirstUseIsBounded(t *testing.T) {
	dir := t.TempDir()
	f := newTestFirstUse(t, dir)
	if err := f.Learn(t.Context(), claim(t, "a", 1)); err != nil {
		t.Fatal(err)
	}
	if f.limit != MaxRemembered {
		t.Errorf("limit %d", f.limit)
	}
	f.limit = 3
	for n := 1; n < f.limit; n++ {
		writeFile(t, filepath.Join(dir, fmt.Sprint(n)), "")
	}
	if err := f.Learn(t.Context(), claim(t, "b", 2)); !errors.Is(err, ErrFull) {
		t.Errorf("one more: %v", err)
	}
	if err := f.Learn(t.Context(), claim(t, "a", 1)); err != nil {
		t.Errorf("one that is known: %v", err)
	}
	var e *KeyChangedError
	if err := f.Learn(t.Context(), claim(t, "a", 2)); !errors.As(err, &e) {
		t.Errorf("a changed one: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "1")); err != nil {
		t.Fatal(err)
	}
	if err := f.Learn(t.Context(), claim(t, "b", 2)); err != nil {
		t.Errorf("with room for one: %v", err)
	}
}

func TestFirstUseLearnsValidClaimsOnly(t *testing.T) {
	dir := t.TempDir()
	f := newTestFirstUse(t, dir)
	for name, c := range badClaims(t) {
		if err := f.Learn(t.Context(), c); err == nil {
			t.Errorf("%s: learned", name)
		}
	}
	if names := list(t, dir); len(names) > 0 {
		t.Errorf("files %v", names)
	}
}

func TestNewFirstUse(t *testing.T) {
	dir := t.TempDir()
	if _, err := NewFirstUse(FirstUseConfig{}); err == nil || !strings.Contains(err.Error(), "FirstUseConfig.Path") {
		t.Errorf("no path: %v", err)
	}
	if _, err := NewFirstUse(FirstUseConfig{Path: filepath.Join(dir, "a", "b")}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no parent: %v", err)
	}
	writeFile(t, filepath.Join(dir, "file"), "")
	if _, err := NewFirstUse(FirstUseConfig{Path: filepath.Join(dir, "file")}); err == nil {
		t.Error("a file was taken for a directory")
	}
}
