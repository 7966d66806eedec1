package mesh

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/infrafabric/agentmesh/internal/cbor"
	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
)

// TestLimitFrames: a trusted peer that breaks a rule of the wire format or of
// the flows loses its session, is told, and nothing it sent along is accepted.
func TestLimitFrames(t *testing.T) {
	nested := func(n int) json.RawMessage {
		return json.RawMessage(strings.Repeat("[", n) + strings.Repeat("]", n))
	}
	one := func(w *foeEnd, f []byte) [][]byte { return [][]byte{f} }
	part := func(total, offset uint64, n int) []byte {
		return (&partFrame{Total: total, Offset: offset, Bytes: make([]byte, n)}).encode()
	}
	for name, frames := range map[string]func(w *foeEnd) [][]byte{
		"empty frame":    func(w *foeEnd) [][]byte { return one(w, nil) },
		"unknown kind":   func(w *foeEnd) [][]byte { return one(w, frameHead(nil, kindEnd, 0)) },
		"trailing bytes": func(w *foeEnd) [][]byte { return one(w, append((&echoFrame{Ping: 1}).encode(), 0)) },
		"truncated":      func(w *foeEnd) [][]byte { return one(w, w.batch(w.record(Message{}))[:90]) },
		"second hello":   func(w *foeEnd) [][]byte { return one(w, w.hello(w.foe)) },
		"no records":     func(w *foeEnd) [][]byte { return one(w, w.batch()) },
		"many records":   func(w *foeEnd) [][]byte { return one(w, w.batch(make([][]byte, maxTree+1)...)) },
		"nested payload": func(w *foeEnd) [][]byte { return one(w, w.batch(w.record(Message{Payload: nested(MaxNesting + 1)}))) },
		"long ID": func(w *foeEnd) [][]byte {
			return one(w, w.batch(w.record(Message{ID: strings.Repeat("x", maxIDLen+1)})))
		},
		"many citations": func(w *foeEnd) [][]byte {
			return one(w, w.batch(w.record(Message{CitationIDs: make([]string, maxCitations+1)})))
		},
		"receipt of unsent": func(w *foeEnd) [][]byte { return one(w, positions(position{Received: 1})) },
		"taken, not come":   func(w *foeEnd) [][]byte { return one(w, positions(position{Delivered: 1})) },
		"largest positions": func(w *foeEnd) [][]byte { return one(w, positions(position{0, 1<<64 - 1, 1<<64 - 1, 1<<64 - 1})) },
		"unknown flow":      func(w *foeEnd) [][]byte { return one(w, positions(position{Flow: 7})) },
		"one flow twice":    func(w *foeEnd) [][]byte { return one(w, positions(position{}, position{})) },
		"too many flows":    func(w *foeEnd) [][]byte { return one(w, positions(make([]position, maxPositions+1)...)) },
		"10 000 flows": func(w *foeEnd) [][]byte {
			// As many as the head of an array can promise, without sending them.
			return one(w, cbor.AppendArray(frameHead(nil, kindPositions, 1), 10_000))
		},
		"skip of a flow": func(w *foeEnd) [][]byte { return one(w, (&skipFrame{Flow: 1, Number: 2}).encode()) },
		"skip to 0":      func(w *foeEnd) [][]byte { return one(w, (&skipFrame{}).encode()) },
		"skip too far":   func(w *foeEnd) [][]byte { return one(w, (&skipFrame{Number: 2, Offset: maxOffset + 1}).encode()) },
		"skip backwards": func(w *foeEnd) [][]byte {
			return [][]byte{(&skipFrame{Number: 2, Offset: 1000}).encode(), (&skipFrame{Number: 3, Offset: 999}).encode()}
		},
		"record after the last number": func(w *foeEnd) [][]byte {
			return [][]byte{(&skipFrame{Number: 1<<64 - 1}).encode(), w.batch(w.record(Message{SequenceNum: 1})), w.batch(w.record(Message{SequenceNum: 1<<64 - 1})),
				(&skipFrame{Number: 1}).encode(), positions(position{Received: 9})}
		},
		"part too small":      func(w *foeEnd) [][]byte { return one(w, part(maxFrame, 0, 100)) },
		"parts too large":     func(w *foeEnd) [][]byte { return one(w, part(maxJoined+1, 0, 100)) },
		"largest part":        func(w *foeEnd) [][]byte { return one(w, part(1<<64-1, 0, 100)) },
		"part without bytes":  func(w *foeEnd) [][]byte { return one(w, part(maxJoined, 0, 0)) },
		"part from elsewhere": func(w *foeEnd) [][]byte { return one(w, part(maxJoined, 100, 100)) },
		"part again":          func(w *foeEnd) [][]byte { return [][]byte{part(maxJoined, 0, 100), part(maxJoined, 0, 100)} },
		"part beyond total":   func(w *foeEnd) [][]byte { return [][]byte{part(maxFrame+1, 0, 16000), part(maxFrame+1, 16000, 386)} },
		"another total":       func(w *foeEnd) [][]byte { return [][]byte{part(maxJoined, 0, 100), part(maxJoined-1, 100, 100)} },
		"batch inside parts":  func(w *foeEnd) [][]byte { return [][]byte{part(maxJoined, 0, 100), w.batch(w.record(Message{}))} },
		"parts of another kind": func(w *foeEnd) [][]byte {
			whole := append((&goodbyeFrame{}).encode(), make([]byte, maxFrame)...)
			return [][]byte{
				(&partFrame{Total: uint64(len(whole)), Bytes: whole[:16000]}).encode(),
				(&partFrame{Total: uint64(len(whole)), Offset: 16000, Bytes: whole[16000:]}).encode(),
			}
		},
		"long goodbye": func(w *foeEnd) [][]byte {
			return one(w, (&goodbyeFrame{Text: strings.Repeat("x", maxReason+1)}).encode())
		},
		"beyond the credit": func(w *foeEnd) (out [][]byte) {
			// The application takes nothing; each record is within what one may be.
			for range minWindow/16000 + 1 {
				out = append(out, w.batch(w.record(Message{Payload: digits(16000 - 200)})))
			}
			return out
		},
		"empty records beyond the credit": func(w *foeEnd) (out [][]byte) {
			for range 2 {
				var recs [][]byte
				for range minWindow / (recordOverhead * 2) {
					recs = append(recs, w.record(Message{ID: "m"}))
				}
				out = append(out, w.inParts(w.batch(recs...))...)
			}
			return out
		},
	} {
		t.Run(name, func(t *testing.T) {
			inDuel(t, func(t *testing.T, d *duel) {
				w := d.connect()
				p := d.accept()
				w.put(frames(w)...)
				if !strings.Contains(name, "beyond the credit") && !strings.Contains(name, "last number") { // what comes before is in order
					nothing(t, p)
				}
				w.ended(p, ErrProtocol)
				// It is the session that is lost, not the agent's good name.
				time.Sleep(linger)
				d.connect()
				d.accept()
			})
		})
	}
	t.Run("unknown version", func(t *testing.T) {
		inDuel(t, func(t *testing.T, d *duel) {
			w := d.connect()
			p := d.accept()
			w.put([]byte{0x82, 2, 1})
			var ve *VersionError
			w.ended(p, ErrProtocol)
			if !errors.As(context.Cause(p.Context()), &ve) || ve.Theirs != "2" {
				t.Errorf("ended with %v", context.Cause(p.Context()))
			}
		})
	})
	t.Run("at the limits", func(t *testing.T) {
		inDuel(t, func(t *testing.T, d *duel) {
			w := d.connect()
			p := d.accept()
			w.put(w.batch(w.record(Message{Payload: nested(MaxNesting), ID: strings.Repeat("x", maxIDLen), CitationIDs: make([]string, maxCitations)})))
			w.put((&echoFrame{Pong: 1<<64 - 1}).encode(), (&skipFrame{Number: 1<<64 - 1, Offset: maxOffset}).encode(), positions(position{Credit: 1<<64 - 1}))
			if _, err := p.Receive(t.Context()); err != nil || p.Context().Err() != nil {
				t.Errorf("%v, %v", err, context.Cause(p.Context()))
			}
		})
	})
}

// inParts cuts a frame as an honest sender does.
func (w *foeEnd) inParts(frame []byte) (out [][]byte) {
	for at := 0; at < len(frame); at += partSize {
		out = append(out, (&partFrame{Total: uint64(len(frame)), Offset: uint64(at), Bytes: frame[at:min(at+partSize, len(frame))]}).encode())
	}
	return out
}

// TestLimitHello: a hello that lies makes no session, and an honest one by the
// same agent does afterwards.
func TestLimitHello(t *testing.T) {
	for name, change := range map[string]func(*helloBody){
		"receipt of unsent": func(h *helloBody) { h.Positions = []position{{Received: 1}} },
		"taken, not come":   func(h *helloBody) { h.Positions = []position{{Delivered: 1}} },
		"largest positions": func(h *helloBody) { h.Positions = []position{{0, 1<<64 - 1, 1<<64 - 1, 1<<64 - 1}} },
		"unknown flow":      func(h *helloBody) { h.Positions = []position{{Flow: 1}} },
		"one flow twice":    func(h *helloBody) { h.Positions = make([]position, 2) },
		"too many flows":    func(h *helloBody) { h.Positions = make([]position, maxPositions+1) },
		"window":            func(h *helloBody) { h.Window = maxOffset + 1 },
		"credit":            func(h *helloBody) { h.Credit = h.Window + 1 },
		"abilities":         func(h *helloBody) { h.Abilities = make([]string, maxAbilities+1) },
		"long ability":      func(h *helloBody) { h.Abilities = []string{strings.Repeat("x", maxAbility+1)} },
	} {
		t.Run(name, func(t *testing.T) {
			inDuel(t, func(t *testing.T, d *duel) {
				w := d.connect(change)
				time.Sleep(2 * linger) // for a goodbye that the foe does not read
				if d.node.lookup("agent-m") != nil {
					t.Error("a hello that lies made a Peer")
				}
				select {
				case <-w.line.done:
				default:
					t.Error("the connection stays open")
				}
				d.connect(func(h *helloBody) {
					h.Window, h.Credit, h.Abilities = maxOffset, maxOffset, make([]string, maxAbilities)
				})
				d.accept()
			})
		})
	}
	t.Run("records before it", func(t *testing.T) {
		inDuel(t, func(t *testing.T, d *duel) {
			w := d.negotiate()
			w.put(w.batch(w.record(Message{})), w.hello(w.foe))
			if d.node.lookup("agent-m") != nil {
				t.Error("records before the hello made a Peer")
			}
		})
	})
	t.Run("none", func(t *testing.T) {
		inDuel(t, func(t *testing.T, d *duel) {
			w := d.negotiate()
			time.Sleep(attemptTimeout)
			synctest.Wait()
			if d.node.lookup("agent-m") != nil {
				t.Error("a connection without a hello is kept")
			}
			if f := w.get(); f == nil {
				t.Error("the Node said no hello")
			}
			if f := w.get(); f != nil {
				t.Errorf("the Node said more than its hello: %x", f)
			}
		})
	})
}

// TestLimitNeverAcknowledged: a peer that takes everything and acknowledges
// nothing holds back its sender at the window, and Close says what is in doubt.
func TestLimitNeverAcknowledged(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		// Its credit is boundless: what binds is the sender's own window.
		w := d.connect(func(h *helloBody) { h.Window, h.Credit = maxOffset, maxOffset })
		p := d.accept()
		sent := 0
		for {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			err := p.Send(ctx, Message{ID: fmt.Sprint(sent), Payload: digits(1000)})
			cancel()
			if errors.Is(err, context.DeadlineExceeded) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			sent++
			w.put((&echoFrame{}).encode())
		}
		if p.led.out.bytes > minWindow || len(p.led.out.held) != sent || sent < minWindow/1200 {
			t.Errorf("%d bytes and %d of %d messages held", p.led.out.bytes, len(p.led.out.held), sent)
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := p.Flush(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("flush: %v", err)
		}
		var lost *UndeliveredError
		if err := p.Close(); !errors.As(err, &lost) || len(lost.IDs) != sent || lost.IDs[sent-1] != fmt.Sprint(sent-1) {
			t.Errorf("close: %v", err)
		}
	})
}

// TestLimitWithoutCredit: a peer that grants nothing gets nothing.
func TestLimitWithoutCredit(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		w := d.connect(func(h *helloBody) { h.Credit = 0 })
		p := d.accept()
		if err := p.Send(t.Context(), Message{}); err != nil {
			t.Fatal(err)
		}
		if f := w.get(); f != nil {
			t.Errorf("a frame without credit: %x", f)
		}
		w.put(positions(position{Credit: 1 << 20}))
		if f := w.get(); f == nil {
			t.Error("no frame with credit")
		}
	})
}

// TestLimitUnread: a peer that asks and never reads: what waits for it stays at
// the high-water mark, whatever it sends.
func TestLimitUnread(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		w := d.connect(func(h *helloBody) { h.Window, h.Credit = maxOffset, maxOffset })
		p := d.accept()
		for range 60 { // acknowledged by the frame, so that more comes until the queue is full
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			err := p.Send(ctx, Message{Payload: digits(60_000)})
			cancel()
			if err != nil {
				break
			}
			synctest.Wait()
			p.led.mu.Lock()
			n := p.led.out.high
			p.led.mu.Unlock()
			w.put(positions(position{Received: n, Delivered: n, Credit: maxOffset}))
		}
		before := w.line.waiting()
		if before < bufferHigh || before > bufferHigh+2*minWindow {
			t.Fatalf("%d bytes wait", before)
		}
		for i := range 20_000 {
			w.line.in <- (&echoFrame{Ping: uint64(i + 1)}).encode()
			if i%1000 == 0 {
				synctest.Wait()
			}
		}
		w.put((&skipFrame{Number: 9, Offset: 9}).encode(), (&skipFrame{Number: 99, Offset: 99}).encode())
		if after := w.line.waiting(); after > before+1000 {
			t.Errorf("%d bytes wait after a flood of pings, %d before", after, before)
		}
		// The same for as long as it keeps quiet.
		time.Sleep(25 * time.Second)
		if after := w.line.waiting(); after > before+1000 {
			t.Errorf("%d bytes wait after a while, %d before", after, before)
		}
	})
}

// TestLimitSkips: skips pass over nothing that was received, and a flood of
// them behind a message that the application does not take costs no memory.
func TestLimitSkips(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		w := d.connect()
		p := d.accept()
		w.put(w.batch(w.record(Message{ID: "kept"})))
		for i := range 20_000 {
			w.line.in <- (&skipFrame{Number: uint64(i + 3), Offset: 10_000 + uint64(i)}).encode()
			if i%1000 == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		p.led.mu.Lock()
		marks := len(p.led.in.marks)
		p.led.mu.Unlock()
		if marks > 2 {
			t.Errorf("%d marks for one message", marks)
		}
		if m, err := p.Receive(t.Context()); err != nil || m.ID != "kept" {
			t.Errorf("%v, %v", m.ID, err)
		}
		w.next = 20_002
		w.put(w.batch(w.record(Message{ID: "after"})))
		if m, err := p.Receive(t.Context()); err != nil || m.ID != "after" {
			t.Errorf("%v, %v", m.ID, err)
		}
	})
}

// TestLimitRepeats: messages that come in one batch with a large repeated one
// keep the memory of their own only, since the credit counts nothing else.
func TestLimitRepeats(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		w := d.connect()
		p := d.accept()
		large := w.record(Message{Payload: digits(15_000)})
		w.put(w.batch(large))
		if _, err := p.Receive(t.Context()); err != nil {
			t.Fatal(err)
		}
		heap := func() uint64 {
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		before := heap()
		const n = 200
		for range n {
			w.put(w.batch(large, w.record(Message{Payload: json.RawMessage(`"x"`), Extra: map[string]json.RawMessage{"y": json.RawMessage("1")}})))
			for w.get() != nil {
			}
		}
		if kept := heap() - before; kept > n*5000 && kept < 1<<60 {
			t.Errorf("%d small messages keep %d bytes", n, kept)
		}
		for range n {
			m, err := p.Receive(t.Context())
			if err != nil || string(m.Payload) != `"x"` || string(m.Extra["y"]) != "1" {
				t.Fatalf("%+v, %v", m, err)
			}
			if err := m.Verify(t.Context(), "default", d.trust); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestLimitSilence: a session on which nothing is answered is doubted after
// three seconds, and kept: when the other side answers again it is used. That
// something comes is no answer.
func TestLimitSilence(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		w := d.connect()
		p := d.accept()
		start := time.Now()
		for c := range p.Changes(t.Context()) {
			if c.State == StateSuspect {
				if took := time.Since(start); took != 3*time.Second || c.Reason != ReasonSilence {
					t.Errorf("doubted after %v: %v", took, c.Reason)
				}
				break
			}
		}
		for range 600 {
			time.Sleep(time.Second)
			w.put((&echoFrame{}).encode())
		}
		if s := p.Status().State; s != StateRecovering {
			t.Errorf("after ten minutes without an answer: %v", s)
		}
		if n := w.line.waiting(); n > maxCarriedQueue {
			t.Errorf("%d bytes wait for a silent session", n)
		}
		w.put((&echoFrame{Pong: 1}).encode()) // as old as the session: no round trip to believe
		if s := p.Status().State; s != StateRecovering {
			t.Errorf("after a pong from long ago: %v", s)
		}
		var ping uint64
		for range 20 {
			for b := w.any(); b != nil; b = w.any() {
				if k, err := peekFrame(b); err != nil || k != kindEcho {
					continue
				}
				if f, err := decodeEchoFrame(b); err == nil && f.Ping != 0 {
					ping = f.Ping
				}
			}
			time.Sleep(100 * time.Millisecond)
		}
		w.put((&echoFrame{Pong: ping}).encode())
		if c := p.Status(); c.State != StateConnected || c.Reason != ReasonAnswers {
			t.Errorf("after an answer: %+v", c)
		}
	})
}

// TestLimitGoodbye: hostile text in a goodbye reaches logs and errors as
// printable ASCII.
func TestLimitGoodbye(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		w := d.connect()
		p := d.accept()
		w.put((&goodbyeFrame{Code: 200, Text: "bye\x1b[2J\r\nlevel=ERROR \u202e" + strings.Repeat("é", 60)}).encode())
		<-p.Context().Done()
		cause := context.Cause(p.Context())
		if !errors.Is(cause, ErrPeerClosed) {
			t.Errorf("cause %v", cause)
		}
		for _, c := range cause.Error() {
			if c < 0x20 || c > 0x7e {
				t.Errorf("%q in %q", c, cause)
			}
		}
	})
}

// TestLimitSessions: one agent that negotiates and connects without end has a
// bounded number of attempts, sessions and refused instances.
func TestLimitSessions(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		for range 3 * maxAttempts {
			d.hub.inject("agent-a", d.seal(signaling.Offer, signaling.Hash{}, d.description()).Bytes())
			synctest.Wait() // one by one: those that come at once are bounded before
		}
		if n := d.lines.living(); n > maxAttempts {
			t.Errorf("%d connections under negotiation", n)
		}
		time.Sleep(2 * attemptTimeout)
		for range maxRefusedInstances + 10 {
			d.inst = signaling.NewInstance()
			d.connect()
		}
		p := d.node.lookup("agent-m")
		sizes := make(chan [2]int, 1)
		p.post(func() { sizes <- [2]int{len(p.sessions), len(p.attempts)} })
		if n := <-sizes; n[0] > maxSessions || n[1] != 0 {
			t.Errorf("%d sessions, %d attempts", n[0], n[1])
		}
		if n := len(p.led.refused); n != maxRefusedInstances {
			t.Errorf("%d instances remembered", n)
		}
		time.Sleep(2 * time.Second) // the last one is not in doubt yet
		if n := d.lines.living(); n != 1 {
			t.Errorf("%d connections are open", n)
		}
	})
}

// TestLimitIncoming: offers by hundreds of agents at once, which never go on,
// hold a bounded number of places and get a bounded number of refusals; honest
// dials in both directions succeed, later at the latest.
func TestLimitIncoming(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		crowd := maxIncoming + 100
		for i := range crowd {
			c := d.as(newIdentity(t, fmt.Sprint("crowd-", i)))
			d.hub.inject("agent-a", c.seal(signaling.Offer, signaling.Hash{}, d.description()).Bytes())
		}
		synctest.Wait()
		d.node.mu.Lock()
		incoming, peers := d.node.incoming, len(d.node.peers)
		d.node.mu.Unlock()
		if incoming != maxIncoming || peers != maxIncoming {
			t.Errorf("%d under negotiation, %d Peers", incoming, peers)
		}
		rejects := 0
		d.hub.mu.Lock()
		for _, e := range d.hub.seen {
			if e.Kind == signaling.Reject {
				rejects++
			}
		}
		d.hub.mu.Unlock()
		if rejects == 0 || rejects > rejectsPerSecond {
			t.Errorf("%d signed refusals at once", rejects)
		}
		// The Node's own dials do not wait for places.
		got := make(chan error, 1)
		go func() { _, err := dialFor(d.node, "agent-m", 5*time.Second); got <- err }()
		for {
			offer := d.heard()
			if offer == nil {
				t.Fatal("no offer while the crowd waits")
			}
			if offer.Kind == signaling.Offer {
				answer := d.seal(signaling.Answer, offer.Hash(), d.description())
				d.hub.inject("agent-a", answer.Bytes())
				synctest.Wait()
				d.opened(offer, offer.Hash(), answer.Hash()).greet()
				break
			}
		}
		if err := <-got; err != nil {
			t.Error(err)
		}
		time.Sleep(attemptTimeout)
		late := d.as(newIdentity(t, "agent-late"))
		late.connect()
		late.accept()
	})
}

// TestLimitBacklog: Peers that nobody accepts hold acceptBacklog places.
func TestLimitBacklog(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		for i := range acceptBacklog {
			d.as(newIdentity(t, fmt.Sprint("crowd-", i))).connect()
		}
		if n := len(d.node.accepted); n != acceptBacklog {
			t.Fatalf("%d wait", n)
		}
		offer := d.seal(signaling.Offer, signaling.Hash{}, d.description())
		d.hub.inject("agent-a", offer.Bytes())
		e := d.heard()
		if e == nil || e.Kind != signaling.Reject || e.Ref != offer.Hash() {
			t.Fatalf("answer beyond the backlog: %v", e)
		}
		if r, err := decodeReject(e.Body); err != nil || r.Code != rejectBusy {
			t.Errorf("%+v, %v", r, err)
		}
		d.accept()
		d.connect() // there is room again
		if d.node.lookup("agent-m") == nil {
			t.Error("no Peer after one was accepted")
		}
	})
}

// TestLimitCandidates: of the other side's candidates the first 32 are used, in
// however many envelopes they come.
func TestLimitCandidates(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		offer := d.seal(signaling.Offer, signaling.Hash{}, d.description())
		d.hub.inject("agent-a", offer.Bytes())
		e := d.heard()
		same := func(e *signaling.Envelope) { e.Generation = offer.Generation }
		for i := range 500 {
			b := candidateBody{}
			for j := range 1 + i%3 {
				b.Candidates = append(b.Candidates, fmt.Sprintf("candidate:%d 1 udp 1 10.0.0.%d 9 typ host", i, j))
			}
			d.hub.inject("agent-a", d.seal(signaling.Candidate, offer.Hash(), b.encode(), same).Bytes())
		}
		for _, list := range [][]string{make([]string, maxRemoteCandidates+1), {strings.Repeat("x", maxCandidateLen+1)}} {
			d.hub.inject("agent-a", d.seal(signaling.Candidate, offer.Hash(), (&candidateBody{list}).encode(), same).Bytes())
		}
		synctest.Wait() // once it is open nobody looks for candidates any more
		w := d.opened(e, offer.Hash(), e.Hash())
		w.greet()
		d.accept()
		if n := w.line.added; n == 0 || n > maxRemoteCandidates {
			t.Errorf("%d candidates were used", n)
		}
	})
	fp := keys.Fingerprint{1}
	sdp := describe(fp, 0) + strings.Repeat("a=candidate:1 1 udp 1 10.0.0.1 9 typ host\r\n", maxRemoteCandidates+1)
	if _, err := decodeDescription((&descriptionBody{SDP: sdp, Fingerprint: fp}).encode()); err != nil {
		t.Errorf("a description with many candidates: %v", err)
	}
	sdp = describe(fp, 0) + strings.Repeat("x", maxSDP)
	if _, err := decodeDescription((&descriptionBody{SDP: sdp, Fingerprint: fp}).encode()); !errors.Is(err, ErrProtocol) {
		t.Errorf("a description that is too long: %v", err)
	}
}

// stuck is a signaler whose Send blocks: the server takes nothing.
type stuck struct{ *hubEnd }

func (s stuck) Send(ctx context.Context, _ []byte, _ int) (string, error) {
	<-ctx.Done()
	return "", ctx.Err()
}

// TestLimitRejects: refusals that a server does not take hold up nobody: an
// honest envelope behind a flood of offers by strangers is dealt with at once.
func TestLimitRejects(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		victim, err := newNode(Config{Identity: newIdentity(t, "agent-v"), Trust: d.trust, Signaling: []string{"ws://hub.invalid/"}})
		if err != nil {
			t.Fatal(err)
		}
		victim.run(d.lines, stuck{d.hub.end("agent-v")})
		defer victim.Close()
		to := func(e *signaling.Envelope) { e.To = "agent-v" }
		for i := range 100 {
			stranger := *d
			stranger.foe = newIdentity(t, fmt.Sprint("stranger-", i))
			d.hub.inject("agent-v", stranger.seal(signaling.Offer, signaling.Hash{}, d.description(), to).Bytes())
		}
		d.hub.inject("agent-v", d.seal(signaling.Offer, signaling.Hash{}, d.description(), to).Bytes())
		synctest.Wait()
		if victim.lookup("agent-m") == nil {
			t.Error("an honest offer waits behind refusals")
		}
	})
}

// TestLimitEnvelope: an envelope at the limit passes, one byte more does not.
func TestLimitEnvelope(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		_, err := signaling.Seal(d.foe, signaling.Envelope{Kind: signaling.Offer, Mesh: "default", To: "agent-a", Instance: d.inst,
			Body: make([]byte, signaling.MaxBody+1)})
		if !errors.Is(err, signaling.ErrTooLarge) {
			t.Errorf("sealed: %v", err)
		}
		whole := d.seal(signaling.Offer, signaling.Hash{}, bytes.Repeat([]byte{1}, signaling.MaxBody)).Bytes()
		d.hub.inject("agent-a", append(whole, make([]byte, signaling.MaxEnvelope)...))
		d.hub.inject("agent-a", whole) // a body that is no description
		synctest.Wait()
		if d.node.lookup("agent-m") != nil {
			t.Error("junk made a Peer")
		}
		d.connect()
		d.accept()
	})
}

// TestLimitBadSignatures: ten thousand envelopes with bad signatures a second,
// under a trusted name, cost a bounded number of verifications. Meanwhile every
// other agent is reached by that server and the named one by another; when the
// flood ends, by that one again.
func TestLimitBadSignatures(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	verifications := func(t *testing.T) (n int64) {
		t.Helper()
		var got metricdata.ResourceMetrics
		if err := reader.Collect(t.Context(), &got); err != nil {
			t.Fatal(err)
		}
		for _, scope := range got.ScopeMetrics {
			for _, m := range scope.Metrics {
				if m.Name == "webrtc_signature_verification_failures_total" || m.Name == "webrtc_signature_verification_success_total" {
					for _, p := range m.Data.(metricdata.Sum[int64]).DataPoints {
						n += p.Value
					}
				}
			}
		}
		return n
	}
	inDuel(t, func(t *testing.T, d *duel) {
		sealed := d.seal(signaling.Offer, signaling.Hash{}, d.description()).Bytes()
		flood := func(tenths int) {
			for range tenths {
				for i := range 1000 {
					junk := bytes.Clone(sealed)
					junk[len(junk)-1-i%64] ^= byte(1 + i/64)
					d.node.signaler.(*hubEnd).put(signaling.Event{Kind: signaling.EventEnvelope, Server: "liar", Envelope: junk})
				}
				time.Sleep(100 * time.Millisecond)
			}
		}
		by := func(e *signaling.Sealed) {
			d.node.signaler.(*hubEnd).put(signaling.Event{Kind: signaling.EventEnvelope, Server: "liar", Envelope: e.Bytes()})
			synctest.Wait()
		}
		flood(10)
		if n := verifications(t); n > 3*keyFailuresPerSecond || n < keyFailuresPerSecond {
			t.Errorf("%d verifications in one second", n)
		}
		// The flood has used up what it may: at this instant nothing of that key
		// passes by that server. Somebody else's does.
		flood(1)
		other := d.as(newIdentity(t, "agent-c"))
		by(other.seal(signaling.Offer, signaling.Hash{}, d.description()))
		if d.node.lookup("agent-c") == nil {
			t.Error("a flood under one name keeps another agent out")
		}
		var wg sync.WaitGroup
		wg.Go(func() { flood(5) })
		d.connect() // by the hub
		d.accept()
		wg.Wait()
		time.Sleep(time.Second)
		e := d.seal(signaling.Offer, signaling.Hash{}, d.description())
		by(e)
		for answer := d.heard(); answer == nil || answer.Ref != e.Hash(); answer = d.heard() {
			if answer == nil {
				t.Fatal("no answer by that server after the flood")
			}
		}
	}, func(c *Config) { c.MeterProvider = sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)) })
}

// TestLimitFailures is the pure part.
func TestLimitFailures(t *testing.T) {
	const most = 8
	f, now := newFailures(most), goldenTime
	a, b := newIdentity(t, "agent-a").PublicKey(), newIdentity(t, "agent-b").PublicKey()
	for range 2 * keyFailuresPerSecond {
		if f.full(now, "s1", a) {
			t.Fatal("full too early")
		}
		f.charge(now, "s1", a)
	}
	if !f.full(now, "s1", a) || f.full(now, "s1", b) || f.full(now, "s2", a) {
		t.Error("charged to others than that key by that server")
	}
	if f.full(now.Add(time.Second), "s1", a) {
		t.Error("not recovered after a second")
	}
	var others []keys.PublicKey
	for i := range 2 * most {
		others = append(others, newIdentity(t, fmt.Sprint("agent-", i)).PublicKey())
	}
	for i := range 2 * wayFailuresPerSecond {
		f.charge(now, "s1", others[i%len(others)])
	}
	if !f.full(now, "s1", b) || f.full(now, "s2", b) {
		t.Error("one server's keys together are not bounded, or another's are")
	}
	if n := len(f.ways["s1"].keys); n > most {
		t.Errorf("%d keys counted", n)
	}
}
