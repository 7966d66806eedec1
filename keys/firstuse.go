package keys

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

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
// One key has one name: a key that is remembered of another agent is refused with a [*KeyOfAnotherError], and is
// not learned a second time. An agent that is given a new name keeps its key when what is remembered of the old
// name is forgotten first.
//
// Each agent is one file, named by the SHA-256 of the agent ID in hexadecimal, which holds one line in the format
// of a directory. The files may be copied, read and removed by hand, which is noticed as changes to a [Directory]
// are. A file appears complete or not at all and is never replaced, so that of two processes which meet two keys for
// one agent at once, one learns its key and the other one an error. A file that is damaged, is not a
// regular file (such as a symbolic link), or is about another agent refuses the agent with an
// [*EntryFileError].
//
// A FirstUse that cannot write is of no use: NewFirstUse and Learn then fail with a [*RememberError]. To trust what
// was remembered without learning more, put the lines of its files into a Directory.
//
// It needs no closing and is safe for concurrent use, in any number of processes.
type FirstUse struct {
	memory *memory
	limit  int // MaxRemembered, less in tests
	create func(path string, data []byte, check func(string) error) error

	learning sync.Mutex // one learns at a time; guards what follows
	failed   *RememberError
	failedAt time.Time
}

// NewFirstUse prepares the directory, and writes and removes a file in it. The error is a [*RememberError] when that
// is not possible.
func NewFirstUse(cfg FirstUseConfig) (*FirstUse, error) {
	f, err := newFirstUse(cfg, createFile)
	return f, wrap("first use", err)
}

func newFirstUse(cfg FirstUseConfig, create func(string, []byte, func(string) error) error) (*FirstUse, error) {
	if cfg.Path == "" {
		return nil, errors.New("FirstUseConfig.Path is empty")
	}
	dir, err := filepath.Abs(cfg.Path)
	if err != nil {
		return nil, err
	}
	if err = os.Mkdir(dir, 0o700); err == nil {
		err = syncDir(filepath.Dir(dir))
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, &RememberError{Path: dir, Err: err}
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
	// Whether it can be written to is found out now, and not when the first agent is met.
	probe := filepath.Join(dir, probeName)
	if err := create(probe, []byte("#\n"), nil); err == nil {
		err = os.Remove(probe)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, &RememberError{Path: dir, Err: err}
		}
	} else if !errors.Is(err, fs.ErrExist) { // another process is at it
		return nil, &RememberError{Path: dir, Err: err}
	}
	return &FirstUse{memory: newMemory(dir), limit: MaxRemembered, create: create}, nil
}

// Check implements [Trust]. It does not look at evidence.
func (f *FirstUse) Check(_ context.Context, c Claim) (Verdict, error) {
	known, err := f.memory.known(c.ID)
	unknown := errors.Is(err, fs.ErrNotExist)
	switch {
	case err != nil && !unknown:
		return Verdict{Decision: Refused}, err
	case err == nil && known != c.Key:
		return Verdict{Decision: Refused}, &KeyChangedError{c.ID, known, c.Key, f.memory.file(c.ID)}
	}
	if err := f.memory.another(c); err != nil {
		return Verdict{Decision: Refused}, err
	}
	if unknown {
		return Verdict{}, nil
	}
	return Verdict{Decision: Yes}, nil
}

// Learn implements [Learner]: it remembers c.Key for c.ID, on stable storage when it returns. To learn the known
// key again is no error; to learn another one is a [*KeyChangedError], and one that is remembered of another agent a
// [*KeyOfAnotherError]; both change nothing.
//
// When it cannot be remembered the error is a [*RememberError]. It matches [ErrFull] at [MaxRemembered] agents.
// Otherwise writing failed, and is not tried again for 5 s: Learn fails with the same cause until then, however
// often it is called.
func (f *FirstUse) Learn(_ context.Context, c Claim) error {
	const op = "learn"
	if err := c.check(); err != nil {
		return wrap(op, err)
	}
	f.learning.Lock()
	defer f.learning.Unlock()
	return wrap(op, f.learn(c))
}

func (f *FirstUse) learn(c Claim) error {
	known, err := f.memory.known(c.ID)
	switch {
	case err == nil && known == c.Key:
		return f.memory.another(c)
	case err == nil:
		return &KeyChangedError{c.ID, known, c.Key, f.memory.file(c.ID)}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := f.memory.another(c); err != nil {
		return err
	}
	if f.failed != nil && time.Since(f.failedAt) < learnPause {
		return &RememberError{c.ID, f.failed.Path, f.failed.Err}
	}
	err = f.memory.room(f.limit)
	if errors.Is(err, ErrFull) {
		return &RememberError{c.ID, f.memory.dir, err}
	}
	file := f.memory.file(c.ID)
	if err == nil {
		err = f.create(file, []byte(Entry{ID: c.ID, Key: c.Key}.String()+"\n"), nil)
	}
	if errors.Is(err, fs.ErrExist) { // another process was faster
		known, err := f.memory.known(c.ID)
		if err == nil && known != c.Key {
			return &KeyChangedError{c.ID, known, c.Key, file}
		}
		return err
	}
	if err != nil {
		f.failed, f.failedAt = &RememberError{c.ID, f.memory.dir, err}, time.Now()
		return f.failed
	}
	// Another process may have given the key to another name meanwhile. At least one of two sees the
	// other's file, and takes its own back.
	if err := f.memory.another(c); err != nil {
		_ = os.Remove(file) // if it stays, Check refuses both names and says so
		return err
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
	if err := os.Remove(f.memory.file(id)); err != nil {
		return wrap(op, err)
	}
	return wrap(op, syncDir(f.memory.dir))
}

// Find implements [Finder].
func (f *FirstUse) Find(_ context.Context, id string) ([]PublicKey, error) {
	known, err := f.memory.known(id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return []PublicKey{known}, nil
}
