package signaling_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/signaling"
	"github.com/infrafabric/agentmesh/witness"
)

// TestReplacedForATime: whoever was replaced learns it, does not throw the other
// out, and is back soon after the other is gone, for good.
func TestReplacedForATime(t *testing.T) {
	inWorld(t, func(w *world) {
		w.serve("s1", signaling.ServerConfig{})
		id := w.identity("agent-a")
		old := w.clientWith(signaling.ClientConfig{Identity: id, URLs: []string{"ws://s1/"}}).ready()
		young := w.clientWith(signaling.ClientConfig{Identity: id, URLs: []string{"ws://s1/"}}).ready()
		time.Sleep(10 * time.Minute)
		settle()
		downs := old.events(signaling.EventDown)
		if len(downs) != 1 || !errors.Is(downs[0].Err, signaling.ErrReplaced) {
			t.Errorf("old was told %+v", downs)
		}
		if err := old.WaitReady(w.Context()); !errors.Is(err, signaling.ErrReplaced) {
			t.Errorf("WaitReady: %v", err)
		}
		want(t, "young lost", names(young.events(signaling.EventDown)))
		// A broken connection is no reason to give way.
		w.net.Reset("s1")
		time.Sleep(3 * time.Minute)
		settle()
		if young.state(0) != signaling.StateOpen || old.state(0) != signaling.StateReplaced {
			t.Errorf("after the break young is %v and old %v", young.state(0), old.state(0))
		}
		if n := len(w.log.named(witness.SignalingConnectionFailed)); n != 0 {
			t.Errorf("%d attempts are reported as failed", n)
		}
		young.Close()
		time.Sleep(75 * time.Second)
		settle()
		if old.state(0) != signaling.StateOpen {
			t.Errorf("old is %v when young is gone", old.state(0))
		}
	})
}

// TestOneServerTwice: two URLs that lead to one server leave one connection, and
// when the URL that has it fails, the other takes over.
func TestOneServerTwice(t *testing.T) {
	inWorld(t, func(w *world) {
		s := w.serve("s1", signaling.ServerConfig{Names: []string{"s1", "also-s1"}})
		also, err := w.net.Listen("also-s1")
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan struct{})
		go func() { s.http.Serve(also); close(served) }()
		a := w.clientWith(signaling.ClientConfig{Identity: w.identity("agent-a"), MaxServers: 2,
			URLs: []string{"ws://s1/", "ws://also-s1/", "ws://s2/"}}).ready()
		w.serve("s2", signaling.ServerConfig{})
		time.Sleep(time.Hour)
		settle()
		count := func(of signaling.State) (n int) {
			for _, s := range a.Servers() {
				if s.State == of {
					n++
				}
			}
			return n
		}
		// The third is used as well: two URLs of one server are one server.
		if count(signaling.StateOpen) != 2 || count(signaling.StateDuplicate) != 1 {
			t.Fatalf("%+v", a.Servers())
		}
		if n := len(a.events(signaling.EventUp)); n != 3 {
			t.Errorf("%d connections came up in an hour, want 3", n)
		}
		for _, fails := range []string{"s1", "also-s1"} {
			w.net.Stall(fails)
			time.Sleep(time.Minute)
			settle()
			if count(signaling.StateOpen) != 2 {
				t.Errorf("without %s: %+v", fails, a.Servers())
			}
			w.net.Resume(fails)
			time.Sleep(time.Minute)
			settle()
			if count(signaling.StateOpen) != 2 {
				t.Errorf("with %s again: %+v", fails, a.Servers())
			}
		}
		a.Close()
		s.http.Close()
		also.Close()
		<-served
	})
}

// TestOneServerTwiceEnds: Close does not wait for a duplicate.
func TestOneServerTwiceEnds(t *testing.T) {
	inWorld(t, func(w *world) {
		w.serve("s1", signaling.ServerConfig{Names: []string{"s1", "10.0.0.1"}})
		hc := w.dialling("s1")
		a := w.clientWith(signaling.ClientConfig{Identity: w.identity("agent-a"), HTTPClient: hc,
			URLs: []string{"ws://s1/", "ws://10.0.0.1/"}}).ready()
		if st := a.Servers(); (st[0].State == signaling.StateDuplicate) == (st[1].State == signaling.StateDuplicate) {
			t.Errorf("%+v", st)
		}
		start := time.Now()
		a.Close()
		if d := time.Since(start); d > 100*time.Millisecond {
			t.Errorf("Close took %v", d)
		}
	})
}

// TestWhatIsRecordedOfAReplacement: an agent that registers anew has not left.
func TestWhatIsRecordedOfAReplacement(t *testing.T) {
	inWorld(t, func(w *world) {
		w.serve("s1", signaling.ServerConfig{})
		id := w.identity("agent-a")
		w.clientWith(signaling.ClientConfig{Identity: id, URLs: []string{"ws://s1/"}}).ready()
		young := w.clientWith(signaling.ClientConfig{Identity: id, URLs: []string{"ws://s1/"}}).ready()
		registered := w.log.named(witness.AgentRegistered)
		if len(registered) != 2 || registered[0].Metadata["replaces"] != nil ||
			registered[1].Metadata["replaces"] != registered[0].Metadata["instance"] {
			t.Errorf("%+v", registered)
		}
		if left := w.log.named(witness.AgentDisconnected); len(left) != 0 {
			t.Errorf("recorded as gone: %+v", left)
		}
		young.Close()
		settle()
		if left := w.log.named(witness.AgentDisconnected); len(left) != 1 {
			t.Errorf("recorded as gone: %+v", left)
		}
	})
}

// TestWhatIsRecordedOfADrain: agents leave because the server drains, none because
// it is too slow to hear of the others.
func TestWhatIsRecordedOfADrain(t *testing.T) {
	inWorld(t, func(w *world) {
		s := w.serve("s1", signaling.ServerConfig{})
		for _, name := range []string{"a", "b", "c", "d"} {
			w.client(name, "ws://s1/").ready()
		}
		ctx, cancel := context.WithTimeout(w.Context(), time.Minute)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		settle()
		gone := w.log.named(witness.AgentDisconnected)
		for _, e := range gone {
			if e.Metadata["reason"] != `signaling server says draining: "the server is shutting down"` {
				t.Errorf("%s left: %v", e.AgentID, e.Metadata["reason"])
			}
		}
		if len(gone) != 4 {
			t.Errorf("%d agents left", len(gone))
		}
		for _, e := range w.log.named(witness.SignalingConnectionLost) {
			if e.Severity != witness.Info {
				t.Errorf("a planned drain is a %v", e.Severity)
			}
		}
	})
}

// TestBrokerThatHangs: while one announcement hangs, others register, are told of
// each other, and get envelopes.
func TestBrokerThatHangs(t *testing.T) {
	inWorld(t, func(w *world) {
		b := &hangingBroker{release: make(chan struct{})}
		w.serve("s1", signaling.ServerConfig{Broker: b})
		stuck := w.client("stuck", "ws://s1/").ready()
		a, c := w.client("agent-a", "ws://s1/").ready(), w.client("agent-c", "ws://s1/").ready()
		a.send("agent-c", "hello", nil)
		want(t, "c got", c.bodies(), "hello")
		a.send("stuck", "are you there", nil)
		want(t, "stuck got", stuck.bodies(), "are you there")
		close(b.release)
	})
}

// hangingBroker hangs when it is told of the agent called stuck.
type hangingBroker struct{ release chan struct{} }

func (b *hangingBroker) Join(signaling.BrokerHandler) (signaling.BrokerMember, error) { return b, nil }

func (b *hangingBroker) Announce(r signaling.Registration, _ bool) error {
	if r.Agent == "stuck" {
		<-b.release
	}
	return nil
}

func (b *hangingBroker) Forward(signaling.Registration, []byte) error { return nil }
func (b *hangingBroker) Close() error                                 { return nil }
