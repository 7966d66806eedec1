package mesh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/transport/v5"

	"github.com/infrafabric/agentmesh/internal/pipenet"
	"github.com/infrafabric/agentmesh/internal/virtual"
	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
)

// world is a virtual internet in one bubble: hosts behind NATs, a STUN server,
// and a real signaling server that agents reach over in-memory connections.
type world struct {
	t     *testing.T
	net   *virtual.Net
	pipes *pipenet.Net
	trust *book
	http  *http.Client

	server *signaling.Server
	web    *http.Server
	served chan error

	mu    sync.Mutex
	nodes []*Node
}

const worldServer = "s1.example:80"

// inWorld runs f in a bubble with a world and stops everything behind it.
func inWorld(t *testing.T, cfg virtual.Config, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, net: virtual.New(t, cfg), pipes: pipenet.New(), trust: newBook(), served: make(chan error, 1)}
		defer w.net.Close()
		// Agent to server and server to agent: half of what one envelope takes.
		w.pipes.Delay = cfg.RTT / 4
		w.http = w.pipes.HTTPClient()
		w.startServer()
		defer w.stop()
		f(w)
	})
}

func (w *world) startServer() {
	w.t.Helper()
	var err error
	if w.server, err = signaling.NewServer(signaling.ServerConfig{Names: []string{"s1.example"}}); err != nil {
		w.t.Fatal(err)
	}
	l, err := w.pipes.Listen(worldServer)
	if err != nil {
		w.t.Fatal(err)
	}
	w.web = &http.Server{Handler: w.server}
	go func() { w.served <- w.web.Serve(l) }()
}

func (w *world) stop() {
	w.mu.Lock()
	nodes := w.nodes
	w.mu.Unlock()
	for _, n := range nodes {
		var lost *UndeliveredError
		if err := n.Close(); err != nil && !errors.As(err, &lost) {
			w.t.Errorf("close %s: %v", n.ID(), err)
		}
		synctest.Wait()
	}
	if err := errors.Join(w.server.Close(), w.web.Close()); err != nil {
		w.t.Error(err)
	}
	<-w.served
	w.http.CloseIdleConnections()
}

func (w *world) host(nat virtual.NAT) transport.Net {
	w.t.Helper()
	h, err := w.net.Host(nat)
	if err != nil {
		w.t.Fatal(err)
	}
	return h
}

// agent starts a trusted agent on a new host; change may alter its Config.
func (w *world) agent(name string, nat virtual.NAT, change ...func(*Config)) *Node {
	w.t.Helper()
	id := newIdentity(w.t, name)
	w.trust.mu.Lock()
	w.trust.keys[name] = id.PublicKey()
	w.trust.mu.Unlock()
	return w.agentAs(id, nat, change...)
}

func (w *world) agentAs(id *keys.Identity, nat virtual.NAT, change ...func(*Config)) *Node {
	w.t.Helper()
	cfg := Config{Identity: id, Trust: w.trust, Signaling: []string{"ws://s1.example/"},
		HTTPClient: w.http, Net: w.host(nat), STUN: []string{w.net.STUNServer()}}
	for _, f := range change {
		f(&cfg)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	n, err := Listen(ctx, cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	w.nodes = append(w.nodes, n)
	w.mu.Unlock()
	return n
}

// pair connects two agents.
func (w *world) pair(a, b *Node) (p, q *Peer) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	p, err := a.Dial(ctx, b.ID())
	if err != nil {
		w.t.Fatal(err)
	}
	if q, err = b.Accept(ctx); err != nil {
		w.t.Fatal(err)
	}
	return p, q
}

// say sends one message and checks that it arrives next.
func (w *world) say(p, q *Peer, id string) Message {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := p.Send(ctx, Message{ID: id, Payload: json.RawMessage(`{"n":1}`)}); err != nil {
		w.t.Fatalf("send %s: %v", id, err)
	}
	m, err := q.Receive(ctx)
	if err != nil {
		w.t.Fatalf("receive %s: %v", id, err)
	}
	if m.ID != id {
		w.t.Fatalf("received %s instead of %s", m.ID, id)
	}
	return m
}

// TestDialTimeServer is TestDialTime with the real server: 25 ms for each
// envelope from agent to agent.
func TestDialTimeServer(t *testing.T) {
	inWorld(t, virtual.Config{RTT: 50 * time.Millisecond, STUN: true}, func(w *world) {
		w.pipes.Delay = 12500 * time.Microsecond
		noSTUN := func(c *Config) { c.STUN = nil }
		a, b := w.agent("agent-a", virtual.Open, noSTUN), w.agent("agent-b", virtual.Open, noSTUN)
		start := time.Now()
		p, q := w.pair(a, b)
		w.say(p, q, "first")
		if took := time.Since(start); took != 275*time.Millisecond {
			t.Errorf("first verified message after %v, want 275ms", took)
		}
	})
}

// TestFiveAgents: a full mesh of five agents behind different NATs. Without a
// relay a symmetric NAT meets neither another one nor a port-restricted one;
// every other pair connects.
func TestFiveAgents(t *testing.T) {
	nats := []virtual.NAT{virtual.Open, virtual.PortRestricted, virtual.PortRestricted, virtual.Symmetric, virtual.Symmetric}
	inWorld(t, virtual.Config{RTT: 50 * time.Millisecond, STUN: true}, func(w *world) {
		var nodes []*Node
		for i, nat := range nats {
			nodes = append(nodes, w.agent(fmt.Sprintf("agent-%d", i), nat))
		}
		const patience = 20 * time.Second
		var wg sync.WaitGroup
		for i := range nodes {
			for j := range i {
				wg.Go(func() {
					blocked := nats[i] == virtual.Symmetric && nats[j] != virtual.Open ||
						nats[j] == virtual.Symmetric && nats[i] != virtual.Open
					ctx, cancel := context.WithTimeout(context.Background(), patience)
					defer cancel()
					start := time.Now()
					p, err := nodes[i].Dial(ctx, nodes[j].ID())
					if !blocked {
						if err != nil {
							t.Errorf("%v dials %v: %v", nats[i], nats[j], err)
							return
						}
						if err := p.Send(ctx, Message{Payload: json.RawMessage(`"hello"`)}); err != nil {
							t.Error(err)
						}
						if err := p.Flush(ctx); err != nil {
							t.Error(err)
						}
						return
					}
					var de *DialError
					if !errors.As(err, &de) || !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("%v dials %v: %v", nats[i], nats[j], err)
						return
					}
					if took := time.Since(start); took > patience+time.Second {
						t.Errorf("the dial outlived its context by %v", took-patience)
					}
					t.Logf("%v → %v: %v", nats[i], nats[j], err)
					if len(de.Tried) == 0 {
						t.Error("the error does not say what was tried")
					}
				})
			}
		}
		// Who is dialled takes what comes.
		ctx, cancel := context.WithCancel(context.Background())
		var sinks sync.WaitGroup
		for _, n := range nodes {
			sinks.Go(func() {
				for {
					p, err := n.Accept(ctx)
					if err != nil {
						return
					}
					sinks.Go(func() {
						if m, err := p.Receive(ctx); err == nil && string(m.Payload) != `"hello"` {
							t.Errorf("received %s", m.Payload)
						}
					})
				}
			})
		}
		wg.Wait()
		cancel()
		sinks.Wait()
	})
}

// TestGlare: both dial at the same instant and get one session between them.
func TestGlare(t *testing.T) {
	inWorld(t, virtual.Config{RTT: 50 * time.Millisecond, STUN: true}, func(w *world) {
		a, b := w.agent("agent-a", virtual.Open), w.agent("agent-b", virtual.Open)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		var p, q *Peer
		var wg sync.WaitGroup
		wg.Go(func() {
			var err error
			if p, err = a.Dial(ctx, "agent-b"); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			var err error
			if q, err = b.Dial(ctx, "agent-a"); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		if p == nil || q == nil {
			return
		}
		w.say(p, q, "there")
		w.say(q, p, "and back")
		time.Sleep(5 * time.Second)
		for _, x := range []*Peer{p, q} {
			n := make(chan int)
			x.post(func() { n <- len(x.sessions) + len(x.attempts) })
			if got := <-n; got != 1 {
				t.Errorf("%s has %d sessions and attempts", x.node.ID(), got)
			}
		}
		if len(a.accepted)+len(b.accepted) != 0 {
			t.Error("a dialled Peer waits for Accept as well")
		}
	})
}

// TestGoodbye: the other side learns at once that a Peer was closed, keeps
// what had arrived, and can be dialled again; numbers go on.
func TestGoodbye(t *testing.T) {
	inWorld(t, virtual.Config{RTT: 50 * time.Millisecond}, func(w *world) {
		noSTUN := func(c *Config) { c.STUN = nil }
		a, b := w.agent("agent-a", virtual.Open, noSTUN), w.agent("agent-b", virtual.Open, noSTUN)
		p, q := w.pair(a, b)
		ctx := context.Background()
		for i := range 3 {
			if err := p.Send(ctx, Message{ID: fmt.Sprint(i)}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		err := p.Close()
		var lost *UndeliveredError
		if !errors.As(err, &lost) || len(lost.IDs) != 3 || lost.Peer != "agent-b" {
			t.Fatalf("close with three messages not taken: %v", err)
		}
		if again := p.Close(); again == nil || again.Error() != err.Error() {
			t.Errorf("second close: %v", again)
		}
		start := time.Now()
		<-q.Context().Done()
		if took := time.Since(start); took > 50*time.Millisecond {
			t.Errorf("goodbye took %v", took)
		}
		if cause := context.Cause(q.Context()); !errors.Is(cause, ErrPeerClosed) {
			t.Errorf("cause: %v", cause)
		}
		for i := range 3 {
			m, err := q.Receive(ctx)
			if err != nil || m.ID != fmt.Sprint(i) {
				t.Errorf("message %d after the goodbye: %v, %v", i, m.ID, err)
			}
		}
		if _, err := q.Receive(ctx); !errors.Is(err, net.ErrClosed) || !errors.Is(err, ErrPeerClosed) {
			t.Errorf("receive after the end: %v", err)
		}
		if err := q.Send(ctx, Message{}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("send after the end: %v", err)
		}
		if err := p.Flush(ctx); !errors.Is(err, net.ErrClosed) {
			t.Errorf("flush after close: %v", err)
		}
		if err := q.Close(); err != nil {
			t.Error(err)
		}
		oldP, oldQ := p, q
		p, q = w.pair(a, b)
		if err := oldP.Send(ctx, Message{}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a closed Peer sends for the one after it: %v", err)
		}
		if err := oldP.Flush(ctx); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a closed Peer flushes for the one after it: %v", err)
		}
		if _, err := oldQ.Receive(ctx); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a closed Peer receives for the one after it: %v", err)
		}
		if m := w.say(p, q, "again"); m.SequenceNum != 4 {
			t.Errorf("number %d after three were sent before", m.SequenceNum)
		}
	})
}

// TestLastAcknowledgement: a side that closes says first what it has taken, so
// that the other does not report it as lost, and its Flush succeeds.
func TestLastAcknowledgement(t *testing.T) {
	inWorld(t, virtual.Config{RTT: 50 * time.Millisecond}, func(w *world) {
		a, b := w.agent("agent-a", virtual.Open), w.agent("agent-b", virtual.Open)
		p, q := w.pair(a, b)
		w.say(p, q, "taken")
		flushed := make(chan error)
		go func() { flushed <- p.Flush(context.Background()) }()
		if err := q.Close(); err != nil { // at once, before any delayed acknowledgement
			t.Error(err)
		}
		if err := <-flushed; err != nil {
			t.Errorf("flush of what was taken: %v", err)
		}
		<-p.Context().Done()
		if err := p.Close(); err != nil {
			t.Errorf("reported as lost: %v", err)
		}
	})
}

// TestRestart: an agent that died without a word comes back as a new process
// with the same key; the Peer goes on with it, and what was not delivered
// arrives there.
func TestRestart(t *testing.T) {
	inWorld(t, virtual.Config{RTT: 50 * time.Millisecond}, func(w *world) {
		noSTUN := func(c *Config) { c.STUN = nil }
		a := w.agent("agent-a", virtual.Open, noSTUN)
		id := newIdentity(t, "agent-b")
		w.trust.keys["agent-b"] = id.PublicKey()
		b1 := w.agentAs(id, virtual.Open, noSTUN)
		p, q1 := w.pair(a, b1)
		w.say(p, q1, "delivered")
		ctx := context.Background()
		if err := p.Send(ctx, Message{ID: "in doubt"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)

		b2 := w.agentAs(id, virtual.Open, noSTUN)
		q2, err := b2.Dial(ctx, "agent-a")
		if err != nil {
			t.Fatal(err)
		}
		m, err := q2.Receive(ctx)
		if err != nil || m.ID != "in doubt" {
			t.Fatalf("new process received %v, %v", m.ID, err)
		}
		w.say(p, q2, "new process")
		w.say(q2, p, "and back")
		<-q1.Context().Done()
		if cause := context.Cause(q1.Context()); !errors.Is(cause, ErrReplaced) {
			t.Errorf("the older process learns: %v", cause)
		}
		if _, err := b1.Dial(ctx, "agent-a"); !errors.Is(err, ErrReplaced) {
			t.Errorf("the older process dials again: %v", err)
		}
	})
}

// TestTrustWithdrawn: a Peer whose key loses trust is closed within 2 s.
func TestTrustWithdrawn(t *testing.T) {
	inWorld(t, virtual.Config{RTT: 50 * time.Millisecond}, func(w *world) {
		a, b := w.agent("agent-a", virtual.Open), w.agent("agent-b", virtual.Open)
		p, q := w.pair(a, b)
		if p.Key() != b.cfg.Identity.PublicKey() {
			t.Error("the Peer does not know its key")
		}
		w.say(p, q, "while trusted")
		own := newBook()
		own.keys["agent-a"] = a.cfg.Identity.PublicKey()
		start := time.Now()
		w.trust.remove("agent-b")
		<-p.Context().Done()
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("noticed after %v", took)
		}
		if cause := context.Cause(p.Context()); !errors.Is(cause, ErrUntrusted) {
			t.Errorf("cause: %v", cause)
		}
		<-q.Context().Done()
		if cause := context.Cause(q.Context()); !errors.Is(cause, ErrRefused) {
			t.Errorf("the other side learns: %v", cause)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if _, err := b.Dial(ctx, "agent-a"); !errors.Is(err, ErrRefused) {
			t.Errorf("dial without trust: %v", err)
		}
	})
}

// TestChangedKey: an agent that is known by one key is met with another. The
// dial waits for the right one, and says in the end which key it knew and which
// it met.
func TestChangedKey(t *testing.T) {
	known, err := keys.NewFirstUse(keys.FirstUseConfig{Path: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	inWorld(t, virtual.Config{RTT: 50 * time.Millisecond}, func(w *world) {
		a := w.agent("agent-a", virtual.Open, func(c *Config) { c.Trust = known })
		b := w.agent("agent-b", virtual.Open)
		p, q := w.pair(a, b)
		w.say(p, q, "hello")
		if err := p.Flush(context.Background()); err != nil {
			t.Error(err)
		}
		if err := errors.Join(p.Close(), b.Close()); err != nil {
			t.Error(err)
		}
		other := w.agentAs(newIdentity(t, "agent-b"), virtual.Open)
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		_, err := a.Dial(ctx, "agent-b")
		var changed *keys.KeyChangedError
		if !errors.As(err, &changed) || !errors.Is(err, ErrUntrusted) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("dial of a changed key: %v", err)
		}
		was, is := b.cfg.Identity.PublicKey(), other.cfg.Identity.PublicKey()
		if changed.Known != was || changed.Got != is ||
			!strings.Contains(err.Error(), was.Fingerprint()) || !strings.Contains(err.Error(), is.Fingerprint()) {
			t.Errorf("the error does not name both keys: %v", err)
		}
		if err := other.Close(); err != nil {
			t.Error(err)
		}
		w.agentAs(b.cfg.Identity, virtual.Open)
		ctx, cancel = context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		if _, err := a.Dial(ctx, "agent-b"); err != nil {
			t.Errorf("dial of the right key: %v", err)
		}
	})
}

// TestDialErrors: what a caller can get wrong, and who is not there.
func TestDialErrors(t *testing.T) {
	inWorld(t, virtual.Config{RTT: 50 * time.Millisecond}, func(w *world) {
		a := w.agent("agent-a", virtual.Open)
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		if _, err := a.Dial(ctx, "agent-a"); !errors.Is(err, ErrSelf) {
			t.Errorf("dial oneself: %v", err)
		}
		var name *keys.NameError
		if _, err := a.Dial(ctx, "*"); !errors.As(err, &name) {
			t.Errorf("dial a broadcast: %v", err)
		}
		start := time.Now()
		_, err := a.Dial(ctx, "agent-z")
		if took := time.Since(start); took < 3*time.Second || took > 4*time.Second {
			t.Errorf("dial of an absent agent took %v", took)
		}
		var de *DialError
		if !errors.As(err, &de) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("dial an absent agent: %v", err)
		}
		if want := "agent-z is not registered at ws://s1.example/"; len(de.Tried) == 0 || de.Tried[0] != want {
			t.Errorf("tried %q", de.Tried)
		}
		// It comes while somebody waits.
		ctx, cancel = context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		got := make(chan error, 1)
		go func() {
			_, err := a.Dial(ctx, "agent-b")
			got <- err
		}()
		time.Sleep(4 * time.Second)
		start = time.Now()
		w.agent("agent-b", virtual.Open)
		if err := <-got; err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("connected %v after it came", took)
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		if _, err := a.Dial(ctx, "agent-b"); !errors.Is(err, net.ErrClosed) {
			t.Errorf("dial on a closed node: %v", err)
		}
		if _, err := a.Accept(ctx); !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept on a closed node: %v", err)
		}
	})
}

// TestDialShared: concurrent dials get one Peer, and one that gives up leaves
// the others alone.
func TestDialShared(t *testing.T) {
	inWorld(t, virtual.Config{RTT: 50 * time.Millisecond}, func(w *world) {
		a := w.agent("agent-a", virtual.Open)
		var wg sync.WaitGroup
		peers := make([]*Peer, 8)
		for i := range peers {
			wg.Go(func() {
				wait := 10 * time.Second
				if i == 0 {
					wait = time.Second
				}
				ctx, cancel := context.WithTimeout(context.Background(), wait)
				defer cancel()
				p, err := a.Dial(ctx, "agent-b")
				if (err != nil) != (i == 0) {
					t.Errorf("dial %d: %v", i, err)
				}
				peers[i] = p
			})
		}
		time.Sleep(2 * time.Second)
		w.agent("agent-b", virtual.Open)
		wg.Wait()
		for i := 2; i < len(peers); i++ {
			if peers[i] != peers[1] {
				t.Error("two Peers for one agent")
			}
		}
	})
}

// TestHandler: the handler takes messages in order, answers them, and holds
// its sender back while it works.
func TestHandler(t *testing.T) {
	inWorld(t, virtual.Config{RTT: 50 * time.Millisecond}, func(w *world) {
		a := w.agent("agent-a", virtual.Open)
		release := make(chan struct{})
		b := w.agent("agent-b", virtual.Open, func(c *Config) {
			c.Handler = func(ctx context.Context, p *Peer, m Message) {
				<-release
				if err := p.Send(ctx, Message{ID: "re " + m.ID, CitationIDs: []string{m.ID}}); err != nil {
					t.Error(err)
				}
			}
		})
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := b.Accept(ctx); !errors.Is(err, ErrHandler) {
			t.Errorf("accept beside a handler: %v", err)
		}
		p, err := a.Dial(ctx, "agent-b")
		if err != nil {
			t.Fatal(err)
		}
		for i := range 5 {
			if err := p.Send(ctx, Message{ID: fmt.Sprint(i)}); err != nil {
				t.Fatal(err)
			}
		}
		short, stop := context.WithTimeout(ctx, 5*time.Second)
		defer stop()
		if err := p.Flush(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("delivered before the handler returned: %v", err)
		}
		close(release)
		for i := range 5 {
			m, err := p.Receive(ctx)
			if err != nil || m.ID != fmt.Sprint("re ", i) {
				t.Fatalf("answer %d: %v, %v", i, m.ID, err)
			}
		}
		if err := p.Flush(ctx); err != nil {
			t.Error(err)
		}
	})
}

// TestBackPressure: a receiver that takes nothing stops its sender at the
// window, and everything arrives when it takes again.
func TestBackPressure(t *testing.T) {
	inWorld(t, virtual.Config{RTT: 20 * time.Millisecond}, func(w *world) {
		small := func(c *Config) { c.Window, c.STUN = minWindow, nil }
		a, b := w.agent("agent-a", virtual.Open, small), w.agent("agent-b", virtual.Open, small)
		p, q := w.pair(a, b)
		payload := digits(1000)
		sent := 0
		for {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			err := p.Send(ctx, Message{Payload: payload})
			cancel()
			if errors.Is(err, context.DeadlineExceeded) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			sent++
		}
		if held := p.led.out.bytes; held > minWindow || sent < 30 {
			t.Errorf("%d messages, %d bytes held", sent, held)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		for i := range sent {
			m, err := q.Receive(ctx)
			if err != nil || m.SequenceNum != uint64(i+1) {
				t.Fatalf("message %d: %d, %v", i, m.SequenceNum, err)
			}
		}
		if err := p.Flush(ctx); err != nil {
			t.Error(err)
		}
		if err := p.Send(ctx, Message{Payload: digits(70_000)}); !errors.Is(err, ErrTooLarge) {
			t.Errorf("a message larger than the window: %v", err)
		}
	})
}

// TestLargeMessages travel in parts, between small ones, both ways.
func TestLargeMessages(t *testing.T) {
	inWorld(t, virtual.Config{RTT: 20 * time.Millisecond}, func(w *world) {
		noSTUN := func(c *Config) { c.STUN = nil }
		a, b := w.agent("agent-a", virtual.Open, noSTUN), w.agent("agent-b", virtual.Open, noSTUN)
		p, q := w.pair(a, b)
		sizes := []int{1, 16000, 16300, 16320, 16384, 20000, 100, 500_000, 1, MaxMessage - 300}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() {
			for _, n := range sizes {
				if err := p.Send(ctx, Message{Payload: digits(n)}); err != nil {
					t.Error(err)
				}
			}
		})
		for _, n := range sizes {
			m, err := q.Receive(ctx)
			if err != nil || len(m.Payload) != n+2 {
				t.Fatalf("message of %d: %d, %v", n, len(m.Payload), err)
			}
			if err := m.Verify(ctx, "default", w.trust); err != nil {
				t.Error(err)
			}
		}
		wg.Wait()
		if err := p.Send(ctx, Message{Payload: digits(MaxMessage)}); !errors.Is(err, ErrTooLarge) {
			t.Errorf("a message beyond MaxMessage: %v", err)
		}
	})
}

// digits is a JSON string of n characters.
func digits(n int) json.RawMessage { return json.RawMessage(`"` + strings.Repeat("7", n) + `"`) }
