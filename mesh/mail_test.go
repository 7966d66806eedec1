package mesh

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/infrafabric/agentmesh/internal/virtual"
	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
)

// TestDialAgainAtOnce: two agents behind NATs dial each other again as soon as one has
// closed. Candidates that come while the former Peer is closing, or for an offer that
// waits for another one, are not lost.
func TestDialAgainAtOnce(t *testing.T) {
	for _, rtt := range []time.Duration{20, 50, 164, 300} {
		rtt *= time.Millisecond
		t.Run(rtt.String(), func(t *testing.T) {
			inWorld(t, virtual.Config{RTT: rtt, STUN: true}, func(w *world) {
				a, b := w.agent("agent-a", virtual.PortRestricted), w.agent("agent-b", virtual.PortRestricted)
				ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Minute)
				defer cancel()
				for i := range 12 {
					p, err := a.Dial(ctx, "agent-b")
					if err != nil {
						t.Error(err)
						return
					}
					q, err := b.Dial(ctx, "agent-a")
					if err != nil {
						t.Error(err)
						return
					}
					time.Sleep(time.Second)
					x, y, m, n := p, q, a, b
					if i%2 == 1 {
						x, y, m, n = q, p, b, a
					}
					again := make(chan error, 1)
					go func() {
						<-y.Context().Done()
						_ = y.Close()
						_, err := n.Dial(ctx, m.ID())
						again <- err
					}()
					_ = x.Close()
					start := time.Now()
					if _, err := m.Dial(ctx, n.ID()); err != nil {
						t.Error(err)
					}
					if err := <-again; err != nil {
						t.Error(err)
					}
					if took := time.Since(start); took > 3*time.Second {
						t.Errorf("%d: again after %v", i, took)
					}
				}
			})
		})
	}
}

// TestCandidateBeforeOffer: an agent moves to another address. The first copy of its
// offer is lost, and the candidate of the same negotiation gets through. It is used when
// the offer has come.
func TestCandidateBeforeOffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := virtual.New(t, virtual.Config{RTT: 50 * time.Millisecond, STUN: true})
		defer n.Close()
		h := newHub(25 * time.Millisecond)
		ia, ib := newIdentity(t, "agent-a"), newIdentity(t, "agent-b")
		for ia.PublicKey().Compare(ib.PublicKey()) < 0 { // a offers
			ia = newIdentity(t, "agent-a")
		}
		trust := newBook(ia, ib)
		moved := make(chan struct{})
		var hosts []*virtual.Host
		var nodes []*Node
		for _, id := range []*keys.Identity{ia, ib} {
			host, err := n.Host(virtual.PortRestricted)
			if err != nil {
				t.Fatal(err)
			}
			cfg := Config{Identity: id, Trust: trust, Net: host, STUN: []string{n.STUNServer()}}
			if id == ia {
				cfg.NetworkChanged = func(ctx context.Context) error {
					select {
					case <-moved:
						return nil
					case <-ctx.Done():
						return ctx.Err()
					}
				}
			}
			node := startNode(t, h, nil, cfg)
			defer func() { node.Close(); synctest.Wait() }()
			hosts, nodes = append(hosts, host), append(nodes, node)
		}
		p, err := dialFor(nodes[0], "agent-b", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		q, err := nodes[1].Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if err := hosts[0].Move(); err != nil {
			t.Fatal(err)
		}
		offers, before := 0, 0
		h.mu.Lock()
		h.tamper = func(e *signaling.Sealed, raw []byte) [][]byte { // under h.mu
			switch e.Kind {
			case signaling.Offer:
				offers++
				if offers == 1 {
					return nil
				}
			case signaling.Candidate:
				if e.From == "agent-a" && offers == 1 {
					before++
				}
			}
			return [][]byte{raw}
		}
		h.mu.Unlock()
		start := time.Now()
		moved <- struct{}{}
		if err := p.Send(t.Context(), Message{ID: "moved"}); err != nil {
			t.Fatal(err)
		}
		if _, err := q.Receive(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("traffic again after %v", took)
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		if before == 0 {
			t.Error("no candidate came before the offer")
		}
	})
}

// TestEarlyCandidatesBounded: candidates of offers that never come take a bounded room,
// and the last ones are kept.
func TestEarlyCandidatesBounded(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		f := d.connect()
		defer f.line.Close()
		for i := range 5 * maxEarly {
			d.hub.inject("agent-a", d.seal(signaling.Candidate, signaling.Hash{byte(i), 1}, (&candidateBody{}).encode()).Bytes())
			time.Sleep(10 * time.Millisecond)
		}
		p := d.node.lookup("agent-m")
		kept := make(chan []verified, 1)
		p.post(func() { kept <- p.early })
		if list := <-kept; len(list) != maxEarly || list[maxEarly-1].Ref != (signaling.Hash{5*maxEarly - 1, 1}) {
			t.Errorf("%d are kept", len(list))
		}
	})
}

// TestTakenBackInGlare: the losing offer of a glare is answered after a while, unless its
// author has taken it back.
func TestTakenBackInGlare(t *testing.T) {
	for _, back := range []bool{false, true} {
		t.Run(fmt.Sprint("taken back: ", back), func(t *testing.T) {
			inDuel(t, func(t *testing.T, d *duel) {
				d = d.lesser()
				go func() { _, _ = dialFor(d.node, "agent-l", 8*time.Second) }()
				if e := d.heard(); e == nil || e.Kind != signaling.Offer {
					t.Fatal("no offer")
				}
				mine := d.seal(signaling.Offer, signaling.Hash{}, d.description())
				d.hub.inject("agent-a", mine.Bytes())
				if back {
					time.Sleep(100 * time.Millisecond)
					d.hub.inject("agent-a", d.seal(signaling.Reject, mine.Hash(), (&rejectBody{Code: rejectBusy}).encode()).Bytes())
				}
				answered := false
				for start := time.Now(); time.Since(start) < 7*time.Second; {
					e := d.heard()
					answered = answered || e != nil && e.Kind == signaling.Answer && e.Ref == mine.Hash()
				}
				if answered == back {
					t.Errorf("answered: %v", answered)
				}
			})
		})
	}
}
