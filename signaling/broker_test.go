package signaling_test

import (
	"errors"
	"sync"
	"testing"

	"github.com/infrafabric/agentmesh/signaling"
	"github.com/infrafabric/agentmesh/signaling/signalingtest"
	"github.com/infrafabric/agentmesh/witness"
)

func TestMemoryBroker(t *testing.T) {
	signalingtest.TestBroker(t, func(*testing.T) (a, b signaling.Broker) {
		broker := signaling.NewBroker()
		return broker, broker
	})
}

// Agents at different servers see and reach each other; one that is at both
// gets an envelope once.
func TestServersShareABroker(t *testing.T) {
	inWorld(t, func(w *world) {
		broker := signaling.NewBroker()
		s1 := w.serve("s1", signaling.ServerConfig{Broker: broker})
		w.serve("s2", signaling.ServerConfig{Broker: broker})
		a := w.client("agent-a", "ws://s1/").ready()
		b := w.client("agent-b", "ws://s2/").ready()
		c := w.client("agent-c", "ws://s1/", "ws://s2/").ready()
		d := w.clientWith(signaling.ClientConfig{Identity: w.identity("agent-b"), Mesh: "other", URLs: []string{"ws://s2/"}}).ready()
		want(t, "a saw", names(a.events(signaling.EventJoined)), "agent-b", "agent-c")
		want(t, "b saw", names(b.events(signaling.EventJoined)), "agent-a", "agent-c")

		a.send("agent-b", "across", nil)
		a.send("agent-b", "across by key", func(e *signaling.Envelope) { e.ToKey = b.id.PublicKey() })
		a.send("agent-c", "to both", nil)
		want(t, "b got", b.bodies(), "across", "across by key")
		want(t, "c got", c.bodies(), "to both")
		want(t, "the other mesh got", d.bodies())
		want(t, "notices", a.codes())
		if n := len(w.log.named(witness.SDPOfferRelayed)); n != 3 {
			t.Errorf("%d offers were recorded, want 3", n)
		}

		s1.kill()
		settle()
		want(t, "b saw leave", names(b.events(signaling.EventLeft)), "agent-a") // agent-c is still at s2
		b.send("agent-c", "still there", nil)
		want(t, "c got", c.bodies(), "to both", "still there")
		b.send("agent-a", "gone", nil)
		want(t, "b's notices", b.codes(), signaling.CodeNotRegistered)
	})
}

// Presence counts an agent that is at two servers once, whichever it leaves.
func TestPresenceAcrossServers(t *testing.T) {
	inWorld(t, func(w *world) {
		broker := signaling.NewBroker()
		w.serve("s1", signaling.ServerConfig{Broker: broker})
		w.serve("s2", signaling.ServerConfig{Broker: broker})
		near := w.client("agent-a", "ws://s1/").ready()
		id := w.identity("agent-b")
		one, two := w.rawClient(id, "s1"), w.rawClient(id, "s2")
		settle()
		want(t, "joined", names(near.events(signaling.EventJoined)), "agent-b")
		one.ws.CloseNow()
		settle()
		want(t, "left one server", names(near.events(signaling.EventLeft)))
		w.rawClient(id, "s1").ws.CloseNow()
		settle()
		want(t, "came back", names(near.events(signaling.EventJoined)), "agent-b")
		two.ws.CloseNow()
		settle()
		want(t, "left both", names(near.events(signaling.EventLeft)), "agent-b")
	})
}

// What a broker delivers is checked before it goes to an agent.
func TestBrokerDeliversJunk(t *testing.T) {
	inWorld(t, func(w *world) {
		broker := signaling.NewBroker()
		w.serve("s1", signaling.ServerConfig{Broker: broker})
		a := w.client("agent-a", "ws://s1/").ready()
		b := w.client("agent-b", "ws://s1/").ready()
		far, err := broker.Join(signaling.BrokerHandler{
			Presence: func(signaling.Registration, bool) {}, Envelope: func(signaling.Registration, []byte) {},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer far.Close()
		to := signaling.Registration{Mesh: "m", Agent: "agent-a", Key: a.id.PublicKey()}
		for _, junk := range [][]byte{
			nil, []byte("junk"), b.offer("agent-c", "for another agent", nil).Bytes(),
			b.offer("agent-a", "of another mesh", func(e *signaling.Envelope) { e.Mesh = "other" }).Bytes(),
		} {
			if err := far.Forward(to, junk); err != nil {
				t.Fatal(err)
			}
		}
		if err := far.Forward(to, b.offer("agent-a", "good", nil).Bytes()); err != nil {
			t.Fatal(err)
		}
		settle()
		want(t, "a got", a.bodies(), "good")
	})
}

// TestBrokerIsLate: an envelope comes for somebody who has moved to another server.
func TestBrokerIsLate(t *testing.T) {
	inWorld(t, func(w *world) {
		late := &lateBroker{}
		s := w.serve("s1", signaling.ServerConfig{Broker: late})
		b := w.client("agent-b", "ws://s1/").ready()
		moved := signaling.Registration{Mesh: "m", Agent: "agent-c", Key: w.identity("agent-c").PublicKey()}
		late.h.Presence(moved, true)
		late.h.Envelope(moved, b.offer("agent-c", "late", nil).Bytes())
		late.h.Presence(moved, false)
		settle()
		want(t, "joined", names(b.events(signaling.EventJoined)), "agent-c")
		want(t, "left", names(b.events(signaling.EventLeft)), "agent-c")
		if err := s.Shutdown(w.Context()); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
}

// lateBroker is called by its test.
type lateBroker struct {
	strictMember
	h signaling.BrokerHandler
}

func (b *lateBroker) Join(h signaling.BrokerHandler) (signaling.BrokerMember, error) {
	b.h = h
	return b, nil
}

func (b *lateBroker) Announce(signaling.Registration, bool) error { return nil }

// strictMember complains about announcements that do not change anything.
type strictMember struct {
	brokenBroker
	t    *testing.T
	mu   sync.Mutex
	last map[signaling.Registration]bool
	n    int
}

func (b *strictMember) Join(signaling.BrokerHandler) (signaling.BrokerMember, error) { return b, nil }
func (b *strictMember) Close() error                                                 { return nil }
func (b *strictMember) Announce(r signaling.Registration, present bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.last[r] == present {
		b.t.Errorf("%s: present %t twice in a row", r.Agent, present)
	}
	b.last[r] = present
	b.n++
	return nil
}

// A replaced connection changes nothing for the broker.
func TestAnnouncementsAlternate(t *testing.T) {
	inWorld(t, func(w *world) {
		broker := &strictMember{t: t, last: make(map[signaling.Registration]bool)}
		w.serve("s1", signaling.ServerConfig{Broker: broker})
		id := w.identity("agent-a")
		w.rawClient(id, "s1")
		settle()
		second := w.rawClient(id, "s1")
		settle()
		second.ws.CloseNow()
		settle()
		broker.mu.Lock()
		defer broker.mu.Unlock()
		if broker.n != 2 {
			t.Errorf("%d announcements, want 2", broker.n)
		}
	})
}

var errNoBroker = errors.New("no broker today")

type brokenBroker struct{ joins bool }

func (b brokenBroker) Join(signaling.BrokerHandler) (signaling.BrokerMember, error) {
	if b.joins {
		return b, nil
	}
	return nil, errNoBroker
}
func (brokenBroker) Announce(signaling.Registration, bool) error  { return errNoBroker }
func (brokenBroker) Forward(signaling.Registration, []byte) error { return errNoBroker }
func (brokenBroker) Close() error                                 { return errNoBroker }

// A server whose broker fails still serves its own agents.
func TestBrokenBroker(t *testing.T) {
	if _, err := signaling.NewServer(signaling.ServerConfig{Broker: brokenBroker{}}); !errors.Is(err, errNoBroker) {
		t.Errorf("NewServer: %v", err)
	}
	inWorld(t, func(w *world) {
		s := w.serve("s1", signaling.ServerConfig{Broker: brokenBroker{joins: true}})
		a := w.client("agent-a", "ws://s1/").ready()
		b := w.client("agent-b", "ws://s1/").ready()
		a.send("agent-b", "hello", nil)
		want(t, "b got", b.bodies(), "hello")
		if err := s.Shutdown(w.Context()); !errors.Is(err, errNoBroker) {
			t.Errorf("Shutdown: %v", err)
		}
	})
}
