//go:build unix

package keys

import (
	"os"
	"path/filepath"
	"testing"
)

// TestDirectoryGoodAgain: a directory that others could write to, or that was away, is the
// source of its entries again as soon as that is over, though nothing else has changed.
func TestDirectoryGoodAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agents")
	writeFile(t, path, Entry{ID: "a", Key: testKey(t, 1)}.String()+"\n")
	told := 0
	d, err := NewDirectory(DirectoryConfig{Path: path, OnReload: func(error) { told++ }})
	if err != nil {
		t.Fatal(err)
	}
	d.seen.fresh = false // as if it had been read long ago
	for range 3 {
		if err := d.Err(); err != nil || told != 0 {
			t.Errorf("%v, told %d times that nothing has changed", err, told)
		}
	}
	for name, f := range map[string]struct{ harm, mend func() error }{
		"modes": {func() error { return os.Chmod(path, 0o666) }, func() error { return os.Chmod(path, 0o600) }},
		"away":  {func() error { return os.Rename(path, path+"~") }, func() error { return os.Rename(path+"~", path) }},
	} {
		if err := d.Err(); err != nil {
			t.Fatal(err)
		}
		told = 0
		if err := f.harm(); err != nil {
			t.Fatal(err)
		}
		if d.Err() == nil || told != 1 {
			t.Errorf("%s: nothing is wrong, told %d times", name, told)
		}
		if got := decision(t, d, claim(t, "a", 1)); got != Yes {
			t.Errorf("%s: %v", name, got)
		}
		if err := f.mend(); err != nil {
			t.Fatal(err)
		}
		if err := d.Err(); err != nil || told != 2 {
			t.Errorf("%s, mended: %v, told %d times", name, err, told)
		}
	}
}
