package mesh

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/internal/virtual"
	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
)

// TestDisplaced: a short-lived process with the same key takes an agent's place at its
// only server, which only waits to be dialled. Accept and the log say so; when the other
// is gone it can be dialled again.
func TestDisplaced(t *testing.T) {
	log := &logged{}
	inWorld(t, virtual.Config{RTT: 50 * time.Millisecond, STUN: true}, func(w *world) {
		b := w.agent("agent-b", virtual.Open, func(c *Config) { c.Logger = log.logger() })
		a := w.agent("agent-a", virtual.Open)
		told := make(chan error, 1)
		go func() { _, err := b.Accept(w.t.Context()); told <- err }()
		time.Sleep(time.Second)
		short := w.agentAs(b.cfg.Identity, virtual.Open)
		began := time.Now()
		if err := <-told; !errors.Is(err, ErrReplaced) || time.Since(began) > time.Second {
			w.t.Errorf("Accept: %v, after %v", err, time.Since(began))
		}
		if _, err := b.Accept(w.t.Context()); !errors.Is(err, ErrReplaced) || b.Context().Err() != nil {
			w.t.Errorf("Accept again: %v", err)
		}
		if log.count("taken this agent's place") != 1 {
			w.t.Error("the log does not say so")
		}
		if err := short.Close(); err != nil {
			w.t.Error(err)
		}
		time.Sleep(2 * time.Minute) // it asks every minute or so
		accepted := make(chan error, 1)
		go func() { _, err := b.Accept(w.t.Context()); accepted <- err }()
		if _, err := dialFor(a, "agent-b", 5*time.Second); err != nil {
			w.t.Error(err)
		}
		if err := <-accepted; err != nil {
			w.t.Error(err)
		}
		if log.count("can be reached again") != 1 {
			w.t.Error("the log does not say that it is back")
		}
	})
}

// TestDisplacedBy: which states of the servers mean that nobody new reaches the agent.
func TestDisplacedBy(t *testing.T) {
	replaced := func(s signaling.State) signaling.ServerStatus {
		return signaling.ServerStatus{State: s, Err: signaling.ErrReplaced}
	}
	is := func(s signaling.State) signaling.ServerStatus { return signaling.ServerStatus{State: s} }
	for name, c := range map[string]struct {
		servers []signaling.ServerStatus
		want    bool
	}{
		"none":                   {nil, false},
		"open":                   {[]signaling.ServerStatus{is(signaling.StateOpen)}, false},
		"replaced":               {[]signaling.ServerStatus{replaced(signaling.StateReplaced)}, true},
		"asking":                 {[]signaling.ServerStatus{replaced(signaling.StateConnecting)}, true},
		"new":                    {[]signaling.ServerStatus{is(signaling.StateConnecting)}, false},
		"another open":           {[]signaling.ServerStatus{replaced(signaling.StateReplaced), is(signaling.StateOpen)}, false},
		"another out of reach":   {[]signaling.ServerStatus{replaced(signaling.StateReplaced), is(signaling.StateWaiting)}, false},
		"one server by two URLs": {[]signaling.ServerStatus{is(signaling.StateDuplicate), is(signaling.StateOpen)}, false},
		"and replaced there":     {[]signaling.ServerStatus{is(signaling.StateDuplicate), replaced(signaling.StateReplaced)}, true},
		"a spare":                {[]signaling.ServerStatus{replaced(signaling.StateReplaced), is(signaling.StateSpare)}, true},
		"refused":                {[]signaling.ServerStatus{is(signaling.StateRefused)}, false},
	} {
		if got := displaced(c.servers); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// forgetful is a policy that learns, and cannot.
type forgetful struct{ *keys.FirstUse }

var errReadOnly = errors.New("read-only file system")

func (forgetful) Learn(context.Context, keys.Claim) error { return errReadOnly }

// TestDialCannotLearn: a dialler that cannot remember a key makes one session, not one
// after another, and says what is wrong.
func TestDialCannotLearn(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "known")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	first := openFirstUse(t, dir)
	inWorld(t, virtual.Config{RTT: 50 * time.Millisecond, STUN: true}, func(w *world) {
		a := w.agent("agent-a", virtual.Open, func(c *Config) { c.Trust = forgetful{first} })
		b := w.agent("agent-b", virtual.Open)
		began := time.Now()
		_, err := dialFor(a, "agent-b", time.Minute)
		if !errors.Is(err, ErrUntrusted) || !errors.Is(err, errReadOnly) || time.Since(began) > 2*time.Second {
			w.t.Errorf("dial: %v, after %v", err, time.Since(began))
		}
		time.Sleep(30 * time.Second)
		if p := b.lookup("agent-a"); p != nil {
			w.t.Errorf("the other side still has a Peer: %v", p.Status())
		}
	})
}
