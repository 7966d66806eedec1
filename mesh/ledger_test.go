package mesh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/infrafabric/agentmesh/internal/virtual"
	"github.com/infrafabric/agentmesh/signaling"
)

// TestLargerThanTheirWindow: a message that the other side's window cannot hold is
// refused, and says by which limit; those behind it arrive.
func TestLargerThanTheirWindow(t *testing.T) {
	inWorld(t, virtual.Config{RTT: 20 * time.Millisecond}, func(w *world) {
		a := w.agent("agent-a", virtual.Open)
		b := w.agent("agent-b", virtual.Open, func(c *Config) { c.Window = 128 << 10 })
		p, q := w.pair(a, b)
		err := p.Send(w.t.Context(), Message{Payload: digits(200_000)})
		var large *TooLargeError
		if !errors.Is(err, ErrTooLarge) || !errors.As(err, &large) || large.Limit != 128<<10 || large.Size < 200_000 {
			t.Errorf("200 kB to a window of 128 KiB: %v", err)
		}
		w.say(p, q, "small")
	})
}

// TestWindowShrinks: the other side comes back with a smaller window while messages
// that do not fit into it are held. They are reported, and the others arrive.
func TestWindowShrinks(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		large := func(h *helloBody) { h.Window, h.Credit = 1<<20, 0 }
		d.connect(large)
		p := d.accept()
		for _, m := range []Message{{ID: "1"}, {ID: "large 1", Payload: digits(3000)}, {ID: "2"}, {ID: "large 2", Payload: digits(3000)}, {ID: "3"}} {
			if err := p.Send(t.Context(), m); err != nil {
				t.Fatal(err)
			}
		}
		d.inst = signaling.NewInstance()
		w := d.connect(func(h *helloBody) { h.Window, h.Credit = 2000, 2000 })
		var got []string
		received := uint64(0)
		for len(got) < 3 {
			f := w.get()
			if f == nil {
				t.Fatalf("arrived: %v, and the Node says no more", got)
			}
			switch kind, _ := peekFrame(f); kind {
			case kindSkip:
				skip, err := decodeSkipFrame(f)
				if err != nil || skip.Number <= received+1 {
					t.Fatal(skip, err)
				}
				received = skip.Number - 1
			case kindBatch:
				b, err := decodeBatchFrame(f)
				if err != nil {
					t.Fatal(err)
				}
				for _, rec := range b.Records {
					m, err := decodeRecord(rec, "agent-a", "agent-m")
					if received++; err != nil || m.SequenceNum != received {
						t.Fatalf("record %d after %d: %v", m.SequenceNum, received-1, err)
					}
					got = append(got, m.ID)
				}
			default:
				continue
			}
			// Everything is delivered at once.
			w.put((&positionsFrame{Positions: []position{{Received: received, Delivered: received, Credit: 1 << 20}}}).encode())
		}
		if !slices.Equal(got, []string{"1", "2", "3"}) {
			t.Errorf("arrived: %v", got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := p.Flush(ctx); !errors.Is(err, ErrTooLarge) {
			t.Errorf("flush: %v", err)
		}
		if err := p.Send(ctx, Message{Payload: digits(3000)}); !errors.Is(err, ErrTooLarge) {
			t.Errorf("another one: %v", err)
		}
		var lost *UndeliveredError
		if err := p.Close(); !errors.As(err, &lost) || !slices.Equal(lost.IDs, []string{"large 1", "large 2"}) {
			t.Errorf("close: %v", err)
		}
	})
}

// TestInstancesShareAWindow: what former processes of an agent sent and nobody has
// taken leaves the next one so much less room, and taking it makes room again.
func TestInstancesShareAWindow(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		var credit uint64
		fill := func(w *foeEnd, most uint64) (sent int) {
			for {
				rec := w.record(Message{Payload: digits(8000)})
				if recordSize(rec) > most {
					w.next-- // it was not sent
					return sent
				}
				most -= recordSize(rec)
				w.put(w.batch(rec))
				sent++
			}
		}
		w := d.connect()
		p := d.accept()
		first := fill(w, minWindow)
		for range 10 {
			d.inst = signaling.NewInstance()
			w = d.connect()
			credit = w.said.Credit
			if w.said.Window != minWindow {
				t.Fatalf("window %d", w.said.Window)
			}
			if n := fill(w, credit); n > 0 {
				t.Fatalf("the next instance is granted %d bytes", credit)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for range first {
			if _, err := p.Receive(ctx); err != nil {
				t.Fatal(err)
			}
		}
		for credit <= minWindow*3/4 { // the positions that travel say so, but for the last quarter
			f := w.get()
			if f == nil {
				t.Fatalf("the credit stays at %d", credit)
			}
			if kind, _ := peekFrame(f); kind != kindPositions {
				continue
			}
			pos, err := decodePositionsFrame(f)
			if err != nil {
				t.Fatal(err)
			}
			credit = pos.Positions[0].Credit
		}
		n := fill(w, credit)
		if n < first*3/4 {
			t.Errorf("%d messages after the room was made, %d before", n, first)
		}
		for range n {
			if _, err := p.Receive(ctx); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestSendInTurn: a message of half the window does not wait behind small ones that
// came after it.
func TestSendInTurn(t *testing.T) {
	inWorld(t, virtual.Config{RTT: 20 * time.Millisecond}, func(w *world) {
		small := func(c *Config) { c.Window, c.STUN = minWindow, nil }
		a, b := w.agent("agent-a", virtual.Open, small), w.agent("agent-b", virtual.Open, small)
		p, q := w.pair(a, b)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				if _, err := q.Receive(ctx); err != nil {
					return
				}
			}
		})
		for range 8 {
			wg.Go(func() {
				for p.Send(ctx, Message{Payload: digits(700)}) == nil {
				}
			})
		}
		time.Sleep(time.Second)
		start := time.Now()
		if err := p.Send(ctx, Message{ID: "large", Payload: digits(32_000)}); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("half a window waited for %v", took)
		}
		cancel()
		wg.Wait()
	})
}

// TestSendGivesUpItsTurn: a caller who waits first and gives up does not keep the
// next one waiting, and neither does the end of the Peer.
func TestSendGivesUpItsTurn(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		w := d.connect()
		p := d.accept()
		for p.led.out.fits(9000, 0) {
			if err := p.Send(t.Context(), Message{Payload: digits(8000)}); err != nil {
				t.Fatal(err)
			}
		}
		errs, gaveUp := make(chan error, 3), make(chan error, 1)
		impatient, giveUp := context.WithCancelCause(t.Context())
		go func() { gaveUp <- p.Send(impatient, Message{Payload: digits(20_000)}) }()
		synctest.Wait()
		go func() { errs <- p.Send(t.Context(), Message{Payload: digits(6000)}) }()
		synctest.Wait()
		// Room for the small one only, which came second.
		w.put((&positionsFrame{Positions: []position{{Received: 1, Delivered: 1, Credit: minWindow}}}).encode())
		synctest.Wait()
		select {
		case err := <-errs:
			t.Fatalf("the second went before his turn: %v", err)
		case err := <-gaveUp:
			t.Fatalf("the first went without room: %v", err)
		default:
		}
		spent := errors.New("budget spent")
		giveUp(spent)
		synctest.Wait()
		if err := <-gaveUp; !errors.Is(err, context.Canceled) || !errors.Is(err, spent) {
			t.Errorf("who gave up: %v", err)
		}
		if err := <-errs; err != nil {
			t.Errorf("who came next: %v", err)
		}
		for range 3 {
			go func() { errs <- p.Send(t.Context(), Message{Payload: digits(20_000)}) }()
		}
		synctest.Wait()
		go func() { _ = p.Close() }()
		for range 3 {
			if err := <-errs; !errors.Is(err, net.ErrClosed) {
				t.Errorf("after Close: %v", err)
			}
		}
	})
}

// TestEndedContext: nothing is sent with a context that has ended; what is there
// can be taken.
func TestEndedContext(t *testing.T) {
	inWorld(t, virtual.Config{RTT: 20 * time.Millisecond}, func(w *world) {
		p, q := w.pair(w.agent("agent-a", virtual.Open), w.agent("agent-b", virtual.Open))
		why := errors.New("why")
		ended, end := context.WithCancelCause(w.t.Context())
		end(why)
		for what, err := range map[string]error{"send": p.Send(ended, Message{}), "replace": p.Replace(ended),
			"receive": second2(q.Receive(ended)), "accept": second2(q.node.Accept(ended)), "dial": second2(q.node.Dial(ended, "agent-c"))} {
			if !errors.Is(err, context.Canceled) || !errors.Is(err, why) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if err := p.Flush(ended); err != nil {
			t.Errorf("flush of nothing: %v", err)
		}
		time.Sleep(time.Second)
		if m, err := q.Receive(ended); err == nil {
			t.Errorf("sent after all: %v", m.ID)
		}
		if err := p.Send(w.t.Context(), Message{ID: "there"}); err != nil {
			t.Fatal(err)
		}
		if err := p.Flush(ended); !errors.Is(err, context.Canceled) {
			t.Errorf("flush: %v", err)
		}
		time.Sleep(time.Second)
		if m, err := q.Receive(ended); err != nil || m.ID != "there" {
			t.Errorf("received %q, %v", m.ID, err)
		}
	})
}

func second2[T any](_ T, err error) error { return err }

// TestFlushAfterClose: it says that the Peer is closed, also when everything was
// delivered.
func TestFlushAfterClose(t *testing.T) {
	inWorld(t, virtual.Config{RTT: 20 * time.Millisecond}, func(w *world) {
		p, q := w.pair(w.agent("agent-a", virtual.Open), w.agent("agent-b", virtual.Open))
		w.say(p, q, "one")
		if err := p.Flush(w.t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		if err := p.Flush(w.t.Context()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("flush after close: %v", err)
		}
	})
}

// TestReceiveAfterTheNextDial: what had arrived before the other side closed its Peer
// is returned first, also when that has dialled again since.
func TestReceiveAfterTheNextDial(t *testing.T) {
	inWorld(t, virtual.Config{RTT: 20 * time.Millisecond}, func(w *world) {
		a, b := w.agent("agent-a", virtual.Open), w.agent("agent-b", virtual.Open)
		p, q := w.pair(a, b)
		if err := p.Send(w.t.Context(), Message{ID: "before"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		_ = p.Close()
		<-q.Context().Done()
		p, next := w.pair(a, b)
		if m, err := q.Receive(w.t.Context()); err != nil || m.ID != "before" {
			t.Errorf("the old Peer: %q, %v", m.ID, err)
		}
		if _, err := q.Receive(w.t.Context()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("the old Peer again: %v", err)
		}
		w.say(p, next, "after")
	})
}

// TestLostCountedOnce: messages whose outcome is unknown are lost once, whatever
// becomes of the Peer.
func TestLostCountedOnce(t *testing.T) {
	meter := newHostileMeter()
	inDuel(t, func(t *testing.T, d *duel) {
		d.connect(func(h *helloBody) { h.State = 1 })
		p := d.accept()
		for i := range 3 {
			if err := p.Send(t.Context(), Message{ID: fmt.Sprint(i)}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		d.connect(func(h *helloBody) { h.State = 2 })
		synctest.Wait()
		var lost *UndeliveredError
		if err := p.Close(); !errors.As(err, &lost) || len(lost.IDs) != 3 {
			t.Error(err)
		}
	}, func(c *Config) { meter.config(c) })
	if n := meter.count(t, "webrtc_messages_lost_total"); n != 3 {
		t.Errorf("webrtc_messages_lost_total is %d after three messages were lost", n)
	}
	if n := meter.count(t, "webrtc_send_queue_messages"); n != 0 {
		t.Errorf("webrtc_send_queue_messages is %d when everything is over", n)
	}
}

// TestRevokedInbox: what a key signed that has since lost trust is handed out
// neither by its Peer nor by the one that its owner has with another key.
func TestRevokedInbox(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		w := d.connect()
		p := d.accept()
		w.put(w.batch(w.record(Message{ID: "by the thief"})))
		synctest.Wait()
		d.trust.remove("agent-m")
		<-p.Context().Done()
		if m, err := p.Receive(t.Context()); !errors.Is(err, ErrUntrusted) {
			t.Errorf("the Peer of the revoked key: %q, %v", m.ID, err)
		}
		d.end.Close()
		owner := d.as(newIdentity(t, "agent-m"))
		defer owner.end.Close()
		time.Sleep(time.Second)
		w = owner.connect()
		q := owner.accept()
		nothing(t, q)
		w.put(w.batch(w.record(Message{ID: "by the owner"})))
		if m, err := q.Receive(t.Context()); err != nil || m.ID != "by the owner" {
			t.Errorf("received %q, %v", m.ID, err)
		}
	})
}

// TestRevokedWhileItLives: the agent has come back with another key, in the same
// Peer, before the former one lost trust.
func TestRevokedWhileItLives(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		w := d.connect()
		p := d.accept()
		w.put(w.batch(w.record(Message{ID: "by the thief"})))
		synctest.Wait()
		d.end.Close()
		owner := d.as(newIdentity(t, "agent-m")) // trusted instead of the former key
		defer owner.end.Close()
		w = owner.connect()
		w.put(w.batch(w.record(Message{ID: "by the owner"})))
		time.Sleep(2*trustInterval + time.Second)
		w.put(w.batch(w.record(Message{ID: "and another"}))) // what the owner said before still counts
		for _, want := range []string{"by the owner", "and another"} {
			if m, err := p.Receive(t.Context()); err != nil || m.ID != want {
				t.Errorf("received %q, %v, want %q", m.ID, err, want)
			}
		}
		nothing(t, p)
	})
}

// TestMerklePaths: all at once they are those that one at a time gives.
func TestMerklePaths(t *testing.T) {
	for n := 1; n <= 70; n++ {
		leaves := make([]tlog.Hash, n)
		for i := range leaves {
			leaves[i] = leafHash([]byte{byte(i)})
		}
		root, paths := merklePaths(leaves)
		if root != merkleRoot(leaves) {
			t.Errorf("root of %d leaves", n)
		}
		for i := range leaves {
			if !slices.Equal(paths[i], merklePath(i, leaves)) {
				t.Errorf("leaf %d of %d", i, n)
			}
		}
	}
}

// TestRepeatedBatchIsCheap: a full batch that begins with a repeated record costs
// little more than one that does not. The ledger is not locked for it.
func TestRepeatedBatchIsCheap(t *testing.T) {
	var leaves [maxTree]tlog.Hash
	batch := func(from uint64) (msgs []Message, recs [][]byte) {
		for i := range uint64(maxTree) {
			msgs = append(msgs, Message{SequenceNum: from + i, Payload: []byte("1"),
				Signature: &Signature{TreeSize: maxTree, Index: int(i), Bytes: make([]byte, 64), leaves: leaves[:]}})
			recs = append(recs, []byte{1})
		}
		return msgs, recs
	}
	p := stillPeer(t)
	s := deadSession(p, 1, 1)
	if _, err := p.led.attach(s, helloOf(s)); err != nil {
		t.Fatal(err)
	}
	accept := func(from uint64) float64 {
		msgs, recs := batch(from)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := p.led.accept(s, msgs, recs); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		return float64(after.Mallocs - before.Mallocs)
	}
	accept(1)
	// Ten hashes a path, and a handful of allocations; one path at a time it
	// would be the hashes of the whole tree for each.
	if n := accept(maxTree); n > 30*maxTree {
		t.Errorf("%.0f allocations for %d messages", n, maxTree)
	}
	if got := len(p.led.inbox); got != 2*maxTree-1 {
		t.Errorf("%d messages filed", got)
	}
}
