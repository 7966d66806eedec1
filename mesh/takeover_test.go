package mesh

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/infrafabric/agentmesh/internal/virtual"
)

// couple is two connected agents on a virtual network whose only server can die.
type couple struct {
	net    *virtual.Net
	hub    *hub
	ha, hb *virtual.Host
	p, q   *Peer // a's and b's
}

// inCouple runs f in a bubble with a couple.
func inCouple(t *testing.T, rtt time.Duration, f func(t *testing.T, c *couple), change ...func(*Config)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := &couple{net: virtual.New(t, virtual.Config{RTT: rtt}), hub: newHub(rtt / 2)}
		defer c.net.Close()
		ia, ib := newIdentity(t, "agent-a"), newIdentity(t, "agent-b")
		trust := newBook(ia, ib)
		var err error
		if c.ha, err = c.net.Host(virtual.Open); err != nil {
			t.Fatal(err)
		}
		if c.hb, err = c.net.Host(virtual.Open); err != nil {
			t.Fatal(err)
		}
		ca, cb := Config{Identity: ia, Trust: trust, Net: c.ha}, Config{Identity: ib, Trust: trust, Net: c.hb}
		for _, x := range change {
			x(&ca)
			x(&cb)
		}
		a, b := startNode(t, c.hub, nil, ca), startNode(t, c.hub, nil, cb)
		defer func() { a.Close(); synctest.Wait(); b.Close() }()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if c.p, err = a.Dial(ctx, "agent-b"); err != nil {
			t.Fatal(err)
		}
		if c.q, err = b.Accept(ctx); err != nil {
			t.Fatal(err)
		}
		f(t, c)
	})
}

// generation is that of the session that carries a Peer's messages.
func generation(p *Peer) uint64 {
	if s := p.session(); s != nil {
		return s.order.generation
	}
	return 0
}

// arrives sends one message and reports how long it took, or that it did not.
func (c *couple) arrives(t *testing.T, within time.Duration) time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	start := time.Now()
	if err := c.p.Send(ctx, Message{ID: "after"}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.q.Receive(ctx); err != nil {
		t.Fatalf("apart after %v: %v; a is %v, b is %v", within, err, c.p.Status().State, c.q.Status().State)
	}
	return time.Since(start)
}

// TestHalfTakenOver: no server and no neighbour is left, and the network fails for a
// while just when one side of a replacement has both hellos and the other has not. The
// two meet again by the session before, which is kept until both are known to have
// moved.
func TestHalfTakenOver(t *testing.T) {
	for _, outage := range []time.Duration{time.Second, 5 * time.Second, 12 * time.Second, 2 * time.Minute} {
		inCouple(t, 50*time.Millisecond, func(t *testing.T, c *couple) {
			time.Sleep(2 * time.Second)
			c.hub.dead.Store(true)
			before := generation(c.p)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			done := make(chan struct{})
			go func() { defer close(done); _ = c.p.Replace(ctx) }()
			for generation(c.p) == before && generation(c.q) == before {
				time.Sleep(time.Millisecond)
			}
			if generation(c.p) == generation(c.q) {
				t.Fatal("both moved at one instant")
			}
			c.net.Block(c.ha, c.hb)
			c.net.Block(c.hb, c.ha)
			time.Sleep(outage)
			c.net.Unblock(c.ha, c.hb)
			c.net.Unblock(c.hb, c.ha)
			most := 5 * time.Second
			if outage > 30*time.Second { // an attempt that began during it may have to end first
				most = attemptTimeout + time.Second
			}
			if took := c.arrives(t, time.Hour); took > most {
				t.Errorf("an outage of %v costs %v after it", outage, took)
			}
			cancel()
			<-done
		})
	}
}

// TestReplaceUnderLoss: as before, with a network that loses two packets in five.
func TestReplaceUnderLoss(t *testing.T) {
	for seed := range int64(20) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			t.Parallel()
			inCouple(t, 50*time.Millisecond, func(t *testing.T, c *couple) {
				time.Sleep(2 * time.Second)
				c.hub.dead.Store(true)
				if err := c.net.SetLoss(40, seed); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				_ = c.p.Replace(ctx) // it may fail; what follows must not
				time.Sleep(15 * time.Second)
				if err := c.net.SetLoss(0, seed); err != nil {
					t.Fatal(err)
				}
				c.arrives(t, time.Hour)
			})
		})
	}
}

// TestHelloTooLate: the other side's hello comes when the time for it is over, and the
// connection is being closed. That makes no session.
func TestHelloTooLate(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		w := d.negotiate()
		s := newSession(d.node, newLedger("agent-m", testObserver(t), minWindow, 0, 0), &lateLine{line: w.line}, order{1, d.foe.PublicKey()})
		s.bind = binding{mesh: "default", local: "agent-a", remote: "agent-m", localInst: w.bind.remoteInst, remoteInst: w.bind.localInst,
			offer: w.bind.offer, answer: w.bind.answer, localCert: w.bind.remoteCert, remoteCert: w.bind.localCert}
		s.remoteKey = d.foe.PublicKey()
		ctx, cancel := context.WithCancel(t.Context())
		late := s.conn.(*lateLine)
		late.hello, late.cancel = w.hello(d.foe), cancel
		if _, err := s.handshake(ctx); err == nil {
			t.Error("a session on a connection that is being closed")
		}
		if !late.closed.Load() {
			t.Error("the connection stays open")
		}
	})
}

// TestHelloAfterVerdict: the other side's hello comes at the instant when the path has
// been found narrow. That makes no session: it would be closed as soon as it is used, when
// the one before has been retired for it.
func TestHelloAfterVerdict(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		w := d.negotiate()
		s := newSession(d.node, newLedger("agent-m", testObserver(t), minWindow, 0, 0), &lateLine{line: w.line}, order{1, d.foe.PublicKey()})
		s.bind = binding{mesh: "default", local: "agent-a", remote: "agent-m", localInst: w.bind.remoteInst, remoteInst: w.bind.localInst,
			offer: w.bind.offer, answer: w.bind.answer, localCert: w.bind.remoteCert, remoteCert: w.bind.localCert}
		s.remoteKey = d.foe.PublicKey()
		late := s.conn.(*lateLine)
		late.hello, late.cancel = w.hello(d.foe), func() { s.proof.found.Store(findingNarrow) }
		if _, err := s.handshake(t.Context()); !errors.Is(err, ErrNarrowPath) {
			t.Errorf("got %v", err)
		}
	})
}

// lateLine hands over a hello after its reader's context has ended.
type lateLine struct {
	*line
	hello  []byte
	cancel context.CancelFunc
	closed atomic.Bool
}

func (l *lateLine) Read(b []byte) (int, error) {
	l.cancel()
	synctest.Wait()
	return copy(b, l.hello), nil
}

func (l *lateLine) Close() error {
	l.closed.Store(true)
	return nil
}

// The side that has a session first may want the next one before the other side has
// that session at all: its wish is about a session which is above that.
func TestReplaceAtOnce(t *testing.T) {
	for _, rtt := range []time.Duration{0, time.Millisecond, 50 * time.Millisecond} {
		t.Run(rtt.String(), func(t *testing.T) {
			inCouple(t, rtt, func(t *testing.T, c *couple) {
				for i := range 40 {
					p := []*Peer{c.p, c.q}[i/20]
					began := time.Now()
					if err := p.Replace(t.Context()); err != nil {
						t.Fatalf("%d: %v", i, err)
					}
					if took := time.Since(began); took > time.Second+10*rtt {
						t.Errorf("%d took %v", i, took)
					}
				}
			})
		})
	}
}
