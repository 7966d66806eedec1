package mesh

import (
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
	"github.com/infrafabric/agentmesh/witness"
)

// lesser is another foe, whose key is less than the Node's, so that it is the Node that offers.
func (d *duel) lesser() *duel {
	d.t.Helper()
	id := newIdentity(d.t, "agent-l")
	for id.PublicKey().Compare(d.node.cfg.Identity.PublicKey()) > 0 {
		id = newIdentity(d.t, "agent-l")
	}
	return d.as(id)
}

// hears waits for an envelope of a kind.
func (d *duel) hears(kind signaling.Kind) *signaling.Sealed {
	d.t.Helper()
	for range 20 {
		if e := d.heard(); e != nil && e.Kind == kind {
			return e
		}
	}
	d.t.Fatalf("no %v", kind)
	return nil
}

// TestCarrierChecksTheKey: a neighbour hands in what is signed by another key of its own name,
// as an agent does that the key it once had is trusted for elsewhere. It is not
// passed on, whatever the recipient thinks of that key.
func TestCarrierChecksTheKey(t *testing.T) {
	inChain(t, func(c *chain) {
		other := newIdentity(t, "a")
		// What c would make of it if it came: its trust knows the other key.
		c.nodes["c"].cfg.Trust = newBook(other, c.ids["b"], c.ids["c"])
		for _, x := range []struct {
			id   *keys.Identity
			want int
		}{{other, 0}, {c.ids["a"], 1}} {
			if !c.nodes["a"].lookup("b").session().carry(c.offer(x.id, "default", "c")) {
				t.Fatal("not handed over")
			}
			time.Sleep(time.Second)
			c.mu.Lock()
			reached := 0
			for _, e := range c.events {
				if e.AgentID == "c" && e.PeerID == "a" && e.Name != witness.PeerDisconnected {
					reached++
				}
			}
			c.events = nil
			c.mu.Unlock()
			if reached > 0 != (x.want > 0) {
				t.Errorf("signed by %s: %d events at the recipient", x.id.PublicKey(), reached)
			}
		}
	})
}

// TestWithdrawnAttemptIsTold: an offer is on its way when the session that was in
// doubt answers. Its recipient hears that it need not go on.
func TestWithdrawnAttemptIsTold(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		d = d.lesser()
		w := d.connect()
		p := d.accept()
		offer := d.hears(signaling.Offer) // after a while of silence
		w.put(w.pong())
		if s := p.Status(); s.State != StateConnected {
			t.Fatalf("the Peer is %v", s.State)
		}
		// The session that answers is the quickest way to tell it.
		for f := w.get(); ; f = w.get() {
			if f == nil {
				t.Fatal("the offer is not taken back")
			}
			if k, _ := peekFrame(f); k != kindEnvelope {
				continue
			}
			carried, err := decodeEnvelopeFrame(f)
			if err != nil {
				t.Fatal(err)
			}
			if e, err := signaling.Parse(carried.Envelope); err == nil && e.Kind == signaling.Reject && e.Ref == offer.Hash() {
				break
			}
		}
	})
}

// TestGenerationExceedsWhatWasSeen: the other side's clock is ahead, and so was the
// generation of the session in use. The next one ranks above it all the same.
func TestGenerationExceedsWhatWasSeen(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		for _, d := range []*duel{d.lesser(), d} {
			d.gen = uint64(time.Now().Add(freshness).UnixMilli())
			w := d.connect()
			p := d.accept()
			go p.Replace(p.Context())
			for {
				e := d.heard()
				if e == nil {
					t.Fatal("neither an offer nor a wish for one")
				}
				if e.Kind == signaling.Offer && e.Generation <= d.gen || e.Kind == signaling.Ask && e.Generation < d.gen {
					t.Errorf("%v of generation %d after one of %d", e.Kind, e.Generation, d.gen)
				}
				if e.Kind == signaling.Offer || e.Kind == signaling.Ask {
					break
				}
			}
			w.line.Close()
		}
	})
}

// TestFloodOfNegotiations: an agent offers without end, or asks for offers, each
// above the last, and lets none of them come to anything. What that costs is bounded.
func TestFloodOfNegotiations(t *testing.T) {
	const flood = 3 * maxNegotiationsBurst
	for _, kind := range []signaling.Kind{signaling.Offer, signaling.Ask} {
		inDuel(t, func(t *testing.T, d *duel) {
			d = d.lesser()
			w := d.connect()
			d.accept()
			before := d.lines.count()
			for range flood {
				body := d.description()
				if kind == signaling.Ask {
					d.gen += 5
					body = (&askBody{Reason: ReasonRequested}).encode()
				}
				d.hub.inject(d.node.ID(), d.seal(kind, signaling.Hash{}, body).Bytes())
				time.Sleep(time.Millisecond)
				w.put(w.pong())
			}
			synctest.Wait()
			if n := d.lines.count() - before; n > maxNegotiationsBurst+5 || n < maxNegotiationsBurst/2 {
				t.Errorf("%v: %d connections for %d, want up to %d", kind, n, flood, maxNegotiationsBurst)
			}
		})
	}
}

// TestAbsentAfterAll: the connection that a dial is about to have goes on when a server
// says late that it does not know the other side.
func TestAbsentAfterAll(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		dialled := make(chan error, 1)
		go func() {
			_, err := d.node.Dial(t.Context(), "agent-m")
			dialled <- err
		}()
		offer := d.hears(signaling.Offer)
		answer := d.seal(signaling.Answer, offer.Hash(), d.description())
		d.hub.inject("agent-a", answer.Bytes())
		synctest.Wait()
		w := d.opened(offer, offer.Hash(), answer.Hash())
		synctest.Wait()
		before := d.lines.count()
		d.hub.mu.Lock()
		end := d.hub.ends["agent-a"]
		d.hub.mu.Unlock()
		end.put(signaling.Event{Kind: signaling.EventNotice, Server: "hub",
			Notice: signaling.Notice{Code: signaling.CodeNotRegistered, Ref: offer.Hash()}})
		synctest.Wait()
		w.greet()
		if err := <-dialled; err != nil || d.lines.count() != before {
			t.Errorf("%v, %d further connections", err, d.lines.count()-before)
		}
	})
}

// TestBlame: of an attempt that found no path the relays are shunned, and not of one
// that had its path and ended otherwise.
func TestBlame(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		d.connect()
		p := d.accept()
		for name, x := range map[string]struct {
			answered, opened bool
			err              error
			want             bool
		}{
			"nobody answered":      {false, false, errAttemptTimeout, false},
			"it did not open":      {true, false, errAttemptTimeout, true},
			"no hello came":        {true, true, errAttemptTimeout, true},
			"it ended":             {true, true, net.ErrClosed, false},
			"it was refused":       {true, false, &rejectedError{code: rejectBusy}, false},
			"a standby fell quiet": {true, true, errQuiet, true},
			"it did not take over": {true, true, errPromotion, true},
		} {
			shuns := look(t, p, func() bool {
				a := &attempt{peer: p, answered: x.answered, err: x.err, theirRelay: name}
				a.opened.Store(x.opened)
				p.blame(a)
				return slices.Contains(p.shun.list(time.Now()), name)
			})
			if shuns != x.want {
				t.Errorf("%s: the relay is shunned: %v", name, shuns)
			}
		}
	})
}
