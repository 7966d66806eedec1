package mesh

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/internal/virtual"
	"github.com/infrafabric/agentmesh/turn"
)

// fullPacket is the largest payload of UDP that a session sends.
const fullPacket = 1225

// narrowPair starts two agents whose path loses larger datagrams than that, from a to
// b, from b to a, or both ways; no limit is 0.
//
// bubble: the caller is in a world.
func (w *world) narrowPair(there, back int, change ...func(*Config)) (a, b *Node, ha, hb *virtual.Host) {
	w.t.Helper()
	ha, hb = w.host(virtual.Open).(*virtual.Host), w.host(virtual.Open).(*virtual.Host)
	w.narrow(ha, hb, there, back)
	at := func(h *virtual.Host) []func(*Config) {
		return append([]func(*Config){func(c *Config) { c.Net, c.STUN = h, nil }}, change...)
	}
	return w.agent("agent-a", virtual.Open, at(ha)...), w.agent("agent-b", virtual.Open, at(hb)...), ha, hb
}

func (w *world) narrow(a, b *virtual.Host, there, back int) {
	w.t.Helper()
	if err := errors.Join(w.net.SetMTU(a, b, there), w.net.SetMTU(b, a, back)); err != nil {
		w.t.Fatal(err)
	}
}

// TestHelloProves: one byte less than a full packet, either way, and both sides know
// it within four seconds; with that byte there is a session, and all else passes.
func TestHelloProves(t *testing.T) {
	for _, c := range []struct{ there, back int }{
		{fullPacket, fullPacket}, {fullPacket - 1, fullPacket - 1}, {fullPacket - 1, 0}, {0, fullPacket - 1}, {1100, 1100},
	} {
		narrow := c.there != fullPacket
		inWorld(t, virtual.Config{RTT: 50 * time.Millisecond}, func(w *world) {
			a, b, _, _ := w.narrowPair(c.there, c.back)
			ctx, cancel := context.WithTimeout(context.Background(), 3800*time.Millisecond)
			defer cancel()
			go func() {
				if q, err := b.Accept(ctx); err == nil {
					q.Receive(ctx)
				}
			}()
			p, err := a.Dial(ctx, "agent-b")
			if err == nil && narrow && c.there != 0 {
				time.Sleep(3300 * time.Millisecond)
				err = p.Status().Err
			}
			if err == nil && p.Status().Path.Narrow {
				err = ErrNarrowPath // and the next session is there already
			}
			if errors.Is(err, ErrNarrowPath) != narrow {
				t.Errorf("%v: %v", c, err)
			}
			if err != nil || narrow {
				return
			}
			if err := errors.Join(p.Send(ctx, Message{Payload: digits(50_000)}), p.Flush(ctx)); err != nil {
				t.Errorf("%v: %v", c, err)
			}
		})
	}
}

// TestHelloFillsAPacket: whatever is in it, and a shorter one is none.
func TestHelloFillsAPacket(t *testing.T) {
	for n := range 1200 {
		f := helloFrame{Body: make([]byte, n), Signature: make([]byte, signatureLen)}
		b := f.encode()
		if len(b) < helloLeast || n < 1000 && len(b) > helloLeast+1 {
			t.Fatalf("a body of %d bytes: a hello of %d", n, len(b))
		}
		if got, err := decodeHelloFrame(b); err != nil || len(got.Body) != n {
			t.Fatalf("a body of %d bytes: %d, %v", n, len(got.Body), err)
		}
	}
	short := frameHead(nil, kindHello, 3)
	for range 3 {
		short = append(short, 0x40)
	}
	if _, err := decodeHelloFrame(short); !errors.Is(err, ErrProtocol) {
		t.Errorf("a short hello: %v", err)
	}
}

// stories watches a Peer: how often it was connected by a new session, and whether it
// told of a narrow path.
//
// bubble: its caller sleeps.
func stories(p *Peer) (stop func() (sessions, doubts int, narrow bool)) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	var sessions, doubts int
	var narrow bool
	go func() {
		defer close(done)
		for c := range p.Changes(ctx) {
			narrow = narrow || errors.Is(c.Err, ErrNarrowPath)
			switch {
			case c.State == StateSuspect && c.From != StateSuspect:
				doubts++
			case c.State == StateConnected && c.Reason != ReasonAnswers && c.Reason != ReasonFailed:
				sessions++
			}
		}
	}()
	return func() (int, int, bool) {
		cancel()
		<-done
		return sessions, doubts, narrow
	}
}

// TestNarrowPathAlone: where no other path is, messages go in small packets, each
// once and in order, and it takes few sessions; when the path is wide again, so are they.
func TestNarrowPathAlone(t *testing.T) {
	for _, c := range []struct{ there, back int }{{1172, 1172}, {1172, 0}, {0, 1172}, {1100, 1100}} {
		inWorld(t, virtual.Config{RTT: 50 * time.Millisecond}, func(w *world) {
			a, b, ha, hb := w.narrowPair(c.there, c.back)
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
			defer cancel()
			began := time.Now()
			p, err := a.Dial(ctx, "agent-b")
			if err != nil {
				w.t.Errorf("%v: %v", c, err)
				return
			}
			stop := stories(p)
			q, err := b.Accept(ctx)
			if err != nil {
				w.t.Errorf("%v: %v", c, err)
				return
			}
			for i, size := range []int{1, 3000, 50_000, 1, 920, 500_000} {
				for _, d := range [][2]*Peer{{p, q}, {q, p}} {
					if err := d[0].Send(ctx, Message{Payload: digits(size)}); err != nil {
						w.t.Errorf("%v: %d bytes: %v", c, size, err)
						return
					}
					m, err := d[1].Receive(ctx)
					if err != nil || m.SequenceNum != uint64(i+1) || len(m.Payload) != size+2 {
						w.t.Errorf("%v: message %d: %d of %d bytes, %v", c, i+1, m.SequenceNum, len(m.Payload), err)
						return
					}
				}
			}
			if took := time.Since(began); took > 15*time.Second {
				w.t.Errorf("%v: messages take %v", c, took)
			}
			time.Sleep(5 * time.Minute)
			sessions, _, narrow := stop()
			if sessions > 6 {
				w.t.Errorf("%v: %d sessions", c, sessions)
			}
			if c.there != 0 && c.back == 0 && !narrow {
				w.t.Errorf("%v: nothing tells of a narrow path", c)
			}
			if !p.Status().Path.Narrow {
				w.t.Errorf("%v: the path is %v", c, p.Status().Path)
			}
			w.narrow(ha, hb, 0, 0)
			time.Sleep(10 * time.Minute)
			if s := p.Status(); s.Path.Narrow || s.State != StateConnected {
				w.t.Errorf("%v: mended, and the path is %v", c, s)
			}
			w.say(p, q, "wide")
		})
	}
}

// TestNarrowPathBesideRelay: where the direct path does not carry full packets, the
// relay is taken at the second attempt.
func TestNarrowPathBesideRelay(t *testing.T) {
	for _, c := range []struct {
		there, back int
		owner       string
	}{{1172, 1172, "both"}, {1172, 0, "both"}, {0, 1172, "both"}, {1172, 1172, "agent-a"}, {1172, 1172, "agent-b"}, {1172, 0, "agent-b"}, {0, 1172, "agent-a"}} {
		inWorld(t, virtual.Config{RTT: 50 * time.Millisecond}, func(w *world) {
			_, relay := w.relay()
			a, b, ha, hb := w.narrowPair(c.there, c.back, func(c2 *Config) {
				if c.owner == "both" || c.owner == c2.Identity.ID() {
					c2.TURN = fixedRelays{relay}
				}
			})
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
			defer cancel()
			began := time.Now()
			p, q := w.pair(a, b)
			stop := stories(p)
			if err := p.Send(ctx, Message{Payload: digits(500_000)}); err != nil {
				w.t.Error(err)
			}
			if _, err := q.Receive(ctx); err != nil {
				w.t.Error(err)
			}
			if took := time.Since(began); took > 10*time.Second {
				w.t.Errorf("%v: the message took %v", c, took)
			}
			time.Sleep(5 * time.Minute)
			sessions, doubts, _ := stop()
			if s := p.Status(); sessions > 3 || s.Path.Relay == "" || s.Path.Narrow {
				w.t.Errorf("%v: %d sessions, %d doubts, %v", c, sessions, doubts, s)
			}
			w.narrow(ha, hb, 0, 0)
			time.Sleep(12 * time.Minute)
			if s := p.Status(); s.Path.Relayed() || s.State != StateConnected {
				w.t.Errorf("%v: mended, and the path is %v", c, s)
			}
			w.say(p, q, "direct")
		})
	}
}

// TestShortFlows: everything after forty datagrams is lost. A Peer takes the relay when
// there is one, where that does not happen, and otherwise tries less and less often.
func TestShortFlows(t *testing.T) {
	for _, relayed := range []bool{true, false} {
		inWorld(t, virtual.Config{RTT: 50 * time.Millisecond}, func(w *world) {
			_, relay := w.relay()
			a, b, ha, hb := w.narrowPair(0, 0, func(c *Config) {
				if relayed {
					c.TURN = fixedRelays{relay}
				}
			})
			if err := w.net.LimitFlows(ha, hb, 40); err != nil {
				w.t.Fatal(err)
			}
			p, q := w.pair(a, b)
			stop := stories(p)
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
			defer cancel()
			got := 0
			done := make(chan struct{})
			go func() {
				defer close(done)
				for {
					m, err := q.Receive(ctx)
					if err != nil {
						return
					}
					if got++; m.SequenceNum != uint64(got) {
						w.t.Errorf("message %d is %d", got, m.SequenceNum)
					}
				}
			}()
			for ctx.Err() == nil && p.Send(ctx, Message{Payload: digits(2000)}) == nil {
				time.Sleep(100 * time.Millisecond)
			}
			<-done
			sessions, _, _ := stop()
			if sessions > 8 {
				w.t.Errorf("relay %v: %d sessions in five minutes", relayed, sessions)
			}
			if relayed && (got < 2900 || !p.Status().Path.Relayed()) {
				w.t.Errorf("%d messages, %v", got, p.Status())
			}
		})
	}
}

// TestAnswerSlim: whether the side that answers wants small packets, by what the offer
// says and what it knows itself.
func TestAnswerSlim(t *testing.T) {
	direct := []string{pathDirect}
	relay := &turn.Relay{URL: "turn:r1.example", Username: "u"}
	for name, x := range map[string]struct {
		theirs avoid
		a      *attempt
		want   bool
	}{
		"nothing is known":                      {0, &attempt{}, false},
		"no path is wide, the offer says":       {avoidFull, &attempt{}, true},
		"the direct one is narrow, it says":     {avoidFullDirect, &attempt{}, true},
		"but this one comes by the relay":       {avoidFullDirect, &attempt{relayOnly: true, relay: relay}, false},
		"the direct one is narrow, as is known": {0, &attempt{narrow: direct}, true},
		"but that one comes by its relay":       {avoidDirect, &attempt{narrow: direct}, false},
		"the direct one and another are narrow": {avoidDirect, &attempt{narrow: []string{pathDirect, pathAny}}, true},
		"a relay is narrow":                     {0, &attempt{narrow: []string{pathAny}}, false},
		"it is a try of the direct path":        {avoidFull | avoidFullDirect, &attempt{why: ReasonDirectPath, narrow: direct}, false},
	} {
		if x.a.answerSlim(x.theirs); x.a.slim != x.want {
			t.Errorf("%s: slim %v", name, x.a.slim)
		}
	}
}

// TestAnotherNetworkIsWide: what is known of paths ends with the network.
func TestAnotherNetworkIsWide(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		d.connect()
		p := d.accept()
		for why, want := range map[Reason]int{ReasonSilence: 1, ReasonNetwork: 0} {
			for _, list := range look(t, p, func() [][]string {
				p.isNarrow([]string{pathDirect})
				p.shunKinds([]string{pathDirect})
				a := &attempt{why: why}
				p.knowPaths(a)
				return [][]string{a.narrow, a.shunned[len(a.narrow):]}
			}) {
				if len(list) != want {
					t.Errorf("%v: %q", why, list)
				}
			}
		}
	})
}
