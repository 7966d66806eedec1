package mesh

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/infrafabric/agentmesh/internal/virtual"
	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
)

// inHub runs f in a bubble with two trusted agents on a hub.
func inHub(t *testing.T, f func(t *testing.T, h *hub, a, b *Node), change ...func(*Config)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		world := virtual.New(t, virtual.Config{RTT: 50 * time.Millisecond})
		defer world.Close()
		h := newHub(25 * time.Millisecond)
		idA, idB := newIdentity(t, "agent-a"), newIdentity(t, "agent-b")
		trust := newBook(idA, idB)
		var nodes [2]*Node
		for i, id := range []*keys.Identity{idA, idB} {
			host, err := world.Host(virtual.Open)
			if err != nil {
				t.Fatal(err)
			}
			cfg := Config{Identity: id, Trust: trust, Net: host}
			for _, c := range change {
				c(&cfg)
			}
			nodes[i] = startNode(t, h, nil, cfg)
			defer func() {
				nodes[i].Close()
				synctest.Wait()
			}()
		}
		f(t, h, nodes[0], nodes[1])
	})
}

func dialFor(n *Node, id string, d time.Duration) (*Peer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return n.Dial(ctx, id)
}

// TestSwappedFingerprint: a server that swaps the certificate in the SDP
// breaks the signature; one that could sign would break the SDP's agreement
// with its envelope.
func TestSwappedFingerprint(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub, a, b *Node) {
		h.tamper = func(e *signaling.Sealed, raw []byte) [][]byte {
			out := append([]byte(nil), raw...)
			for i := range out { // flip a bit in the middle of the body
				if i == len(out)/2 {
					out[i] ^= 1
				}
			}
			return [][]byte{out}
		}
		var de *DialError
		if _, err := dialFor(a, "agent-b", 5*time.Second); !errors.As(err, &de) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dial through a server that changes everything: %v", err)
		}
		// The same dial succeeds when the server stops: nothing was held
		// against the agents.
		h.mu.Lock()
		h.tamper = nil
		h.mu.Unlock()
		if _, err := dialFor(a, "agent-b", 5*time.Second); err != nil {
			t.Error(err)
		}
	})
	fp, other := keys.Fingerprint{1}, keys.Fingerprint{2}
	for name, sdp := range map[string]string{
		"another fingerprint":     "a=fingerprint:sha-256 " + other.String() + "\r\n",
		"a second fingerprint":    "a=fingerprint:sha-256 " + fp.String() + "\r\na=fingerprint:sha-256 " + other.String() + "\r\n",
		"another algorithm":       "a=fingerprint:sha-1 " + fp.String() + "\r\n",
		"a second, weaker one":    "a=fingerprint:sha-256 " + fp.String() + "\r\na=fingerprint:sha-1 AA\r\n",
		"no fingerprint":          "v=0\r\n",
		"not a fingerprint":       "a=fingerprint:sha-256 zz\r\n",
		"fingerprint without hex": "a=fingerprint:sha-256\r\n",
	} {
		if _, err := decodeDescription((&descriptionBody{SDP: sdp, Fingerprint: fp}).encode()); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := decodeDescription((&descriptionBody{SDP: "a=fingerprint:SHA-256 " + fp.String() + "\r\n", Fingerprint: fp}).encode()); err != nil {
		t.Errorf("the right fingerprint: %v", err)
	}
}

// TestForgeryBesideHonest: forged and foreign envelopes arrive with every
// honest one, before it; the dial succeeds and none of them makes a Peer.
func TestForgeryBesideHonest(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub, a, b *Node) {
		mallory := newIdentity(t, "agent-a") // claims the name with a key of its own
		h.tamper = func(e *signaling.Sealed, raw []byte) [][]byte {
			forged := append([]byte(nil), raw...)
			forged[len(forged)-1] ^= 1 // the signature
			out := [][]byte{forged, []byte("junk"), nil, raw[:len(raw)/2]}
			if e.From == "agent-a" {
				fake := e.Envelope
				fake.Nonce = signaling.Nonce{}
				squat, err := signaling.Seal(mallory, fake)
				if err != nil {
					t.Error(err)
				}
				out = append(out, squat.Bytes())
			}
			return append(out, raw, raw)
		}
		p, err := dialFor(a, "agent-b", 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Send(context.Background(), Message{Payload: json.RawMessage("1")}); err != nil {
			t.Error(err)
		}
		q, err := b.Accept(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if m, err := q.Receive(context.Background()); err != nil || m.Source != "agent-a" {
			t.Errorf("received %v, %v", m, err)
		}
	})
}

// TestReplayedOffer: an offer that arrives again, also after its session has
// ended, starts nothing; an old or far future one neither.
func TestReplayedOffer(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub, a, b *Node) {
		p, err := dialFor(a, "agent-b", 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		offer := h.seen[0]
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		peers := func() int {
			b.mu.Lock()
			defer b.mu.Unlock()
			return len(b.peers)
		}
		if peers() != 0 {
			t.Fatal("b still has a Peer")
		}
		h.inject("agent-b", offer.Bytes())
		for name, when := range map[string]time.Duration{"stale": -freshness - time.Second, "future": freshness + time.Second} {
			e := offer.Envelope
			e.Nonce, e.Time = signaling.Nonce{}, time.Now().Add(when)
			s, err := signaling.Seal(a.cfg.Identity, e)
			if err != nil {
				t.Fatal(name, err)
			}
			h.inject("agent-b", s.Bytes())
		}
		e := offer.Envelope
		e.Nonce, e.Time, e.Generation = signaling.Nonce{}, time.Now(), uint64(time.Now().Add(time.Hour).UnixMilli())
		ahead, err := signaling.Seal(a.cfg.Identity, e)
		if err != nil {
			t.Fatal(err)
		}
		h.inject("agent-b", ahead.Bytes())
		e = offer.Envelope
		e.Nonce, e.Time, e.Mesh = signaling.Nonce{}, time.Now(), "other"
		foreign, err := signaling.Seal(a.cfg.Identity, e)
		if err != nil {
			t.Fatal(err)
		}
		h.inject("agent-b", foreign.Bytes())
		synctest.Wait()
		if peers() != 0 {
			t.Error("a replayed, stale, future or foreign offer made a Peer")
		}
	})
}

// TestUntrustedOffer: an agent that is not trusted gets a signed refusal, and
// its dial ends at once instead of waiting.
func TestUntrustedOffer(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub, a, b *Node) {
		b.cfg.Trust.(*book).remove("agent-a") // a goes on trusting b
		start := time.Now()
		_, err := dialFor(a, "agent-b", time.Minute)
		if !errors.Is(err, ErrRefused) {
			t.Errorf("dial of an agent that does not trust: %v", err)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("refused after %v", took)
		}
	})
}

// TestFirstUse: a dialled agent's key is learned after its hello, kept, and a
// changed key is refused.
func TestFirstUse(t *testing.T) {
	known, err := keys.NewFirstUse(keys.FirstUseConfig{Path: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	inHub(t, func(t *testing.T, h *hub, a, b *Node) {
		p, err := dialFor(a, "agent-b", 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		claim := keys.Claim{ID: "agent-b", Key: b.cfg.Identity.PublicKey(), Time: time.Now()}
		if v, err := keys.Check(context.Background(), known, claim); err != nil || v.Decision != keys.Yes {
			t.Errorf("after the dial: %v, %v", v, err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		claim.Key = newIdentity(t, "agent-b").PublicKey()
		if v, err := keys.Check(context.Background(), known, claim); v.Decision != keys.Refused || err == nil {
			t.Errorf("changed key: %v, %v", v, err)
		}
		// Whoever only calls is not learned.
		idC := newIdentity(t, "agent-c")
		if err := checkTrust(context.Background(), known, keys.Claim{ID: "agent-c", Key: idC.PublicKey(), Time: time.Now()}); !errors.Is(err, ErrUntrusted) {
			t.Errorf("a caller: %v", err)
		}
	}, func(c *Config) {
		if c.Identity.ID() == "agent-a" {
			c.Trust = known
		}
	})
}

// TestGlareWithheld: the winning offer never arrives, so its owner answers the
// other one after two seconds.
func TestGlareWithheld(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub, a, b *Node) {
		winner := "agent-a"
		if b.cfg.Identity.PublicKey().Compare(a.cfg.Identity.PublicKey()) > 0 {
			winner = "agent-b"
		}
		h.tamper = func(e *signaling.Sealed, raw []byte) [][]byte {
			if e.Kind == signaling.Offer && e.From == winner {
				return nil
			}
			return [][]byte{raw}
		}
		got := make(chan error, 2)
		start := time.Now()
		go func() { _, err := dialFor(a, "agent-b", 9*time.Second); got <- err }()
		go func() { _, err := dialFor(b, "agent-a", 9*time.Second); got <- err }()
		for range 2 {
			if err := <-got; err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(start); took < glareWait || took > glareWait+time.Second {
			t.Errorf("connected after %v", took)
		}
	})
}

// TestReplayMemory is the pure part.
func TestReplayMemory(t *testing.T) {
	r := newReplayMemory()
	k := newIdentity(t, "agent-a").PublicKey()
	now := goldenTime
	n := func(i int) (x [16]byte) { x[0], x[1] = byte(i), byte(i>>8); return }
	if v := r.remember(now, k, n(1), signaling.Hash{1}, now); v != replayNew {
		t.Errorf("first: %v", v)
	}
	if v := r.remember(now, k, n(1), signaling.Hash{1}, now); v != replayDuplicate {
		t.Errorf("the same bytes: %v", v)
	}
	if v := r.remember(now, k, n(1), signaling.Hash{2}, now); v != replayReused {
		t.Errorf("the same nonce: %v", v)
	}
	for i := 2; i <= maxNonces; i++ {
		if v := r.remember(now, k, n(i), signaling.Hash{1}, now); v != replayNew {
			t.Fatalf("%d: %v", i, v)
		}
	}
	if v := r.remember(now, k, n(maxNonces+1), signaling.Hash{1}, now); v != replayFull {
		t.Errorf("beyond the cap: %v", v)
	}
	if v := r.remember(now, newIdentity(t, "agent-b").PublicKey(), n(1), signaling.Hash{1}, now); v != replayNew {
		t.Errorf("another key: %v", v)
	}
	later := now.Add(freshness + time.Millisecond)
	if v := r.remember(later, k, n(maxNonces+1), signaling.Hash{1}, later); v != replayNew {
		t.Errorf("after the window: %v", v)
	}
	if len(r.keys[k].seen) != 1 {
		t.Errorf("%d envelopes remembered after the window", len(r.keys[k].seen))
	}
}
