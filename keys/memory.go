package keys

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// probeName is a file that is written to find out whether it can be. It has the
// pattern of temporary files, so that one that stays behind is swept.
const probeName = ".agentmesh-probe.tmp"

// memory is the directory of a FirstUse: one file per agent. What was read of a file is kept until its time, size or
// identity is another, so that asking about a remembered agent opens no file: a process that runs out of
// descriptors does not lose the agents that it knows.
type memory struct {
	dir string

	mu    sync.Mutex             // guards what follows
	files map[string]remembered  // sound entries by file name
	names map[PublicKey][]string // their file names by key; a second one is a fault
	seen  sighting               // the directory as it was listed last
}

type remembered struct {
	id   string
	key  PublicKey
	seen sighting
}

func newMemory(dir string) *memory {
	return &memory{dir: dir, files: make(map[string]remembered), names: make(map[PublicKey][]string)}
}

// fileName is the name of an agent's entry. IDs hold slashes and more than a file name may: a hash has neither, and
// no two IDs share one, whatever the file system thinks of upper and lower case.
func fileName(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:])
}

// file is the path of an agent's entry.
func (m *memory) file(id string) string { return filepath.Join(m.dir, fileName(id)) }

// known returns the key of an agent. The error matches fs.ErrNotExist when there is none.
func (m *memory) known(id string) (PublicKey, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name := fileName(id)
	e, reason, err := m.entry(name)
	if reason == "" && err == nil && e.id != id {
		reason = fmt.Sprintf("it is about agent %q", e.id)
	}
	if reason != "" {
		return PublicKey{}, &EntryFileError{id, filepath.Join(m.dir, name), reason}
	}
	return e.key, err
}

// another reports a *KeyOfAnotherError when c.Key is remembered under another name than c.ID.
func (m *memory) another(c Claim) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.list()
	own := fileName(c.ID)
	for _, name := range slices.Clone(m.names[c.Key]) {
		if name == own {
			continue
		}
		// The file may have been changed or removed since.
		if e, reason, err := m.entry(name); reason == "" && err == nil && e.key == c.Key {
			return &KeyOfAnotherError{ID: c.ID, Key: c.Key, Other: e.id, Path: filepath.Join(m.dir, name)}
		}
	}
	return nil
}

// list notes the entries that came and went. What cannot be listed stays as it was. m.mu is held, as in what follows.
func (m *memory) list() {
	info, err := os.Stat(m.dir)
	if err != nil || m.seen.holds(info) {
		return
	}
	now := time.Now()
	files, err := readNames(m.dir)
	if err != nil {
		return
	}
	m.seen = m.seen.next(info, now)
	there := make(map[string]bool, len(files))
	for _, name := range files {
		if len(name) != 2*sha256.Size || len(there) == MaxRemembered {
			continue
		}
		there[name] = true
		if _, ok := m.files[name]; !ok {
			_, _, _ = m.entry(name) // what is damaged is looked at when its agent is asked about
		}
	}
	for name := range m.files {
		if !there[name] {
			m.drop(name)
		}
	}
}

func (m *memory) drop(name string) {
	e, ok := m.files[name]
	if !ok {
		return
	}
	delete(m.files, name)
	m.names[e.key] = slices.DeleteFunc(m.names[e.key], func(n string) bool { return n == name })
	if len(m.names[e.key]) == 0 {
		delete(m.names, e.key)
	}
}

// entry returns the entry of a file, from before if it is the same file. reason says what is wrong with it, err
// matches fs.ErrNotExist when there is none.
func (m *memory) entry(name string) (e remembered, reason string, err error) {
	path := filepath.Join(m.dir, name)
	link, err := os.Lstat(path)
	before, ok := m.files[name]
	same := err == nil && ok && sameVersion(link, before.seen.info)
	if same && before.seen.holds(link) {
		return before, "", nil
	}
	var unread error
	if err == nil {
		e, reason, unread = readEntry(path, link, before.seen)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(unread, fs.ErrNotExist):
		m.drop(name)
		return e, "", fs.ErrNotExist
	case err != nil:
		return e, err.Error(), nil
	case unread != nil && same:
		return before, "", nil // such as no descriptor left
	case unread != nil:
		return e, unread.Error(), nil
	}
	m.drop(name)
	if reason == "" && fileName(e.id) == name {
		m.files[name] = e
		m.names[e.key] = append(m.names[e.key], name)
	}
	return e, reason, nil
}

// readEntry reads a file. reason says what is wrong with what it holds, err why it could not be read.
func readEntry(path string, link fs.FileInfo, before sighting) (e remembered, reason string, err error) {
	if !link.Mode().IsRegular() {
		// A link would let whoever can write to its target choose the key.
		return e, "not a regular file", nil
	}
	now := time.Now()
	data, info, err := readRegular(path, MaxDirectoryLine)
	if err != nil {
		return e, "", err
	}
	if !os.SameFile(link, info) {
		return e, "replaced while it was read", nil
	}
	entries, err := parseDirectory(data)
	switch {
	case err != nil:
		return e, plain(err), nil
	case len(entries) != 1 || string(data) != entries[0].String()+"\n":
		return e, "not exactly one entry", nil
	case len(entries[0].Roles) > 0:
		return e, "it grants roles, which only a directory may", nil
	}
	return remembered{entries[0].ID, entries[0].Key, before.next(info, now)}, "", nil
}

// room reports whether one more agent may be remembered. Processes that learn at once may exceed the limit by
// one each.
func (m *memory) room(limit int) error {
	names, err := readNames(m.dir)
	if err == nil && len(names) >= limit {
		err = fmt.Errorf("%w: %d files in %s", ErrFull, len(names), m.dir)
	}
	return err
}

func readNames(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close() // nothing was written
	return d.Readdirnames(-1)
}

// sweep removes what processes left that died while they wrote. One that is alive needs no hour.
func sweep(dir string) {
	files, _ := os.ReadDir(dir) // nothing depends on it; the next start tries again
	for _, file := range files {
		if left, _ := path.Match(tempPattern, file.Name()); !left {
			continue
		}
		if info, err := file.Info(); err == nil && time.Since(info.ModTime()) > time.Hour {
			_ = os.Remove(filepath.Join(dir, file.Name()))
		}
	}
}
