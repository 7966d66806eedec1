package mesh

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestOldSessionLingers: what is in flight on a session when another takes over
// still arrives; a moment later the session is closed.
func TestOldSessionLingers(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		old := d.connect()
		p := d.accept()
		w := d.connect()
		w.put(w.batch(old.record(Message{ID: "first"})))
		time.Sleep(oldSessionGrace - time.Millisecond)
		old.put(old.batch(old.record(Message{ID: "in flight"})))
		for _, want := range []string{"first", "in flight"} {
			synctest.Wait()
			if n := len(p.led.inbox); n == 0 {
				t.Fatalf("%q has not arrived", want)
			}
			if m, err := p.Receive(t.Context()); err != nil || m.ID != want {
				t.Fatalf("received %q, %v, want %q", m.ID, err, want)
			}
		}
		for range 10 { // the new one is well
			time.Sleep(time.Second)
			w.put(w.pong())
		}
		select {
		case <-old.line.done:
		default:
			t.Error("the old session is still open")
		}
	})
}

// TestWriterWaitsForTheQueue: the transport takes nothing. What is sent stays where
// it is counted, but for a bounded queue.
func TestWriterWaitsForTheQueue(t *testing.T) {
	const window = 4 << 20
	inDuel(t, func(t *testing.T, d *duel) {
		w := d.connect(func(h *helloBody) { h.Window, h.Credit = window, window })
		p := d.accept()
		for range 2 * bufferHigh / 10_000 {
			if err := p.Send(t.Context(), Message{Payload: digits(10_000)}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if n := w.line.waiting(); n < bufferHigh || n > bufferHigh+2*batchSize {
			t.Errorf("%d bytes queued, want about %d", n, bufferHigh)
		}
	}, func(c *Config) { c.Window = window })
}

// TestLongFramesProve: on a thin line the other side's answers stand behind its
// long frames. That these come is a sign of life; that short ones come is none.
func TestLongFramesProve(t *testing.T) {
	for _, x := range []struct {
		size int
		want State
	}{{maxFrame / 2, StateConnected}, {maxFrame / 4, StateSuspect}} {
		inDuel(t, func(t *testing.T, d *duel) {
			w := d.connect()
			p := d.accept()
			frame := w.batch(w.record(Message{Payload: json.RawMessage(`"` + strings.Repeat("x", x.size) + `"`)}))
			for range 20 {
				w.put(frame) // the record is known after the first; the frame counts
				time.Sleep(200 * time.Millisecond)
			}
			if s := p.Status(); s.State != x.want {
				t.Errorf("after 4 s of frames of %d bytes and no answer: %v, want %v", len(frame), s.State, x.want)
			}
		})
	}
}

// TestRetiredStaysRetired: a session that another has taken over from is still open
// when that dies. Nothing goes back to it: the other side may have closed it.
func TestRetiredStaysRetired(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		old := d.connect()
		p := d.accept()
		w := d.connect()
		for old.get() != nil {
		}
		w.line.Close()
		if err := p.Send(t.Context(), Message{ID: "later"}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if s := p.session(); s != nil {
			t.Errorf("the session in use has generation %d, the retired one %d", s.order.generation, old.gen)
		}
		if s := p.Status(); s.State != StateRecovering {
			t.Errorf("the Peer is %v, want recovering", s.State)
		}
		for f := old.get(); f != nil; f = old.get() {
			if k, _ := peekFrame(f); k == kindBatch || k == kindPart {
				t.Error("the retired session carries messages again")
			}
		}
		next := d.connect()
		for f := next.get(); ; f = next.get() {
			if f == nil {
				t.Fatal("the message does not travel on the next session")
			}
			if k, _ := peekFrame(f); k == kindBatch {
				break
			}
		}
	})
}
