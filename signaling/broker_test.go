package signaling_test

import (
	"errors"
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
