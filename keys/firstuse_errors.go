package keys

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// ErrFull means that a [FirstUse] remembers [MaxRemembered] agents already.
var ErrFull = errors.New("no room for another agent")

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

// KeyOfAnotherError means that an agent showed a key which is known to be another agent's. A key speaks for one
// name: under two, whoever holds it could be taken for two agents that agree with each other, and which of the two is at
// the other end of a connection would be up to it.
type KeyOfAnotherError struct {
	ID    string // who showed it
	Key   PublicKey
	Other string // whose it is
	Path  string // the file that says so
}

func (e *KeyOfAnotherError) Error() string { return "keys: " + e.text() }

func (e *KeyOfAnotherError) text() string {
	return fmt.Sprintf("agent %q showed key %s, which is that of agent %q by %s; if one agent was renamed on purpose, remove it under the name that it no longer has",
		e.ID, e.Key.Fingerprint(), e.Other, e.Path)
}

// RememberError means that a [FirstUse] could not write down what it would have to remember. It unwraps to Err.
type RememberError struct {
	ID   string // the agent; empty when nothing can be remembered at all
	Path string // the directory
	Err  error  // why, such as one that matches fs.ErrPermission or ErrFull
}

func (e *RememberError) Error() string { return "keys: " + e.text() }

func (e *RememberError) text() string {
	what := "no agent can"
	if e.ID != "" {
		what = fmt.Sprintf("agent %q cannot", e.ID)
	}
	return fmt.Sprintf("%s be remembered in %s: %v", what, e.Path, cause(e.Err))
}

// Unwrap returns e.Err.
func (e *RememberError) Unwrap() error { return e.Err }

// cause is an error without the name of the temporary file that it happened to.
func cause(err error) error {
	var path *fs.PathError
	var link *os.LinkError
	switch {
	case errors.Is(err, errNoLinks), errors.Is(err, ErrFull):
		return err
	case errors.As(err, &path):
		return path.Err
	case errors.As(err, &link):
		return link.Err
	}
	return err
}
