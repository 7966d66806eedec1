package keys

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

var (
	errEmptyDirectory = errors.New("it is empty: to list nobody, write a comment into it")
	errWorldWritable  = errors.New("others can write to it: they could add themselves")
)

// DirectoryConfig configures a [Directory].
type DirectoryConfig struct {
	// Path is the file. Required. A relative path is relative to the working directory at the time of
	// NewDirectory.
	Path string

	// OnReload is called after NewDirectory whenever the file was looked at and something is new: with nil when
	// entries were read that differ from those before, or when the file is good again, and with the error when it
	// cannot be read or is broken, unless the look before gave the same error. It is called by the goroutine that asked the
	// directory, which waits for it, so possibly by several at once; it may call methods of the Directory. nil
	// is no call.
	OnReload func(error)
}

// Directory is a [Trust] policy read from a file: agents, the keys that may speak for them, and their roles.
// The format is in the package comment. An agent that is listed with other keys only is refused with a
// [*KeyMismatchError]. One that is not listed is unknown, unless it shows a key that is listed for another agent:
// then it is refused with a [*KeyOfAnotherError], so that composed policies keep to one name for one key as well.
//
// The file is looked at each time the Directory is asked, and read again when its time of modification, its
// size or the file itself (after a rename) is another. A file younger than 2 s when it was read is read
// again, so that no change is missed, and one whose time lies in the future until it has stayed the same for 2 s. When the file is missing or broken the last good entries stay in force
// and Err and [DirectoryConfig.OnReload] say so: an editing mistake must not cut off every agent. Replace the
// file by renaming a new one over it: a reader can then never see half of it. As a guard for editors that
// write in place, a file that is empty or does not end in an end of line counts as broken.
//
// On Unix a file that everybody can write to counts as broken as well. A Directory has no goroutine and needs
// no closing. It is safe for concurrent use.
type Directory struct {
	path     string
	onReload func(error)

	mu     sync.Mutex // guards what follows
	table  map[string][]Entry
	owners map[PublicKey]string // whose each key is
	sum    [sha256.Size]byte    // of the bytes that table was made of
	seen   sighting
	err    error // why the last look failed; also of a broken file that was seen
}

// NewDirectory reads the file for the first time; it fails when it cannot, with an error that is a
// [SyntaxErrors] or that of the file system.
func NewDirectory(cfg DirectoryConfig) (*Directory, error) {
	const op = "directory"
	if cfg.Path == "" {
		return nil, wrap(op, errors.New("DirectoryConfig.Path is empty"))
	}
	path, err := filepath.Abs(cfg.Path)
	if err != nil {
		return nil, wrap(op, err)
	}
	d := &Directory{path: path}
	if err := d.Err(); err != nil {
		return nil, err
	}
	d.onReload = cfg.OnReload
	return d, nil
}

// Check implements [Trust]. It does not look at evidence.
func (d *Directory) Check(_ context.Context, c Claim) (Verdict, error) {
	listed, owner := d.look(c.ID, c.Key)
	if len(listed) == 0 {
		if owner != "" {
			return Verdict{Decision: Refused}, &KeyOfAnotherError{ID: c.ID, Key: c.Key, Other: owner, Path: d.path}
		}
		return Verdict{}, nil
	}
	for _, e := range listed {
		if e.Key == c.Key {
			return Verdict{Decision: Yes, Roles: slices.Clone(e.Roles)}, nil
		}
	}
	return Verdict{Decision: Refused}, &KeyMismatchError{ID: c.ID, Got: c.Key, Listed: keysOf(listed)}
}

// Find implements [Finder].
func (d *Directory) Find(_ context.Context, id string) ([]PublicKey, error) {
	listed, _ := d.look(id, PublicKey{})
	return keysOf(listed), nil
}

// Err looks at the file and reports why it is not the source of the entries in force; nil when it is.
func (d *Directory) Err() error {
	d.look("", PublicKey{})
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

func keysOf(entries []Entry) []PublicKey {
	var list []PublicKey
	for _, e := range entries {
		list = append(list, e.Key)
	}
	return list
}

// look brings the entries up to date and returns those of one agent, which nobody may write to, and the agent that a
// key is listed for.
func (d *Directory) look(id string, key PublicKey) (listed []Entry, owner string) {
	d.mu.Lock()
	news, err := d.refresh()
	listed, owner = d.table[id], d.owners[key]
	d.mu.Unlock()
	// Without the lock, so that the function may use the Directory.
	if news && d.onReload != nil {
		d.onReload(err)
	}
	return listed, owner
}

// refresh looks at the file, reads it when it may have changed, and reports whether there is anything to tell.
// d.mu is held.
func (d *Directory) refresh() (news bool, err error) {
	info, err := os.Stat(d.path)
	if err == nil && othersCanWrite(info) {
		err = errWorldWritable // each time, since changing the mode leaves the times alone
	}
	if err == nil && d.seen.holds(info) {
		return false, nil
	}
	before := d.seen
	d.seen = sighting{}
	changed := false
	if err == nil {
		changed, err = d.read(before)
	}
	fault := d.err
	if err == nil {
		d.err = nil
		return changed || fault != nil, nil
	}
	d.err = wrap("directory "+d.path, err)
	return fault == nil || fault.Error() != d.err.Error(), d.err
}

// read reads the file, seen before perhaps, and reports whether its content is another than that in force.
func (d *Directory) read(before sighting) (changed bool, err error) {
	now := time.Now()
	data, info, err := readRegular(d.path, MaxDirectorySize)
	if err != nil {
		return false, err
	}
	// From here on the content decides, good or bad: no need to read it again before it changes.
	d.seen = before.next(info, now)
	if len(data) == 0 {
		return false, errEmptyDirectory
	}
	sum := sha256.Sum256(data)
	if d.table != nil && sum == d.sum {
		return false, nil
	}
	entries, err := parseDirectory(data)
	if err != nil {
		return false, err
	}
	table, owners := make(map[string][]Entry), make(map[PublicKey]string, len(entries))
	for _, e := range entries {
		table[e.ID] = append(table[e.ID], e)
		owners[e.Key] = e.ID
	}
	d.table, d.owners, d.sum = table, owners, sum
	return true, nil
}

// KeyMismatchError means that an agent showed a key which is none of those that the directory lists for it.
type KeyMismatchError struct {
	ID     string
	Got    PublicKey
	Listed []PublicKey
}

func (e *KeyMismatchError) Error() string { return "keys: " + e.text() }

func (e *KeyMismatchError) text() string {
	listed := make([]string, len(e.Listed))
	for i, k := range e.Listed {
		listed[i] = k.Fingerprint()
	}
	return fmt.Sprintf("agent %q showed key %s, the directory lists %s", e.ID, e.Got.Fingerprint(), strings.Join(listed, " and "))
}
