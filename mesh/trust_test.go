package mesh

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/infrafabric/agentmesh/internal/virtual"
	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
	"github.com/infrafabric/agentmesh/witness"
)

// listing writes a directory file as an operator does: a new file, renamed
// over the old one.
func listing(t testing.TB, path string, entries ...keys.Entry) {
	t.Helper()
	var text strings.Builder
	text.WriteString("# agents\n")
	for _, e := range entries {
		text.WriteString(e.String() + "\n")
	}
	if err := os.WriteFile(path+".new", []byte(text.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func entry(id *keys.Identity, roles ...string) keys.Entry {
	return keys.Entry{ID: id.ID(), Key: id.PublicKey(), Roles: roles}
}

func openDirectory(t testing.TB, path string) *keys.Directory {
	t.Helper()
	d, err := keys.NewDirectory(keys.DirectoryConfig{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// trusting gives agent-a a policy of its own; tests fill it once they know the
// keys.
func trusting(trust keys.Trust) func(*Config) {
	return func(c *Config) {
		if c.Identity.ID() == "agent-a" {
			c.Trust = trust
		}
	}
}

func openFirstUse(t testing.TB, path string) *keys.FirstUse {
	t.Helper()
	f, err := keys.NewFirstUse(keys.FirstUseConfig{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestTrustUnknownAndRefused: an answer under a key that the policy does not
// hold ends no dial, for anybody can send one, but the dial's error says whose
// key came and what the policy said.
func TestTrustUnknownAndRefused(t *testing.T) {
	for name, list := range map[string]func(a, b *keys.Identity) []keys.Entry{
		"unknown": func(a, b *keys.Identity) []keys.Entry { return []keys.Entry{entry(a)} },
		"refused": func(a, b *keys.Identity) []keys.Entry {
			return []keys.Entry{entry(a), entry(newIdentity(t, b.ID()))}
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "agents")
			listing(t, path)
			trust := openDirectory(t, path)
			inWorld(t, virtual.Config{RTT: 50 * time.Millisecond}, func(w *world) {
				a, b := w.agent("agent-a", virtual.Open, trusting(trust)), w.agent("agent-b", virtual.Open)
				listing(t, path, list(a.cfg.Identity, b.cfg.Identity)...)
				_, err := dialFor(a, "agent-b", 5*time.Second)
				var de *DialError
				if !errors.As(err, &de) || !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ErrUntrusted) ||
					!strings.Contains(err.Error(), b.cfg.Identity.PublicKey().Fingerprint()) {
					w.t.Errorf("dial: %v", err)
				}
				if mismatch := new(*keys.KeyMismatchError); errors.As(err, mismatch) != (name == "refused") {
					w.t.Errorf("dial: %v", err)
				}
				synctest.Wait() // the Peer ends with its last dial
				if a.lookup("agent-b") != nil {
					w.t.Error("an agent that is not trusted has a Peer")
				}
				time.Sleep(attemptTimeout) // b's answer is given up
				// The other way round the refusal is signed, and ends the dial at once.
				start := time.Now()
				if _, err := dialFor(b, "agent-a", time.Minute); !errors.Is(err, ErrRefused) {
					w.t.Errorf("dial by the one who is not trusted: %v", err)
				}
				if took := time.Since(start); took > time.Second {
					w.t.Errorf("refused after %v", took)
				}
			})
		})
	}
}

// slowly is a trust policy that takes its time.
type slowly struct {
	keys.Trust
	takes time.Duration
}

func (s slowly) Check(ctx context.Context, c keys.Claim) (keys.Verdict, error) {
	<-time.After(s.takes)
	return s.Trust.Check(ctx, c)
}

// TestOneDialIsOneEvent: an agent that trust does not know dials once, and is reported once,
// whatever follows its offer and however long trust thinks about it.
func TestOneDialIsOneEvent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agents")
	listing(t, path)
	trust := slowly{openDirectory(t, path), 300 * time.Millisecond}
	inWorld(t, virtual.Config{RTT: 50 * time.Millisecond}, func(w *world) {
		events := &countedEvents{of: map[witness.Name]int{}}
		w.agent("agent-a", virtual.Open, trusting(trust), func(c *Config) { c.Recorder = events })
		b := w.agent("agent-b", virtual.Symmetric)
		if _, err := dialFor(b, "agent-a", 5*time.Second); !errors.Is(err, ErrRefused) {
			w.t.Error(err)
		}
		time.Sleep(attemptTimeout)
		if n := events.count(witness.UnauthorizedConnectionAttempt); n != 1 {
			w.t.Errorf("%d events", n)
		}
	})
}

// TestCandidatesOfAStranger: what follows an offer, when that is still thought about, is
// turned away with it and no event of its own.
func TestCandidatesOfAStranger(t *testing.T) {
	events := &countedEvents{of: map[witness.Name]int{}}
	inDuel(t, func(t *testing.T, d *duel) {
		stranger := *d
		stranger.foe = newIdentity(t, "agent-s")
		offer := stranger.seal(signaling.Offer, signaling.Hash{}, d.description())
		d.hub.inject("agent-a", offer.Bytes())
		for range 3 {
			d.hub.inject("agent-a", stranger.seal(signaling.Candidate, offer.Hash(), (&candidateBody{Candidates: []string{"candidate:1 1 udp 1 10.0.0.9 9 typ host"}}).encode()).Bytes())
		}
		time.Sleep(time.Second)
		if n := events.count(witness.UnauthorizedConnectionAttempt); n != 1 {
			t.Errorf("%d events", n)
		}
	}, func(c *Config) { c.Trust, c.Recorder = slowly{c.Trust, 100 * time.Millisecond}, events })
}

// TestTrustRemoved: a line removed from a real directory file closes the live
// Peer within two seconds, and the other side learns why.
func TestTrustRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agents")
	listing(t, path)
	inHub(t, func(t *testing.T, h *hub, a, b *Node) {
		listing(t, path, entry(a.cfg.Identity), entry(b.cfg.Identity))
		p, err := dialFor(a, "agent-b", 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		q, err := b.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if p.Context().Err() != nil {
			t.Fatalf("while it is listed: %v", context.Cause(p.Context()))
		}
		// A broken file withdraws nothing: a mistake must not cut off everybody.
		if err := os.WriteFile(path, []byte("agent-b ed25519:half of a li"), 0o644); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if p.Context().Err() != nil {
			t.Fatalf("while the file is broken: %v", context.Cause(p.Context()))
		}
		start := time.Now()
		listing(t, path, entry(a.cfg.Identity))
		<-p.Context().Done()
		if took := time.Since(start); took > trustInterval {
			t.Errorf("closed after %v", took)
		}
		if cause := context.Cause(p.Context()); !errors.Is(cause, ErrUntrusted) {
			t.Errorf("cause %v", cause)
		}
		<-q.Context().Done()
		if cause := context.Cause(q.Context()); !errors.Is(cause, ErrRefused) {
			t.Errorf("the other side's cause %v", cause)
		}
		listing(t, path, entry(a.cfg.Identity), entry(b.cfg.Identity))
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if _, err := dialFor(a, "agent-b", 5*time.Second); err != nil {
			t.Errorf("dial when it is listed again: %v", err)
		}
	}, trusting(openDirectory(t, path)))
}

// TestTrustRotated: a live Peer whose agent is listed with another key as well
// stays; when only the other key is left, it goes, and the agent with the other
// key can be dialled.
func TestTrustRotated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agents")
	listing(t, path)
	inDuel(t, func(t *testing.T, d *duel) {
		next := newIdentity(t, "agent-m")
		listing(t, path, entry(d.foe))
		w := d.connect()
		p := d.accept()
		listing(t, path, entry(d.foe), entry(next))
		for range 5 {
			time.Sleep(trustInterval)
			w.put((&echoFrame{}).encode())
		}
		if p.Context().Err() != nil {
			t.Fatalf("while both keys are listed: %v", context.Cause(p.Context()))
		}
		listing(t, path, entry(next))
		time.Sleep(trustInterval)
		synctest.Wait()
		var mismatch *keys.KeyMismatchError
		if cause := context.Cause(p.Context()); !errors.Is(cause, ErrUntrusted) || !errors.As(cause, &mismatch) {
			t.Errorf("the old key alone: %v", cause)
		}
		w.put(w.batch(w.record(Message{})))
		nothing(t, p)
		time.Sleep(linger)
		d.foe = next
		d.connect()
		d.accept()
	}, trusting(openDirectory(t, path)))
}

// TestTrustComposed: a directory that lists an agent with other keys wins over
// a memory that knows this one, live and at the door.
func TestTrustComposed(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "agents")
	listing(t, path)
	known := openFirstUse(t, filepath.Join(dir, "known"))
	trust := keys.Compose(openDirectory(t, path), known)
	inDuel(t, func(t *testing.T, d *duel) {
		other := newIdentity(t, "agent-c")
		listing(t, path, entry(other, "operator"))
		claim := keys.Claim{ID: "agent-m", Key: d.foe.PublicKey(), Time: time.Now()}
		if err := known.Learn(t.Context(), claim); err != nil {
			t.Fatal(err)
		}
		w := d.connect()
		p := d.accept()
		// Roles are the directory's to give: neither memory nor peer has any.
		if v, err := keys.Check(t.Context(), trust, claim); err != nil || v.Decision != keys.Yes || len(v.Roles) != 0 {
			t.Errorf("verdict %+v, %v", v, err)
		}
		w.put((&echoFrame{}).encode())
		listing(t, path, entry(other), entry(newIdentity(t, "agent-m")))
		time.Sleep(trustInterval)
		synctest.Wait()
		if cause := context.Cause(p.Context()); !errors.Is(cause, ErrUntrusted) {
			t.Errorf("refused by one policy, known to the other: %v", cause)
		}
		time.Sleep(linger)
		offer := d.seal(signaling.Offer, signaling.Hash{}, d.description())
		d.hub.inject("agent-a", offer.Bytes())
		if e := d.heard(); e == nil || e.Kind == signaling.Answer {
			t.Errorf("answered with %v", e)
		}
	}, trusting(trust))
}

// TestTrustCallersAreNotLearned: whoever calls an agent that learns is refused
// and leaves no trace, however often; nor does one who answers a dial and
// fails at the hello.
func TestTrustCallersAreNotLearned(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "known")
	inDuel(t, func(t *testing.T, d *duel) {
		learned := func() int {
			files, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			return len(files)
		}
		for range 5 {
			d.hub.inject("agent-a", d.seal(signaling.Offer, signaling.Hash{}, d.description()).Bytes())
			if e := d.heard(); e == nil || e.Kind != signaling.Reject {
				t.Fatalf("a caller got %v", e)
			}
		}
		if learned() != 0 {
			t.Error("a caller was learned")
		}
		dialled := func(change ...func(*helloBody)) error {
			got := make(chan error, 1)
			go func() { _, err := dialFor(d.node, "agent-m", 3*time.Second); got <- err }()
			for e := d.heard(); e != nil; e = d.heard() {
				if e.Kind == signaling.Offer {
					answer := d.seal(signaling.Answer, e.Hash(), d.description())
					d.hub.inject("agent-a", answer.Bytes())
					time.Sleep(10 * time.Millisecond)
					d.opened(e, e.Hash(), answer.Hash()).greet(change...)
				}
				if len(change) == 0 {
					break
				}
			}
			return <-got
		}
		if err := dialled(func(h *helloBody) { h.PeerCert[0] ^= 1 }); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dial: %v", err)
		}
		if learned() != 0 {
			t.Error("learned before the hello was verified")
		}
		time.Sleep(attemptTimeout)
		for d.heard() != nil { // what the first dial had sent
		}
		if err := dialled(); err != nil {
			t.Error(err)
		}
		if learned() != 1 {
			t.Error("not learned after the hello")
		}
	}, trusting(openFirstUse(t, dir)))
}

// TestTrustAgainAtEachSession: a key that was removed a moment ago, before the
// next look at the live Peers, gets no new session.
func TestTrustAgainAtEachSession(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		d.connect()
		p := d.accept()
		d.trust.remove("agent-m")
		offer := d.seal(signaling.Offer, signaling.Hash{}, d.description())
		d.hub.inject("agent-a", offer.Bytes())
		for e := d.heard(); e != nil; e = d.heard() {
			if e.Kind == signaling.Answer && e.Ref == offer.Hash() {
				t.Error("a new session for a key that is not trusted any more")
			}
		}
		time.Sleep(trustInterval)
		synctest.Wait()
		if cause := context.Cause(p.Context()); !errors.Is(cause, ErrUntrusted) {
			t.Errorf("the live Peer: %v", cause)
		}
	})
	// Nor does one whose negotiation had begun when it was removed.
	inDuel(t, func(t *testing.T, d *duel) {
		w := d.negotiate()
		d.trust.remove("agent-m")
		w.greet()
		time.Sleep(trustInterval + time.Second)
		synctest.Wait()
		if d.node.lookup("agent-m") != nil {
			t.Error("a Peer for a key that was removed before the hello")
		}
	})
}
