package mesh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/infrafabric/agentmesh/internal/virtual"
	"github.com/infrafabric/agentmesh/signaling"

	"golang.org/x/mod/sumdb/tlog"
)

// TestCloseBeforeAcknowledgement: a Peer is closed while the acknowledgement of
// what it took still waits for company. The next Peer acknowledges all the same.
func TestCloseBeforeAcknowledgement(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub, a, b *Node) {
		for i := range 3 {
			p, q := meet(t, a, b)
			tell(t, p, fmt.Sprint("taken ", i))
			hear(t, q, fmt.Sprint("taken ", i))
			if err := q.Close(); err != nil {
				t.Error(err)
			}
			<-p.Context().Done()
			if err := p.Close(); err != nil {
				t.Errorf("the last acknowledgement is missing: %v", err)
			}
			p, q = meet(t, a, b)
			tell(t, p, "next")
			hear(t, q, "next")
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			if err := p.Flush(ctx); err != nil {
				t.Fatalf("round %d: %v", i, err)
			}
			cancel()
			if err := errors.Join(q.Close(), p.Close()); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestRedialAtOnce: a Peer is closed and dialled again before the other side has
// taken leave of the first one. The offer is not lost on it.
func TestRedialAtOnce(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub, a, b *Node) {
		for i := range 10 {
			x, y := a, b
			if i%3 == 2 {
				x, y = b, a
			}
			start := time.Now()
			p, q := meet(t, x, y)
			if took := time.Since(start); took > time.Second {
				t.Errorf("round %d: connected after %v", i, took)
			}
			tell(t, p, fmt.Sprint(i))
			hear(t, q, fmt.Sprint(i))
			if err := p.Flush(context.Background()); err != nil {
				t.Error(err)
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestCloseAtOnce: whoever closes a Peer the moment it is connected still says
// goodbye, so that the other side knows that nothing broke.
func TestCloseAtOnce(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub, a, b *Node) {
		for i := range 20 {
			p, err := dialFor(a, "agent-b", 5*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			q, err := b.Accept(ctx)
			cancel()
			if err != nil {
				t.Fatal(err)
			}
			<-q.Context().Done()
			if cause := context.Cause(q.Context()); !errors.Is(cause, ErrPeerClosed) {
				t.Errorf("round %d: the other side learns %v", i, cause)
			}
			if err := q.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestCloseWhileConnecting: the Peer is closed at the very moment when it takes
// in its first session. The session is ended with a goodbye, not dropped.
func TestCloseWhileConnecting(t *testing.T) {
	var once sync.Once
	hook := logHook{new(func(string))}
	*hook.f = func(string) {}
	inHub(t, func(t *testing.T, h *hub, a, b *Node) {
		*hook.f = func(text string) {
			if text == "session established" {
				once.Do(func() {
					a.lookup("agent-b").shut(goodbyeClosed, &closedError{})
					time.Sleep(time.Millisecond) // everybody who waits for that has run
				})
			}
		}
		if _, err := dialFor(a, "agent-b", 5*time.Second); !errors.Is(err, net.ErrClosed) {
			t.Errorf("dial: %v", err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		q, err := b.Accept(ctx)
		if err != nil {
			t.Fatal(err)
		}
		<-q.Context().Done()
		if cause := context.Cause(q.Context()); !errors.Is(cause, ErrPeerClosed) {
			t.Errorf("the other side learns %v", cause)
		}
	}, func(c *Config) {
		if c.Identity.ID() == "agent-a" {
			c.Logger = slog.New(hook)
		}
	})
}

// logHook calls a function with each line of a log, where it is written.
type logHook struct{ f *func(string) }

func (h logHook) Enabled(context.Context, slog.Level) bool { return true }
func (h logHook) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h logHook) WithGroup(string) slog.Handler            { return h }

func (h logHook) Handle(_ context.Context, r slog.Record) error {
	(*h.f)(r.Message)
	return nil
}

// TestReplacedWhileSending: the older of two processes with one identity is
// busy sending when the newer one takes over. It learns why at once, and does
// not come back.
func TestReplacedWhileSending(t *testing.T) {
	inWorld(t, virtual.Config{RTT: 50 * time.Millisecond}, func(w *world) {
		a := w.agent("agent-a", virtual.Open, noSTUN)
		old := w.agent("agent-b", virtual.Open, noSTUN)
		q, p := w.pair(old, a)
		ctx := context.Background()
		sent := make(chan error, 1)
		go func() {
			for {
				if err := q.Send(ctx, Message{}); err != nil {
					sent <- err
					return
				}
				time.Sleep(time.Millisecond)
			}
		}()
		go func() {
			for {
				if _, err := p.Receive(ctx); err != nil {
					return
				}
			}
		}()
		time.Sleep(time.Second)
		start := time.Now()
		newer := w.agentAs(old.cfg.Identity, virtual.Open, noSTUN)
		if _, err := newer.Dial(ctx, "agent-a"); err != nil {
			t.Fatal(err)
		}
		err := <-sent
		if !errors.Is(err, ErrReplaced) || !errors.Is(err, net.ErrClosed) {
			t.Errorf("send of the older process: %v", err)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("the older process learned after %v", took)
		}
		if _, err := dialFor(old, "agent-a", 5*time.Second); !errors.Is(err, ErrReplaced) {
			t.Errorf("dial of the older process: %v", err)
		}
		if err := p.Context().Err(); err != nil {
			t.Errorf("the Peer did not go on with the newer process: %v", context.Cause(p.Context()))
		}
	})
}

// TestReplacedAfterwards: the newer process has come and gone when the older
// one, which did not hear of it, dials. It is told, and leaves nothing behind.
func TestReplacedAfterwards(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub, a, b *Node) {
		p, q := meet(t, b, a)
		if err := errors.Join(p.Close(), q.Close()); err != nil {
			t.Error(err)
		}
		newer := startNode(t, h, a.connector, Config{Identity: b.cfg.Identity, Trust: b.cfg.Trust})
		p, q = meet(t, newer, a)
		if err := errors.Join(p.Close(), q.Close(), newer.Close()); err != nil {
			t.Error(err)
		}
		b.signaler.(*hubEnd).back()
		if _, err := dialFor(b, "agent-a", 5*time.Second); !errors.Is(err, ErrReplaced) {
			t.Errorf("the older process dials: %v", err)
		}
		synctest.Wait()
		if n := peerCount(a); n != 0 {
			t.Errorf("%d Peers left behind", n)
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.incoming != 0 {
			t.Errorf("%d negotiations counted for ever", a.incoming)
		}
	})
}

func noSTUN(c *Config) { c.STUN = nil }

// back makes a hub deliver to this end again after a newer one of the name.
func (e *hubEnd) back() {
	e.hub.mu.Lock()
	defer e.hub.mu.Unlock()
	e.hub.ends[e.name] = e
}

// meet dials b from a and takes the Peer there.
func meet(t testing.TB, a, b *Node) (p, q *Peer) {
	t.Helper()
	p, err := dialFor(a, b.ID(), 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if q, err = b.Accept(ctx); err != nil {
		t.Fatal(err)
	}
	return p, q
}

func tell(t testing.TB, p *Peer, id string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := p.Send(ctx, Message{ID: id, Payload: json.RawMessage("1")}); err != nil {
		t.Fatal(err)
	}
}

func hear(t testing.TB, p *Peer, id string) Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	m, err := p.Receive(ctx)
	if err != nil || m.ID != id {
		t.Fatalf("received %q instead of %q: %v", m.ID, id, err)
	}
	return m
}

// peerCount is how many Peers are in a Node's books.
func peerCount(n *Node) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.peers)
}

// turmoil is traffic between two Nodes whose Peers come and go, and the account
// of what became of each message.
type turmoil struct {
	t    *testing.T
	seed uint64

	mu       sync.Mutex
	peers    map[*Peer]bool
	accepted map[string]bool   // by ID: Send returned nil
	arrived  map[string]bool   // by ID
	reported map[string]bool   // by ID: a Close said so
	last     map[string]uint64 // by receiving agent: the number that came last
	work     sync.WaitGroup    // receivers
}

// adopt notes a Peer and receives from it, once per Peer, until it ends.
//
// bubble: its receiver sleeps.
func (u *turmoil) adopt(p *Peer) {
	u.mu.Lock()
	known := u.peers[p]
	u.peers[p] = true
	u.mu.Unlock()
	if known {
		return
	}
	u.work.Go(func() {
		for {
			m, err := u.take(p)
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					u.t.Errorf("seed %d: receive: %v", u.seed, err)
				}
				return
			}
			if !m { // waiting in Receive, it would file it after another's next
				time.Sleep(time.Millisecond)
			}
		}
	})
}

// take receives what is there, and files it before anybody else receives.
//
// bubble: called by receivers inside one.
func (u *turmoil) take(p *Peer) (bool, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	done, cancel := context.WithCancel(context.Background())
	cancel()
	m, err := p.Receive(done)
	if errors.Is(err, context.Canceled) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	at := p.node.ID()
	if u.arrived[m.ID] {
		u.t.Errorf("seed %d: %s arrived twice", u.seed, m.ID)
	}
	if m.SequenceNum <= u.last[at] {
		u.t.Errorf("seed %d: at %s number %d after %d", u.seed, at, m.SequenceNum, u.last[at])
	}
	u.arrived[m.ID], u.last[at] = true, m.SequenceNum
	return true, nil
}

// send sends one message, or learns that the Peer has closed.
func (u *turmoil) send(ctx context.Context, p *Peer, id string) {
	switch err := p.Send(ctx, Message{ID: id}); {
	case err == nil:
		u.mu.Lock()
		u.accepted[id] = true
		u.mu.Unlock()
	case !errors.Is(err, net.ErrClosed) && !errors.Is(err, context.DeadlineExceeded):
		u.t.Errorf("seed %d: send: %v", u.seed, err)
	}
}

// report files what a Close returned.
func (u *turmoil) report(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, id := range undeliveredIn(err) {
		u.reported[id] = true
	}
}

// undeliveredIn collects the IDs of every *UndeliveredError in err, which must
// hold nothing else.
func undeliveredIn(err error) (ids []string) {
	var lost *UndeliveredError
	switch e := err.(type) {
	case nil:
	case interface{ Unwrap() []error }:
		for _, x := range e.Unwrap() {
			ids = append(ids, undeliveredIn(x)...)
		}
	default:
		if errors.As(err, &lost) {
			return lost.IDs
		}
	}
	return ids
}

// agent dials the other side again and again, sends, flushes and closes, as the
// draws say.
//
// bubble: it sleeps.
func (u *turmoil) agent(rng *rand.Rand, n *Node, other, name string, rounds int) {
	for i := range rounds {
		wait := time.Duration(rng.IntN(2000)) * time.Millisecond
		ctx, cancel := context.WithTimeout(context.Background(), wait)
		p, err := n.Dial(ctx, other)
		if err != nil {
			var de *DialError
			if !errors.As(err, &de) || !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, net.ErrClosed) {
				u.t.Errorf("seed %d: %s dials: %v", u.seed, name, err)
			}
			cancel()
			continue
		}
		u.adopt(p)
		for k := range rng.IntN(8) {
			u.send(ctx, p, fmt.Sprintf("%s.%d.%d", name, i, k))
		}
		if rng.IntN(2) == 0 {
			err := p.Flush(ctx)
			if err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, context.DeadlineExceeded) {
				u.t.Errorf("seed %d: flush: %v", u.seed, err)
			}
		}
		time.Sleep(time.Duration(rng.IntN(100)) * time.Millisecond)
		if rng.IntN(2) == 0 {
			u.report(p.Close())
		}
		cancel()
	}
}

// accepts takes the Peers that the other side begins.
//
// bubble: for adopt.
func (u *turmoil) accepts(n *Node) {
	for {
		p, err := n.Accept(context.Background())
		if err != nil {
			return
		}
		u.adopt(p)
	}
}

// settle closes everything and draws up the account.
func (u *turmoil) settle(a, b *Node) {
	u.report(a.Close())
	u.report(b.Close())
	u.work.Wait()
	for p := range u.peers {
		u.report(p.Close())
	}
	for id := range u.accepted {
		if !u.arrived[id] && !u.reported[id] {
			u.t.Errorf("seed %d: %s neither arrived nor was it reported", u.seed, id)
		}
	}
	for id := range u.reported {
		if !u.accepted[id] {
			u.t.Errorf("seed %d: %s was reported and never accepted", u.seed, id)
		}
	}
}

// TestTurmoil: many goroutines dial in both directions, send, flush and close
// the Peer under each other's hands. Every message that Send accepted arrives
// once and in order, or is reported; no call hangs, and every error says that a
// Peer was closed or that time ran out.
func TestTurmoil(t *testing.T) {
	for seed := range uint64(4) {
		inHub(t, func(t *testing.T, h *hub, a, b *Node) {
			u := &turmoil{t: t, seed: seed, peers: map[*Peer]bool{}, accepted: map[string]bool{},
				arrived: map[string]bool{}, reported: map[string]bool{}, last: map[string]uint64{}}
			rng := rand.New(rand.NewPCG(seed, 6))
			var wg sync.WaitGroup
			for i := range 6 {
				n, other := a, b
				if i%2 == 1 {
					n, other = b, a
				}
				own := rand.New(rand.NewPCG(rng.Uint64(), 0))
				wg.Go(func() { u.agent(own, n, other.ID(), fmt.Sprint(n.ID(), i), 8) })
			}
			u.work.Go(func() { u.accepts(a) })
			u.work.Go(func() { u.accepts(b) })
			if seed%2 == 1 { // and one Node closes during everything, from many sides
				time.Sleep(time.Duration(rng.IntN(1500)) * time.Millisecond)
				for range 3 {
					wg.Go(func() { u.report(b.Close()) })
				}
			}
			wg.Wait()
			if seed%2 == 0 {
				// It was not for nothing: the two can still talk, once the last
				// goodbyes have arrived.
				time.Sleep(time.Second)
				p, err := dialFor(a, b.ID(), 30*time.Second)
				if err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				u.adopt(p)
				u.send(context.Background(), p, "last")
				ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
				if err := p.Flush(ctx); err != nil {
					t.Errorf("seed %d: %v", seed, err)
				}
				cancel()
			}
			u.settle(a, b)
			if n := peerCount(a) + peerCount(b); n != 0 {
				t.Errorf("seed %d: %d Peers left behind", seed, n)
			}
			t.Logf("seed %d: %d Peers, %d messages accepted, %d arrived, %d reported",
				seed, len(u.peers), len(u.accepted), len(u.arrived), len(u.reported))
		})
	}
}

// TestCallsRaceClose: Send, Receive and Flush from many goroutines while the
// Peer is closed from many others: all of them return, with net.ErrClosed, and
// every Close says the same.
func TestCallsRaceClose(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub, a, b *Node) {
		p, _ := meet(t, a, b)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		var calls, closes sync.WaitGroup
		var mu sync.Mutex
		accepted := 0
		for range 4 {
			calls.Go(func() {
				for {
					if err := p.Send(ctx, Message{Payload: digits(1000)}); err != nil {
						if !errors.Is(err, net.ErrClosed) {
							t.Errorf("send: %v", err)
						}
						return
					}
					mu.Lock()
					accepted++
					mu.Unlock()
				}
			})
			calls.Go(func() {
				if _, err := p.Receive(ctx); !errors.Is(err, net.ErrClosed) {
					t.Errorf("receive: %v", err)
				}
			})
			calls.Go(func() {
				for {
					if err := p.Flush(ctx); err != nil {
						if !errors.Is(err, net.ErrClosed) {
							t.Errorf("flush: %v", err)
						}
						return
					}
					time.Sleep(time.Millisecond)
				}
			})
		}
		time.Sleep(200 * time.Millisecond) // the window fills: nobody takes there
		results := make([]error, 8)
		for i := range results {
			closes.Go(func() {
				if i%4 == 3 {
					results[i] = a.Close()
				} else {
					results[i] = p.Close()
				}
			})
		}
		closes.Wait()
		calls.Wait()
		for _, err := range results {
			if ids := undeliveredIn(err); len(ids) != accepted || ids[0] != undeliveredIn(results[0])[0] {
				t.Errorf("%d reported of %d accepted", len(ids), accepted)
			}
		}
	})
}

// TestCloseDuringDial: the Node closes at some moment of a dial, from the first
// to the last. The dial ends at once and says so, or has succeeded before.
func TestCloseDuringDial(t *testing.T) {
	for ms := 0; ms <= 300; ms += 20 {
		inHub(t, func(t *testing.T, h *hub, a, b *Node) {
			got := make(chan error, 2)
			go func() { _, err := dialFor(a, "agent-b", time.Minute); got <- err }()
			go func() { _, err := dialFor(a, "agent-b", time.Minute); got <- err }()
			time.Sleep(time.Duration(ms) * time.Millisecond)
			start := time.Now()
			if err := a.Close(); err != nil {
				t.Errorf("%d ms: %v", ms, err)
			}
			for range 2 {
				if err := <-got; err != nil && (!errors.Is(err, net.ErrClosed) || !errors.As(err, new(*DialError))) {
					t.Errorf("%d ms: %v", ms, err)
				}
			}
			if took := time.Since(start); took > time.Second {
				t.Errorf("%d ms: closing took %v", ms, took)
			}
			// The other side does not go on believing in a Peer.
			time.Sleep(attemptTimeout + time.Second)
			if n := peerCount(b); n != 0 {
				t.Errorf("%d ms: %d Peers left at the other side", ms, n)
			}
		})
	}
}

// TestDialDuringClose: while one goroutine closes the Peer, others dial. Each
// gets the closing one's successor, or the old one before it closed.
func TestDialDuringClose(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub, a, b *Node) {
		p, _ := meet(t, a, b)
		for ms := range 12 {
			var wg sync.WaitGroup
			peers := make([]*Peer, 4)
			wg.Go(func() {
				time.Sleep(50 * time.Millisecond)
				if err := p.Close(); err != nil {
					t.Error(err)
				}
			})
			for i := range peers {
				wg.Go(func() {
					time.Sleep(time.Duration(45+10*ms+i) * time.Millisecond)
					start := time.Now()
					var err error
					if peers[i], err = dialFor(a, "agent-b", time.Minute); err != nil {
						t.Errorf("%d ms: %v", ms, err)
					}
					if took := time.Since(start); took > time.Second {
						t.Errorf("%d ms: dialled for %v", ms, took)
					}
				})
			}
			wg.Wait()
			last, err := dialFor(a, "agent-b", time.Minute)
			if err != nil || last == p {
				t.Fatalf("%d ms: the closed Peer, %v", ms, err)
			}
			for _, x := range peers {
				if x != p && x != last {
					t.Errorf("%d ms: a third Peer", ms)
				}
			}
			p = last
		}
	})
}

// TestReplacedEverywhere: two processes with one identity are registered with
// different servers and dial at the same moment. One takes over, the other
// learns why; later offers, which reach both, are answered by the one that
// stayed. They do not fight.
func TestReplacedEverywhere(t *testing.T) {
	inWorld(t, virtual.Config{RTT: 50 * time.Millisecond}, func(w *world) {
		second, err := signaling.NewServer(signaling.ServerConfig{Names: []string{"s2.example"}})
		if err != nil {
			t.Fatal(err)
		}
		l, err := w.pipes.Listen("s2.example:80")
		if err != nil {
			t.Fatal(err)
		}
		web, served := &http.Server{Handler: second}, make(chan error, 1)
		go func() { served <- web.Serve(l) }()
		defer func() {
			for _, n := range w.nodes { // before their server goes
				if err := n.Close(); err != nil {
					t.Error(err)
				}
				synctest.Wait()
			}
			w.nodes = nil
			if err := errors.Join(second.Close(), web.Close()); err != nil {
				t.Error(err)
			}
			<-served
		}()
		both := func(c *Config) { c.STUN, c.Signaling = nil, []string{"ws://s1.example/", "ws://s2.example/"} }
		other := func(c *Config) { c.STUN, c.Signaling = nil, []string{"ws://s2.example/"} }
		a := w.agent("agent-a", virtual.Open, both)
		b1 := w.agent("agent-b", virtual.Open, noSTUN)
		b2 := w.agentAs(b1.cfg.Identity, virtual.Open, other)
		time.Sleep(time.Second)

		var wg sync.WaitGroup
		var peers [2]*Peer
		for i, n := range []*Node{b1, b2} {
			wg.Go(func() {
				var err error
				if peers[i], err = dialFor(n, "agent-a", 20*time.Second); err != nil && !errors.Is(err, ErrReplaced) {
					t.Errorf("process %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		p, err := a.Accept(ctx)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		p.led.mu.Lock()
		inst := p.led.inst
		p.led.mu.Unlock()
		older, newer := 0, 1
		if inst == b1.instance {
			older, newer = 1, 0
		}
		if peers[newer] == nil || peers[newer].Context().Err() != nil {
			t.Fatal("the process that took over lost its Peer")
		}
		if o := peers[older]; o != nil {
			<-o.Context().Done()
			if cause := context.Cause(o.Context()); !errors.Is(cause, ErrReplaced) {
				t.Errorf("the older process learns: %v", cause)
			}
		}
		nodes := []*Node{b1, b2}
		if _, err := dialFor(nodes[older], "agent-a", 20*time.Second); !errors.Is(err, ErrReplaced) {
			t.Errorf("the older process dials: %v", err)
		}
		tell(t, p, "while connected")
		hear(t, peers[newer], "while connected")
		for i := range 3 {
			if err := p.Flush(context.Background()); err != nil {
				t.Error(err)
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
			q := peers[newer]
			<-q.Context().Done()
			if err := q.Close(); err != nil {
				t.Error(err)
			}
			if p, err = dialFor(a, "agent-b", 20*time.Second); err != nil {
				t.Fatalf("dial %d: %v", i, err)
			}
			if peers[newer], err = nodes[newer].Accept(context.Background()); err != nil {
				t.Fatal(err)
			}
			tell(t, p, fmt.Sprint(i))
			hear(t, peers[newer], fmt.Sprint(i))
		}
		if err := p.Flush(context.Background()); err != nil {
			t.Error(err)
		}
		if len(nodes[older].accepted) != 0 {
			t.Error("the older process got a Peer again")
		}
	})
}

// deadConn is a connection that died when its hello was done.
type deadConn struct{ done chan struct{} }

func newDeadConn() *deadConn { return &deadConn{make(chan struct{})} }

func (*deadConn) Offer(context.Context) (string, error)          { return "", net.ErrClosed }
func (*deadConn) Answer(context.Context, string) (string, error) { return "", net.ErrClosed }
func (*deadConn) Accept(string) error                            { return net.ErrClosed }
func (*deadConn) AddCandidate(string) error                      { return net.ErrClosed }
func (*deadConn) Queued() uint64                                 { return 0 }
func (*deadConn) Packets() (sent, received uint64)               { return 0, 0 }
func (*deadConn) Checks() (uint64, time.Duration)                { return 0, 0 }
func (*deadConn) Candidates() <-chan string                      { return nil }
func (*deadConn) Quiet() <-chan struct{}                         { return nil }
func (*deadConn) Opened() <-chan struct{}                        { return nil }
func (c *deadConn) Done() <-chan struct{}                        { return c.done }
func (*deadConn) RemoteCertificate() []byte                      { return nil }
func (*deadConn) Path() (local, remote string)                   { return "", "" }
func (*deadConn) Base() netip.Addr                               { return netip.Addr{} }
func (*deadConn) Read([]byte) (int, error)                       { return 0, io.EOF }
func (*deadConn) Write([]byte) error                             { return io.ErrClosedPipe }
func (*deadConn) Wait(context.Context) error                     { return nil }
func (*deadConn) Drain(context.Context) error                    { return net.ErrClosed }
func (c *deadConn) Close() error {
	select {
	case <-c.done:
	default:
		close(c.done)
	}
	return nil
}

// stillPeer is a Peer without a loop: the test calls what the loop would.
func stillPeer(t *testing.T) *Peer {
	t.Helper()
	id := newIdentity(t, "agent-a")
	n, err := newNode(Config{Identity: id, Trust: newBook(id), Signaling: []string{"ws://hub.invalid/"}})
	if err != nil {
		t.Fatal(err)
	}
	n.connector, n.signaler = new(lines), newHub(0).end("agent-a")
	led, tenancy := n.ledgers.acquire("agent-b")
	p := newPeer(n, "agent-b", led, tenancy)
	n.peers["agent-b"] = &member{peer: p, dialled: true}
	t.Cleanup(func() {
		p.shut(goodbyeClosed, net.ErrClosed)
		p.work.Wait()
		n.cancel(net.ErrClosed)
	})
	return p
}

// deadSession is a session of a remote instance over a connection that died.
func deadSession(p *Peer, generation uint64, instance byte) *session {
	s := newSession(p.node, p.led, newDeadConn(), order{generation: generation})
	s.bind = binding{remote: p.id, remoteInst: signaling.Instance{instance}}
	return s
}

func helloOf(s *session) *helloBody {
	return &helloBody{FromInstance: s.bind.remoteInst, Window: DefaultWindow, Credit: DefaultWindow, State: 1}
}

// TestConnectionDiesAtHello: a connection dies between its hello and the Peer
// taking it in. The session is the Peer's, and its reader ends it: were it left
// to the negotiation, the Peer would stay connected over nothing for ever.
func TestConnectionDiesAtHello(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := stillPeer(t)
		s := deadSession(p, 1, 1)
		if err := p.attach(newAttempt(p, s.order, true), s, helloOf(s)); err != nil {
			t.Fatalf("attach: %v", err)
		}
		p.sessionEnded(s, s.read())
		if st := p.Status(); st.State != StateRecovering || !errors.Is(st.Err, ErrConnectionLost) {
			t.Errorf("status: %+v", st)
		}
	})
}

// TestGoodbyeOnOldSession: the other side closed its Peer, dialled again, and
// the new session was quicker than the goodbye on the old one. The goodbye ends
// the old session and not what was dialled since.
func TestGoodbyeOnOldSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := stillPeer(t)
		first, second := deadSession(p, 1, 1), deadSession(p, 2, 1)
		for _, s := range []*session{first, second} {
			if err := p.attach(newAttempt(p, s.order, true), s, helloOf(s)); err != nil {
				t.Fatal(err)
			}
		}
		p.sessionEnded(first, &goodbyeError{code: goodbyeClosed})
		if err := p.Context().Err(); err != nil {
			t.Fatalf("the Peer closed with its old session: %v", context.Cause(p.Context()))
		}
		p.sessionEnded(second, &goodbyeError{code: goodbyeClosed})
		if cause := context.Cause(p.Context()); !errors.Is(cause, ErrPeerClosed) {
			t.Errorf("cause: %v", cause)
		}
	})
}

// TestReplacedByClockBehind: the newer process has a clock behind the older
// one's, so that its sessions rank lower. It takes over all the same, and what
// is left of the older one decides nothing any more.
func TestReplacedByClockBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := stillPeer(t)
		older, newer := deadSession(p, 1000, 1), deadSession(p, 10, 2)
		newer.remoteKey = newIdentity(t, "agent-b").PublicKey()
		for _, s := range []*session{older, newer} {
			if err := p.attach(newAttempt(p, s.order, true), s, helloOf(s)); err != nil {
				t.Fatal(err)
			}
		}
		if len(p.sessions) != 1 || p.sessions[0] != newer || p.Key() != newer.remoteKey || newer.retired {
			t.Errorf("%d sessions, retired %v", len(p.sessions), newer.retired)
		}
		if p.led.top != newer {
			t.Error("data does not leave by the newer process's session")
		}
		p.sessionEnded(older, ErrConnectionLost)
		if err := p.Context().Err(); err != nil {
			t.Errorf("the Peer ended with the older process: %v", context.Cause(p.Context()))
		}
	})
}

// TestRetiredSessionsEnd: a peer that answers echoes late, or makes session
// after session, does not keep old sessions open.
func TestRetiredSessionsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := stillPeer(t)
		var all []*session
		for i := range 20 {
			s := deadSession(p, uint64(i+1), 1)
			if err := p.attach(newAttempt(p, s.order, true), s, helloOf(s)); err != nil {
				t.Fatal(err)
			}
			s.rtt.Store(int64(maxRTT)) // as measured with the other side's help
			all = append(all, s)
		}
		open := func() (n int) {
			synctest.Wait()
			for _, s := range all {
				select {
				case <-s.conn.Done():
				default:
					n++
				}
			}
			return n
		}
		if n := open(); n > maxSessions {
			t.Errorf("%d sessions open at once", n)
		}
		all[len(all)-1].confirmed.Store(true) // the other side says something on it
		p.supersede()
		time.Sleep(oldSessionMost + oldSessionGrace + 2*time.Second)
		if n := open(); n != 1 {
			t.Errorf("%d sessions open after the grace", n)
		}
	})
}

// TestAcknowledgeAfterReplacement: an acknowledgement was due and could not
// leave when a new instance took over. The new instance's messages are
// acknowledged all the same.
func TestAcknowledgeAfterReplacement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := stillPeer(t)
		take := func(s *session) {
			t.Helper()
			if err := p.led.accept(s, []Message{{SequenceNum: 1, Signature: &Signature{}}}, [][]byte{{1}}); err != nil {
				t.Fatal(err)
			}
			if _, err := p.led.pop(context.Background(), p.tenancy, true); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * ackDelay)
			synctest.Wait()
		}
		for i := range byte(2) {
			s := deadSession(p, uint64(i)+1, i+1)
			if _, err := p.led.attach(s, helloOf(s)); err != nil {
				t.Fatal(err)
			}
			take(s)
			if i == 0 {
				continue // its writer is stuck: nothing collects
			}
			select {
			case <-s.wake:
				if w := p.led.collect(s); len(w.positions) != 1 || w.positions[0].Delivered != 1 {
					t.Errorf("collected %+v", w)
				}
			default:
				t.Error("the writer is not told that a position is due")
			}
		}
	})
}

// TestPartOfABatch: a batch breaks a rule after good records. Those count, and
// who waits for them learns of them at once.
func TestPartOfABatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := stillPeer(t)
		s := deadSession(p, 1, 1)
		if _, err := p.led.attach(s, helloOf(s)); err != nil {
			t.Fatal(err)
		}
		got := make(chan error, 1)
		go func() {
			_, err := p.led.pop(context.Background(), p.tenancy, true)
			got <- err
		}()
		synctest.Wait()
		leaves := make([]tlog.Hash, 2)
		err := p.led.accept(s, []Message{{SequenceNum: 1, Signature: &Signature{leaves: leaves}},
			{SequenceNum: 3, Signature: &Signature{Index: 1, leaves: leaves}}}, [][]byte{{1}, {1}})
		if !errors.Is(err, ErrProtocol) {
			t.Errorf("a gap: %v", err)
		}
		synctest.Wait()
		select {
		case err := <-got:
			if err != nil {
				t.Error(err)
			}
		default:
			t.Error("the record before the gap waits for ever")
			p.led.end(net.ErrClosed)
		}
	})
}

// TestSkipsDoNotPileUp: skips cost no credit, so a row of them, behind a record
// that the application does not take, must cost no memory either.
func TestSkipsDoNotPileUp(t *testing.T) {
	r := newReceiver(messageFlow, DefaultWindow, 0)
	if _, err := r.record(1, []byte{1}); err != nil {
		t.Fatal(err)
	}
	for n := uint64(3); n < 10_000; n++ {
		if err := r.skipTo(n, r.receivedEnd+1); err != nil {
			t.Fatal(err)
		}
	}
	if len(r.marks) > 2 {
		t.Errorf("%d places remembered", len(r.marks))
	}
	end := r.receivedEnd
	r.deliver(1)
	if r.delivered != 9998 || r.deliveredEnd != end || r.credit != end+DefaultWindow {
		t.Errorf("delivered %d, byte %d of %d, credit %d", r.delivered, r.deliveredEnd, end, r.credit)
	}
}

// TestDialGivenUp: both sides dial, and one gives up at some moment. Its Peer
// closes under the other's offer, whose dial learns of it and succeeds with the
// next, long before its attempt would have timed out.
func TestDialGivenUp(t *testing.T) {
	for ms := 20; ms <= 260; ms += 40 {
		inHub(t, func(t *testing.T, h *hub, a, b *Node) {
			if a.cfg.Identity.PublicKey().Compare(b.cfg.Identity.PublicKey()) > 0 == (ms%80 == 20) {
				a, b = b, a // either side of the glare gives up
			}
			var wg sync.WaitGroup
			wg.Go(func() {
				_, err := dialFor(b, a.ID(), time.Duration(ms)*time.Millisecond)
				if err != nil && !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%d ms: %v", ms, err)
				}
			})
			start := time.Now()
			if _, err := dialFor(a, b.ID(), time.Minute); err != nil {
				t.Errorf("%d ms: %v", ms, err)
			}
			if took := time.Since(start); took > 3*time.Second {
				t.Errorf("%d ms: dialled for %v", ms, took)
			}
			wg.Wait()
		})
	}
}

// TestFlushInDoubt: the other side lives and has forgotten what it delivered.
// Flush does not call that delivered.
func TestFlushInDoubt(t *testing.T) {
	p := stillPeer(t)
	s := deadSession(p, 1, 1)
	if _, err := p.led.attach(s, helloOf(s)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := p.Send(ctx, Message{ID: "in doubt"}); err != nil {
		t.Fatal(err)
	}
	p.led.collect(s)
	flushed := make(chan error, 1)
	go func() { flushed <- p.Flush(ctx) }()
	s = deadSession(p, 2, 1)
	h := helloOf(s)
	h.State++ // another memory than before
	if got, err := p.led.attach(s, h); err != nil || len(got.unknown) != 1 {
		t.Fatal(got, err)
	}
	if err := <-flushed; !errors.Is(err, ErrOutcomeUnknown) {
		t.Errorf("flush while it happened: %v", err)
	}
	if err := p.Flush(ctx); !errors.Is(err, ErrOutcomeUnknown) {
		t.Errorf("flush afterwards: %v", err)
	}
}
