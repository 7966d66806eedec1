package mesh

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/infrafabric/agentmesh/internal/virtual"
	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
	"github.com/infrafabric/agentmesh/witness"
)

// chain is agents a, b, c and d; a knows b, b knows c, c knows d, and there is no
// server any more.
type chain struct {
	t     *testing.T
	hub   *hub
	trust *book
	nodes map[string]*Node
	ids   map[string]*keys.Identity

	mu     sync.Mutex
	events []witness.Event
}

func (c *chain) Record(_ context.Context, e witness.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events = append(c.events, e)
}

// inChain runs f in a bubble with a chain.
func inChain(t *testing.T, f func(c *chain)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		world := virtual.New(t, virtual.Config{RTT: 50 * time.Millisecond})
		defer world.Close()
		c := &chain{t: t, hub: newHub(25 * time.Millisecond), trust: newBook(), nodes: map[string]*Node{}, ids: map[string]*keys.Identity{}}
		names := []string{"a", "b", "c", "d"}
		for _, name := range names {
			host, err := world.Host(virtual.Open)
			if err != nil {
				t.Fatal(err)
			}
			c.ids[name] = newIdentity(t, name)
			c.trust.keys[name] = c.ids[name].PublicKey()
			n := startNode(t, c.hub, nil, Config{Identity: c.ids[name], Trust: c.trust, Net: host, Recorder: c})
			c.nodes[name] = n
			defer func() {
				n.Close()
				synctest.Wait()
			}()
		}
		for i, name := range names[1:] {
			meet(t, c.nodes[names[i]], c.nodes[name])
		}
		c.hub.dead.Store(true)
		f(c)
	})
}

// offer is an offer that id signs for an agent.
func (c *chain) offer(id *keys.Identity, mesh, to string) []byte {
	c.t.Helper()
	e, err := signaling.Seal(id, signaling.Envelope{Kind: signaling.Offer, Mesh: mesh, To: to, Instance: signaling.NewInstance(),
		Generation: uint64(time.Now().UnixMilli()), Body: []byte{0x80}})
	if err != nil {
		c.t.Fatal(err)
	}
	return e.Bytes()
}

// TestCarriersTakeTurns: the neighbour through which the other side was heard of is asked
// first, and a crowd in turn.
func TestCarriersTakeTurns(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		const crowd = 2*maxCarriers + 1
		for i := range crowd {
			foe := d.as(newIdentity(t, fmt.Sprintf("agent-%02d", i)))
			defer foe.end.Close()
			foe.connect()
			foe.accept()
		}
		ask := func(carrier string, round int) (names []string) {
			for _, s := range d.node.carriers(&attempt{peer: d.node.lookup("agent-00"), carrier: carrier}, round) {
				names = append(names, s.bind.remote)
			}
			return names
		}
		asked := map[string]bool{}
		for round := range 2 {
			names := ask("", round)
			if len(names) != maxCarriers {
				t.Errorf("round %d asks %q", round, names)
			}
			for _, n := range names {
				asked[n] = true
			}
		}
		if len(asked) != 2*maxCarriers || asked["agent-00"] {
			t.Errorf("two rounds ask %d neighbours: %v", len(asked), asked)
		}
		for _, first := range []string{"agent-01", "agent-07", "agent-16"} {
			if names := ask(first, 0); len(names) != maxCarriers || names[0] != first {
				t.Errorf("heard of through %s, asked: %q", first, names)
			}
		}
	})
}

// TestCommonNeighbour: without a server, agents that share a neighbour meet, and
// then share the next.
func TestCommonNeighbour(t *testing.T) {
	inChain(t, func(c *chain) {
		start := time.Now()
		for _, pair := range [][2]string{{"a", "c"}, {"d", "a"}} { // a–c through b, then d–a through c
			p, err := dialFor(c.nodes[pair[0]], pair[1], 10*time.Second)
			if err != nil {
				t.Fatalf("%s dials %s: %v", pair[0], pair[1], err)
			}
			tell(t, p, "hello")
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("two dials took %v", took)
		}
	})
}

// TestCarrierPassesOnForItsAuthor: a neighbour passes an envelope on only for the
// agent that wrote it and handed it in, only to a neighbour of its own, and only
// one hop far.
func TestCarrierPassesOnForItsAuthor(t *testing.T) {
	inChain(t, func(c *chain) {
		a, b := c.nodes["a"], c.nodes["b"]
		stranger, imposter := newIdentity(t, "x"), newIdentity(t, "a")
		c.trust.keys["x"] = stranger.PublicKey()
		hand := func(raw []byte) { // a hands it to b
			if !a.lookup("b").session().carry(raw) {
				t.Fatal("not handed over")
			}
			time.Sleep(time.Second)
		}
		for what, raw := range map[string][]byte{
			"somebody else's":        c.offer(stranger, "default", "c"),
			"under another key":      c.offer(imposter, "default", "c"),
			"of another mesh":        c.offer(c.ids["a"], "other", "c"),
			"for two hops":           c.offer(c.ids["a"], "default", "d"),
			"for nobody":             c.offer(c.ids["a"], "default", "z"),
			"junk":                   []byte("junk"),
			"nothing":                nil,
			"for b, by an imposter":  c.offer(imposter, "default", "b"),
			"for b, of another mesh": c.offer(c.ids["a"], "other", "b"),
		} {
			hand(raw)
			// A Peer that such an offer makes has failed by now, and was recorded.
			if n := c.offers("a", "c") + c.offers("x", "c") + c.offers("a", "d") + c.offers("x", "b"); n > 0 {
				t.Errorf("an envelope %s was passed on", what)
				c.mu.Lock()
				c.events = nil
				c.mu.Unlock()
			}
		}
		if b.lookup("a").Context().Err() != nil {
			t.Error("the Peer that handed it over was closed")
		}
		// What b hands to c for d is a's, not b's own: c does not pass it on.
		if !b.lookup("c").session().carry(c.offer(c.ids["a"], "default", "d")) {
			t.Fatal("not handed over")
		}
		time.Sleep(time.Second)
		if c.offers("a", "d") > 0 {
			t.Error("an envelope made two hops")
		}
		// The right one arrives.
		hand(c.offer(c.ids["a"], "default", "c"))
		if n := c.offers("a", "c"); n == 0 {
			t.Error("an envelope of its author was not passed on")
		}
	})
}

// offers counts the attempts that an agent's offers have begun at another.
func (c *chain) offers(from, at string) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.events {
		if e.AgentID == at && e.PeerID == from && e.Name == witness.ConnectionStateChanged {
			n++
		}
	}
	return n
}

// TestCarriedAdmission: an envelope that a neighbour hands over passes the same
// door as one from a server: trust before signature, and the failure is charged to
// who delivered it.
func TestCarriedAdmission(t *testing.T) {
	inChain(t, func(c *chain) {
		b := c.nodes["b"]
		stranger := newIdentity(t, "x")
		forged := c.offer(c.ids["a"], "default", "c")
		forged[len(forged)-1] ^= 1
		late, err := signaling.Seal(c.ids["a"], signaling.Envelope{Kind: signaling.Offer, Mesh: "default", To: "c",
			Instance: signaling.NewInstance(), Generation: 1, Time: time.Now().Add(-time.Hour), Body: []byte{0x80}})
		if err != nil {
			t.Fatal(err)
		}
		for what, x := range map[string]struct {
			raw  []byte
			want witness.Name
		}{
			"an agent that is not trusted": {c.offer(stranger, "default", "c"), witness.UnauthorizedConnectionAttempt},
			"a forged signature":           {forged, witness.SignatureVerificationFailed},
			"an old one":                   {late.Bytes(), witness.ReplayRejected},
		} {
			c.mu.Lock()
			c.events = nil
			c.mu.Unlock()
			b.lookup("c").session().carry(x.raw)
			time.Sleep(time.Second)
			c.mu.Lock()
			found := false
			for _, e := range c.events {
				found = found || e.AgentID == "c" && e.Name == x.want && e.Metadata["via"] == "peer b"
			}
			if !found {
				t.Errorf("%s: no event %s via peer b: %v", what, x.want, c.events)
			}
			c.mu.Unlock()
		}
		if n := c.nodes["c"]; n.lookup("a") != nil || n.lookup("x") != nil {
			t.Error("an envelope that should be refused made a Peer")
		}
	})
}

// TestCarriedRate: a neighbour that hands over envelopes without end has a bounded
// number of them looked at, and its messages arrive all the same.
func TestCarriedRate(t *testing.T) {
	inChain(t, func(c *chain) {
		a, b := c.nodes["a"], c.nodes["b"]
		s := a.lookup("b").session()
		const n = 2000
		sent := 0
		for i := range n {
			if s.carry(c.offer(c.ids["a"], "default", fmt.Sprint("nobody", i))) {
				sent++
			}
			if i%20 == 19 {
				time.Sleep(50 * time.Millisecond)
			}
		}
		if sent < n/2 {
			t.Fatalf("%d of %d handed over", sent, n)
		}
		// They came twenty times as fast as they are taken.
		if left := b.lookup("a").session().carried.Tokens(); left > maxCarriedBurst/2 {
			t.Errorf("room for %v more envelopes after a flood", left)
		}
		p, q := a.lookup("b"), b.lookup("a")
		tell(t, p, "still there")
		hear(t, q, "still there")
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, e := range c.events {
			if e.Name == witness.PeerDisconnected {
				t.Errorf("a Peer ended: %v", e)
			}
		}
	})
}

// TestAskFlood: an agent that asks for offers without end, each above the last,
// has a bounded number of negotiations.
func TestAskFlood(t *testing.T) {
	for range 6 { // only the greater key offers, and keys are random
		inDuel(t, func(t *testing.T, d *duel) {
			d.connect()
			p := d.accept()
			before := d.lines.count()
			for i := range 1000 {
				e, err := signaling.Seal(d.foe, signaling.Envelope{Kind: signaling.Ask, Mesh: "default", To: d.node.ID(), Instance: d.inst,
					Generation: uint64(time.Now().UnixMilli()) + 500*uint64(i), Body: (&askBody{Reason: ReasonSilence}).encode()})
				if err != nil {
					t.Fatal(err)
				}
				d.hub.inject(d.node.ID(), e.Bytes())
				synctest.Wait()
			}
			if n := d.lines.count() - before; n > maxNegotiationsBurst+1 {
				t.Errorf("%d connections for 1000 wishes at once", n)
			}
			if err := p.Context().Err(); err != nil {
				t.Errorf("the Peer has ended: %v", context.Cause(p.Context()))
			}
		})
	}
}

// TestAskOfAStranger: who is not trusted gets a refusal and no offer; a malformed
// wish makes nothing.
func TestAskOfAStranger(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		ask := func(id *keys.Identity, body []byte) {
			e, err := signaling.Seal(id, signaling.Envelope{Kind: signaling.Ask, Mesh: "default", To: d.node.ID(),
				Instance: signaling.NewInstance(), Generation: 1, Body: body})
			if err != nil {
				t.Fatal(err)
			}
			d.hub.inject(d.node.ID(), e.Bytes())
			time.Sleep(time.Second)
		}
		ask(newIdentity(t, d.foe.ID()), (&askBody{}).encode())
		if e := d.heard(); e == nil || e.Kind != signaling.Reject {
			t.Errorf("a stranger's wish is answered by %v", e)
		}
		for _, body := range [][]byte{nil, {0x80}, {0x83, 0, 0, 0}, []byte("junk")} {
			ask(d.foe, body)
			if e := d.heard(); e != nil {
				t.Errorf("a malformed wish %x is answered by %v", body, e.Kind)
			}
			if d.node.lookup(d.foe.ID()) != nil {
				t.Errorf("a malformed wish %x leaves a Peer behind", body)
			}
		}
		// A wish that makes sense: this process knows nothing of the Peer that the
		// other side has, and offers.
		ask(d.foe, (&askBody{Reason: ReasonSilence}).encode())
		if e := d.heard(); e == nil || e.Kind != signaling.Offer {
			t.Errorf("a wish is answered by %v", e)
		}
	})
}

// TestNoWay: without a server and without a neighbour a dial says so.
func TestNoWay(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub, a, b *Node) {
		h.dead.Store(true)
		_, err := dialFor(a, "agent-b", 3*time.Second)
		var de *DialError
		if !errors.As(err, &de) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(strings.Join(de.Tried, ";"), "no signaling server connected") {
			t.Errorf("dial without a way: %v", err)
		}
	})
}
