package keys

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"
)

// ErrFull means that a [FirstUse] remembers [MaxRemembered] agents already.
var ErrFull = errors.New("no room for another agent")

// FirstUseConfig configures a [FirstUse].
type FirstUseConfig struct {
	// Path is the directory of the entries. Required; created with mode 0700 when it does not exist (its
	// parent must). A relative path is relative to the working directory at the time of NewFirstUse. On Unix
	// it is refused when others than its owner can write to it.
	Path string
}

// FirstUse is a [Trust] policy that remembers the key which an agent showed when it was first dialled, as SSH
// does with hosts, and refuses every other key from then on with a [*KeyChangedError]. An agent it does not
// remember is unknown. Like SSH it cannot tell an impostor who is there at the first meeting.
//
// Each agent is one file, named by the SHA-256 of the agent ID in hexadecimal, which holds one line in the format
// of a directory. The files may be copied, read and removed by hand; nothing is kept in memory. A file appears
// complete or not at all and is never replaced, so that of two processes which meet two keys for one agent
// at once, one learns its key and the other one an error. A file that is damaged, is not a
// regular file (such as a symbolic link), or is about another agent refuses the agent with an
// [*EntryFileError].
//
// It needs no closing and is safe for concurrent use, in any number of processes.
type FirstUse struct {
	dir   string
	limit int // MaxRemembered, less in tests
}

// NewFirstUse prepares the directory.
func NewFirstUse(cfg FirstUseConfig) (*FirstUse, error) {
	f, err := newFirstUse(cfg)
	return f, wrap("first use", err)
}

func newFirstUse(cfg FirstUseConfig) (*FirstUse, error) {
	if cfg.Path == "" {
		return nil, errors.New("FirstUseConfig.Path is empty")
	}
	dir, err := filepath.Abs(cfg.Path)
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o700); err == nil {
		if err := syncDir(filepath.Dir(dir)); err != nil {
			return nil, err
		}
	} else if !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("%s is not a directory", dir)
	}
	if reason := notOursAlone(info); reason != "" {
		return nil, fmt.Errorf("%s: %s", dir, reason)
	}
	sweep(dir)
	return &FirstUse{dir, MaxRemembered}, nil
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

// Check implements [Trust]. It does not look at evidence.
func (f *FirstUse) Check(_ context.Context, c Claim) (Verdict, error) {
	known, err := f.known(c.ID)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Verdict{}, nil
	case err != nil:
		return Verdict{Decision: Refused}, err
	case known != c.Key:
		return Verdict{Decision: Refused}, &KeyChangedError{c.ID, known, c.Key, f.file(c.ID)}
	}
	return Verdict{Decision: Yes}, nil
}

// Learn implements [Learner]: it remembers c.Key for c.ID, on stable storage when it returns. To learn the known
// key again is no error; to learn another one is a [*KeyChangedError] and changes nothing. The error matches
// [ErrFull] at [MaxRemembered] agents.
func (f *FirstUse) Learn(_ context.Context, c Claim) error {
	const op = "learn"
	if err := c.check(); err != nil {
		return wrap(op, err)
	}
	err := f.room()
	if err == nil {
		line := Entry{ID: c.ID, Key: c.Key}.String() + "\n"
		err = createFile(f.file(c.ID), []byte(line))
	}
	if err == nil {
		return nil
	}
	if !errors.Is(err, fs.ErrExist) && !errors.Is(err, ErrFull) {
		return wrap(op, err)
	}
	known, e := f.known(c.ID)
	switch {
	case e == nil && known == c.Key:
		return nil
	case e == nil:
		err = &KeyChangedError{c.ID, known, c.Key, f.file(c.ID)}
	case errors.Is(err, fs.ErrExist):
		err = e // the file is there and says nothing
	}
	return wrap(op, err)
}

// room reports whether one more agent may be remembered. Processes that learn at once may exceed the limit by
// one each.
func (f *FirstUse) room() error {
	d, err := os.Open(f.dir)
	if err != nil {
		return err
	}
	defer d.Close() // nothing was written
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	if len(names) >= f.limit {
		return fmt.Errorf("%w: %d files in %s", ErrFull, len(names), f.dir)
	}
	return nil
}

// Forget removes what is remembered of agent id, however damaged, so that the next key it shows when it is
// dialled is learned. The error matches [fs.ErrNotExist] when nothing is remembered.
func (f *FirstUse) Forget(id string) error {
	const op = "forget"
	if err := CheckAgentID(id); err != nil {
		return wrap(op, err)
	}
	if err := os.Remove(f.file(id)); err != nil {
		return wrap(op, err)
	}
	return wrap(op, syncDir(f.dir))
}

// Find implements [Finder].
func (f *FirstUse) Find(_ context.Context, id string) ([]PublicKey, error) {
	known, err := f.known(id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return []PublicKey{known}, nil
}

// file is the path of an agent's entry. IDs hold slashes and more than a file name may: a hash has neither, and
// no two IDs share one, whatever the file system thinks of upper and lower case.
func (f *FirstUse) file(id string) string {
	sum := sha256.Sum256([]byte(id))
	return filepath.Join(f.dir, hex.EncodeToString(sum[:]))
}

// known reads the entry of an agent. The error matches fs.ErrNotExist when there is none.
func (f *FirstUse) known(id string) (PublicKey, error) {
	name := f.file(id)
	bad := func(reason string) (PublicKey, error) {
		return PublicKey{}, &EntryFileError{id, name, reason}
	}
	link, err := os.Lstat(name)
	if err != nil {
		return PublicKey{}, err
	}
	if !link.Mode().IsRegular() {
		// A link would let whoever can write to its target choose the key.
		return bad("not a regular file")
	}
	data, info, err := readRegular(name, MaxDirectoryLine)
	if errors.Is(err, fs.ErrNotExist) {
		return PublicKey{}, err // forgotten in between
	}
	if err != nil {
		return bad(err.Error())
	}
	if !os.SameFile(link, info) {
		return bad("replaced while it was read")
	}
	entries, err := parseDirectory(data)
	switch {
	case err != nil:
		return bad(plain(err))
	case len(entries) != 1 || string(data) != entries[0].String()+"\n":
		return bad("not exactly one entry")
	case len(entries[0].Roles) > 0:
		return bad("it grants roles, which only a directory may")
	case entries[0].ID != id:
		return bad(fmt.Sprintf("it is about agent %q", entries[0].ID))
	}
	return entries[0].Key, nil
}

// KeyChangedError means that an agent showed another key than the one that is remembered: its key was replaced, or
// somebody else uses its name.
type KeyChangedError struct {
	ID    string
	Known PublicKey
	Got   PublicKey
	Path  string // the file that remembers
}

func (e *KeyChangedError) Error() string { return "keys: " + e.text() }

func (e *KeyChangedError) text() string {
	return fmt.Sprintf("agent %q showed key %s, but %s is remembered; if the agent was given a new key on purpose, remove %s",
		e.ID, e.Got.Fingerprint(), e.Known.Fingerprint(), e.Path)
}

// EntryFileError means that the file which should say what is remembered of an agent cannot be used. The agent is
// refused until the file is repaired or removed: to take it as unknown would let anybody who can damage a
// file choose the next key.
type EntryFileError struct {
	ID     string
	Path   string
	Reason string
}

func (e *EntryFileError) Error() string { return "keys: " + e.text() }

func (e *EntryFileError) text() string {
	return fmt.Sprintf("what is remembered of agent %q is unusable: %s: %s", e.ID, e.Path, e.Reason)
}
