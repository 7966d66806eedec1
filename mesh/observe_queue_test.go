package mesh

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/infrafabric/agentmesh/internal/virtual"
	"github.com/infrafabric/agentmesh/witness"
)

// TestRecorderBlocks: a Recorder that does not return keeps nobody from connecting,
// sending, receiving and closing.
func TestRecorderBlocks(t *testing.T) {
	log := &logged{}
	var worked time.Duration
	inWorld(t, virtual.Config{RTT: 50 * time.Millisecond, STUN: true}, func(w *world) {
		hold := make(chan struct{})
		defer close(hold)
		blocks := func(c *Config) {
			c.Recorder, c.Logger = witness.RecorderFunc(func(context.Context, witness.Event) { <-hold }), log.logger()
		}
		a, b := w.agent("agent-a", virtual.Open, blocks), w.agent("agent-b", virtual.Open, blocks)
		began := time.Now()
		p, err := dialFor(a, "agent-b", 5*time.Second)
		if err != nil {
			t.Error(err)
			return
		}
		q, err := b.Accept(w.t.Context())
		if err != nil {
			t.Error(err)
			return
		}
		const messages = maxEvents + 100
		go func() {
			for i := range messages {
				if err := p.Send(w.t.Context(), Message{ID: fmt.Sprint(i)}); err != nil {
					t.Error(err)
					return
				}
			}
		}()
		for i := range messages {
			if m, err := q.Receive(w.t.Context()); err != nil || m.ID != fmt.Sprint(i) {
				t.Errorf("%d: %v, %v", i, m.ID, err)
				return
			}
		}
		if err := p.Flush(w.t.Context()); err != nil {
			t.Error(err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		worked = time.Since(began)
	})
	if worked > 15*time.Second {
		t.Errorf("all took %v", worked)
	}
	if log.count("the recorder is too slow") == 0 || log.count("the recorder does not return") == 0 {
		t.Errorf("nobody says so: %s", log.lines)
	}
}

// TestEventQueue: events come in order, those who can wait do, what does not fit is
// counted, and Close hands over what waits.
func TestEventQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &logged{}
		var got []string
		q := newEventQueue(witness.RecorderFunc(func(_ context.Context, e witness.Event) {
			time.Sleep(time.Millisecond)
			got = append(got, e.PeerID)
		}), log.logger())
		go q.run()
		const patient = 10
		for i := range maxEvents + patient {
			q.putPatient(t.Context(), witness.Event{PeerID: fmt.Sprint(i)})
		}
		lost := 0
		for range 5 { // at one instant, with no room
			if q.put(t.Context(), witness.Event{PeerID: "lost"}); q.lost.Load() > 0 {
				lost++
			}
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		q.putPatient(ended, witness.Event{PeerID: "lost"})
		time.Sleep(maxEvents * 2 * time.Millisecond)
		q.put(t.Context(), witness.Event{PeerID: "last"})
		q.close()
		want := maxEvents + patient
		if lost == 0 || log.count("events were lost to the recorder") != 1 {
			t.Errorf("%d were lost: %s", lost, log.lines)
		}
		if got[len(got)-1] != "last" {
			t.Error("Close hands over nothing")
		}
		for i := range want {
			if got[i] != fmt.Sprint(i) {
				t.Fatalf("%s comes as number %d", got[i], i)
			}
		}
	})
}
