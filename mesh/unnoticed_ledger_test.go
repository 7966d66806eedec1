package mesh

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/infrafabric/agentmesh/signaling"
)

// TestDisplacedInstanceFilesNothing: the session of a process that another has
// displaced goes on sending until it has heard of it. Its records are not the new
// process's, whose numbers begin anew.
func TestDisplacedInstanceFilesNothing(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		former := d.connect()
		p := d.accept()
		d.inst = signaling.NewInstance()
		current := d.connect()
		former.line.in <- former.batch(former.record(Message{ID: "former"}))
		synctest.Wait()
		nothing(t, p)
		current.put(current.batch(current.record(Message{ID: "current"})))
		if m, err := p.Receive(t.Context()); err != nil || m.ID != "current" {
			t.Errorf("received %q, %v", m.ID, err)
		}
	})
}

// TestDisplacedInstanceAcknowledgesNothing: the application takes messages of a
// process when another has displaced it. Of the new one, whose numbers are the
// same, it has taken nothing.
func TestDisplacedInstanceAcknowledgesNothing(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		former := d.connect()
		p := d.accept()
		former.put(former.batch(former.record(Message{}), former.record(Message{})))
		d.inst = signaling.NewInstance()
		current := d.connect()
		current.put(current.batch(current.record(Message{}), current.record(Message{})))
		for taken := range uint64(4) {
			if _, err := p.Receive(t.Context()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * ackDelay)
			want := max(taken+1, 2) - 2
			if told, ok := current.told(); ok && told.Delivered != want || !ok && taken >= 2 {
				t.Errorf("%d messages taken: %d of the new process count as delivered, want %d", taken+1, told.Delivered, want)
			}
		}
	})
}

// TestDisplacedInstanceIsRefused: what an instance offers and asks for that another has
// displaced is refused, with the reason, and costs no connection.
func TestDisplacedInstanceIsRefused(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		d.connect()
		d.accept()
		former := d.inst
		d.inst = signaling.NewInstance()
		d.connect()
		d.inst = former
		before := d.lines.count()
		for kind, body := range map[signaling.Kind][]byte{
			signaling.Offer: d.description(),
			signaling.Ask:   (&askBody{Reason: ReasonRequested}).encode(),
		} {
			e := d.seal(kind, signaling.Hash{}, body)
			d.hub.inject("agent-a", e.Bytes())
			got := d.hears(signaling.Reject)
			if why, err := decodeReject(got.Body); err != nil || why.Code != rejectReplaced || got.Ref != e.Hash() {
				t.Errorf("%v: %+v, %v", kind, why, err)
			}
		}
		if n := d.lines.count() - before; n != 0 {
			t.Errorf("%d connections for a process that is gone", n)
		}
	})
}

// told is the last position that the Node has stated since it was asked last.
func (w *foeEnd) told() (last position, ok bool) {
	w.t.Helper()
	for f := w.get(); f != nil; f = w.get() {
		if k, _ := peekFrame(f); k != kindPositions {
			continue
		}
		stated, err := decodePositionsFrame(f)
		if err != nil {
			w.t.Fatal(err)
		}
		if len(stated.Positions) == 1 {
			last, ok = stated.Positions[0], true
		}
	}
	return last, ok
}

// TestSkipIsToldAtOnce: who skips may have no credit left until it hears that the
// skip was taken in, so that waits for nothing.
func TestSkipIsToldAtOnce(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		w := d.connect()
		d.accept()
		w.told()
		start := time.Now()
		w.put((&skipFrame{Flow: messageFlow, Number: 5, Offset: 1000}).encode())
		told, ok := w.told()
		if want := (position{Flow: messageFlow, Received: 4, Delivered: 4, Credit: 1000 + minWindow}); !ok || told != want {
			t.Errorf("after a skip %+v is told (%v), want %+v", told, ok, want)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("it is told after %v", took)
		}
	})
}

// TestUnacknowledgedDespiteTraffic: an agent answers pings and acknowledges nothing,
// while more and more is sent to it, and the transport hands nothing over. What was sent first is overdue all the same.
func TestUnacknowledgedDespiteTraffic(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		w := d.connect()
		p := d.accept()
		start := time.Now()
		doubted := make(chan time.Duration, 1)
		go func() {
			for c := range p.Changes(t.Context()) {
				if c.State == StateSuspect && c.Reason == ReasonUnacknowledged {
					doubted <- time.Since(start)
					return
				}
			}
		}()
		for range 100 {
			if err := p.Send(t.Context(), Message{}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(50 * time.Millisecond)
			w.put(w.pong())
		}
		select {
		case took := <-doubted:
			if took > 2*time.Second {
				t.Errorf("doubted after %v", took)
			}
		default:
			t.Error("never doubted")
		}
	})
}

// pong is the answer to a ping that the Node sends just now.
func (w *foeEnd) pong() []byte {
	return (&echoFrame{Pong: uint64(time.Since(w.node.start)/time.Microsecond) + 1}).encode()
}
