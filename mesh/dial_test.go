package mesh

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/internal/virtual"
	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
)

// listed is a Trust that can list its keys.
type listed struct{ *book }

func (l listed) Find(_ context.Context, id string) ([]keys.PublicKey, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k, ok := l.keys[id]; ok {
		return []keys.PublicKey{k}, nil
	}
	return nil, nil
}

// TestDialErrorTellsAll: however its end and that of its attempts fall, a dial that ran
// out of time says what was tried.
func TestDialErrorTellsAll(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		for i := range 40 {
			_, err := dialFor(d.node, "agent-m", time.Duration(1+i*50)*time.Millisecond)
			var de *DialError
			if !errors.As(err, &de) || len(de.Tried) == 0 || !strings.Contains(err.Error(), "offer sent through hub") || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%d: %v", i, err)
			}
			_, err = dialFor(d.node, "nobody", time.Duration(1+i*50)*time.Millisecond)
			if !errors.As(err, &de) || len(de.Tried) == 0 || !strings.Contains(err.Error(), "not registered") {
				t.Errorf("%d: %v", i, err)
			}
		}
	})
}

// TestDialEndsWithItsContext: a key service that does not answer does not keep a dial
// longer than a moment.
func TestDialEndsWithItsContext(t *testing.T) {
	for _, takes := range []time.Duration{500 * time.Millisecond, time.Minute} {
		inDuel(t, func(t *testing.T, d *duel) {
			began := time.Now()
			_, err := dialFor(d.node, "agent-m", 100*time.Millisecond)
			if took := time.Since(began); took > storyWait+200*time.Millisecond || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v, after %v", err, took)
			}
		}, func(c *Config) {
			_, private, err := ed25519.GenerateKey(nil)
			if err != nil {
				t.Fatal(err)
			}
			if c.Identity, err = keys.NewIdentity("agent-a", keyService{private, takes}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestImpatientDial: one side's callers give up, again and again. The other side's dial
// is not theirs to end.
func TestImpatientDial(t *testing.T) {
	for _, pause := range []time.Duration{0, 50 * time.Millisecond, 200 * time.Millisecond} {
		t.Run(pause.String(), func(t *testing.T) {
			inWorld(t, virtual.Config{RTT: 200 * time.Millisecond, STUN: true}, func(w *world) {
				a, b := w.agent("agent-a", virtual.Open), w.agent("agent-b", virtual.Open)
				stop, cancel := context.WithCancel(w.t.Context())
				var wg sync.WaitGroup
				wg.Go(func() {
					for stop.Err() == nil {
						if _, err := dialFor(a, "agent-b", 150*time.Millisecond); err == nil {
							return
						}
						time.Sleep(pause)
					}
				})
				for i := range 3 {
					began := time.Now()
					p, err := dialFor(b, "agent-a", 30*time.Second)
					if err != nil {
						t.Error(err)
						break
					}
					if took := time.Since(began); took > 5*time.Second {
						t.Errorf("%d: a patient dial took %v", i, took)
					}
					_ = p.Close()
				}
				cancel()
				wg.Wait()
			})
		})
	}
}

// TestTryDial: what a dial would wait for is an error at once, which names it.
func TestTryDial(t *testing.T) {
	fails := func(t *testing.T, n *Node, id string, within time.Duration, target error, says ...string) {
		t.Helper()
		began := time.Now()
		_, err := n.TryDial(t.Context(), id)
		if took := time.Since(began); took > within || !errors.Is(err, target) {
			t.Errorf("%s: %v, after %v", id, err, took)
		}
		for _, s := range says {
			if !strings.Contains(fmt.Sprint(err), s) {
				t.Errorf("%s: %v does not say %q", id, err, s)
			}
		}
	}
	inWorld(t, virtual.Config{RTT: 50 * time.Millisecond, STUN: true}, func(w *world) {
		lists := func(c *Config) { c.Trust = listed{w.trust} }
		a, b := w.agent("agent-a", virtual.Open, lists), w.agent("agent-b", virtual.Open)
		t := w.t
		fails(t, a, "agent-x", 0, ErrUntrusted, "agent-x", "this agent's trust policy")
		// Listed, and nobody is there.
		gone := newIdentity(t, "agent-c")
		w.trust.mu.Lock()
		w.trust.keys["agent-c"] = gone.PublicKey()
		w.trust.mu.Unlock()
		fails(t, a, "agent-c", 500*time.Millisecond, ErrAbsent, "agent-c is not registered at ws://s1.example/")
		// Somebody else is there.
		w.agentAs(newIdentity(t, "agent-c"), virtual.Open)
		fails(t, a, "agent-c", 500*time.Millisecond, ErrUntrusted, "refused")
		// It is there, and does not want this one.
		w.agent("agent-d", virtual.Open, func(c *Config) { c.Trust = newBook() })
		fails(t, a, "agent-d", 500*time.Millisecond, ErrRefused, a.cfg.Identity.PublicKey().Fingerprint())
		// One that waits goes on, and one that is there answers.
		later := make(chan error, 1)
		go func() { _, err := dialFor(b, "agent-e", time.Minute); later <- err }()
		time.Sleep(time.Second)
		fails(t, b, "agent-e", 500*time.Millisecond, ErrAbsent)
		w.agent("agent-e", virtual.Open)
		if err := <-later; err != nil {
			t.Error(err)
		}
		if p, err := a.TryDial(t.Context(), "agent-b"); err != nil || p.Status().State != StateConnected {
			t.Error(err)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := b.TryDial(ended, "agent-a"); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// TestDialSaysWhyItWaits: after two seconds, and then every thirty.
func TestDialSaysWhyItWaits(t *testing.T) {
	log := &logged{}
	inWorld(t, virtual.Config{RTT: 50 * time.Millisecond, STUN: true}, func(w *world) {
		a := w.agent("agent-a", virtual.Open, func(c *Config) { c.Logger = log.logger() })
		_, err := dialFor(a, "agent-b", 70*time.Second)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
	if n := log.count("agent-b is not registered at"); log.count("a dial waits") != 3 || n != 3 {
		t.Errorf("said %d times: %s", n, log.lines)
	}
}

// TestAbsentAgents: dials of agents that nobody has registered cost little, hold nothing,
// and end when the agent comes.
func TestAbsentAgents(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		ctx, cancel := context.WithCancel(t.Context())
		var dials sync.WaitGroup
		for i := range 400 {
			dials.Go(func() { _, _ = d.node.Dial(ctx, fmt.Sprint("nobody-", i)) })
		}
		time.Sleep(time.Minute)
		before := d.lines.count()
		time.Sleep(time.Minute)
		if n := d.lines.count() - before; n > 1200 {
			t.Errorf("%d connections a minute", n)
		}
		if n := len(d.node.turns); n > 20 {
			t.Errorf("%d are under way", n)
		}
		cancel()
		dials.Wait()
	}, func(c *Config) { c.Trust = keys.TrustAny })
	inWorld(t, virtual.Config{RTT: 50 * time.Millisecond, STUN: true}, func(w *world) {
		a := w.agent("agent-a", virtual.Open)
		for _, absent := range []time.Duration{time.Second, 17 * time.Second, 10 * time.Minute} {
			name := fmt.Sprint("agent-", absent.Seconds())
			dialled := make(chan error, 1)
			go func() { _, err := dialFor(a, name, time.Hour); dialled <- err }()
			time.Sleep(absent)
			w.agent(name, virtual.Open)
			came := time.Now()
			if err := <-dialled; err != nil || time.Since(came) > time.Second {
				w.t.Errorf("absent for %v: %v, %v after it came", absent, err, time.Since(came))
			}
		}
	})
}

// TestSilentAgentsStarveNobody: a thousand agents are registered and do not answer. One
// that does is dialled soon.
func TestSilentAgentsStarveNobody(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		ctx, cancel := context.WithCancel(t.Context())
		var dials sync.WaitGroup
		for i := range 600 {
			defer d.hub.end(fmt.Sprint("silent-", i)).Close()
			dials.Go(func() {
				time.Sleep(time.Duration(i) * 10 * time.Millisecond)
				_, _ = d.node.Dial(ctx, fmt.Sprint("silent-", i))
			})
		}
		time.Sleep(31 * time.Second)
		dials.Go(func() {
			for ctx.Err() == nil {
				e := d.heard()
				if e == nil || e.Kind != signaling.Offer {
					continue
				}
				answer := d.seal(signaling.Answer, e.Hash(), d.description(), func(x *signaling.Envelope) { x.Generation = e.Generation })
				d.hub.inject("agent-a", answer.Bytes())
				time.Sleep(10 * time.Millisecond)
				f := d.opened(e, e.Hash(), answer.Hash())
				f.line.in <- f.hello(f.foe)
			}
		})
		began := time.Now()
		if _, err := dialFor(d.node, "agent-m", time.Minute); err != nil || time.Since(began) > 10*time.Second {
			t.Errorf("%v, after %v", err, time.Since(began))
		}
		cancel()
		dials.Wait()
	}, func(c *Config) { c.Trust = keys.TrustAny })
}
