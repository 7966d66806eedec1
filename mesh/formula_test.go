package mesh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
)

// paper is a connection that keeps what is written on it, and says how much of it waits.
type paper struct {
	*deadConn
	frames [][]byte
	queued uint64
	full   bool
	closes int
}

func newPaper() *paper { return &paper{deadConn: newDeadConn()} }

func (p *paper) Write(b []byte) error {
	p.frames = append(p.frames, slices.Clone(b))
	return nil
}

func (p *paper) Close() error {
	p.closes++
	return p.deadConn.Close()
}

func (p *paper) Queued() uint64              { return p.queued }
func (p *paper) Drain(context.Context) error { return nil }

func (p *paper) Wait(context.Context) error {
	if p.full {
		return context.Canceled
	}
	return nil
}

// goodbye returns the goodbye on the paper, if there is one.
func (p *paper) goodbye(t *testing.T) *goodbyeFrame {
	t.Helper()
	for _, b := range p.frames {
		if k, err := peekFrame(b); err != nil || k != kindGoodbye {
			continue
		}
		f, err := decodeGoodbyeFrame(b)
		if err != nil {
			t.Fatal(err)
		}
		return &f
	}
	return nil
}

// TestDecline: the other side of a session that is not taken in learns why, but where its
// Peer goes on without it.
func TestDecline(t *testing.T) {
	for _, c := range []struct {
		err  error
		ends goodbyeCode // of the Peer, if it has ended
		want *goodbyeFrame
	}{
		{ErrReplaced, 0, &goodbyeFrame{Code: goodbyeReplaced}},
		{fmt.Errorf("%w: late", ErrConnectionLost), 0, nil},
		{protocolErrorf("the wrong number"), 0, &goodbyeFrame{Code: goodbyeProtocol, Text: "protocol error: the wrong number"}},
		{errors.New("something else"), 0, &goodbyeFrame{Code: goodbyeClosed}},
		{errors.New("something else"), goodbyeUntrusted, &goodbyeFrame{Code: goodbyeUntrusted}},
		{fmt.Errorf("%w: late", ErrConnectionLost), goodbyeUntrusted, &goodbyeFrame{Code: goodbyeUntrusted}},
	} {
		p, on := stillPeer(t), newPaper()
		if c.ends != 0 {
			p.shut(c.ends, errors.New("it ended"))
		}
		p.decline(newSession(p.node, p.led, on, order{}), c.err)
		got := on.goodbye(t)
		if on.closes != 1 || (got == nil) != (c.want == nil) || got != nil && *got != *c.want {
			t.Errorf("%v, ended with %d: %+v, closed %d times", c.err, c.ends, got, on.closes)
		}
	}
}

// TestDropProbe: only a Peer that is unreachable lets go of its sessions.
func TestDropProbe(t *testing.T) {
	for s := range StateClosed + 1 {
		p, on := stillPeer(t), newPaper()
		p.sessions = []*session{newSession(p.node, p.led, on, order{})}
		p.machine.state = s
		p.dropProbe()
		p.work.Wait()
		if closed := on.closes == 1; closed != (s == StateUnreachable) {
			t.Errorf("%v: closed %v", s, closed)
		}
		p.sessions = nil
	}
}

// TestStuck: a transport that has something to hand over and does not is stuck; in small
// packets, their headers count as well.
func TestStuck(t *testing.T) {
	for _, slim := range []bool{false, true} {
		p, on := stillPeer(t), newPaper()
		s := newSession(p.node, p.led, on, order{})
		if slim {
			s.conn = newSlimConn(on)
		}
		write := func(n int) {
			if err := s.put(make([]byte, n)); err != nil {
				t.Fatal(err)
			}
		}
		total := func() (n uint64) {
			for _, f := range on.frames {
				n += uint64(len(f))
			}
			return n
		}
		now := time.Now()
		if s.stuck(now) || !s.checked.Equal(now) {
			t.Error("stuck with nothing to hand over")
		}
		write(5000)
		on.queued = total()
		if !s.stuck(now) {
			t.Errorf("slim %v: not stuck with everything in the queue", slim)
		}
		on.queued = total() - 1
		if s.stuck(now) {
			t.Errorf("slim %v: stuck although a byte went out", slim)
		}
		if !s.stuck(now) {
			t.Errorf("slim %v: not stuck although nothing more did", slim)
		}
		write(100) // which waits behind the rest
		on.queued = total() - 1
		if !s.stuck(now) {
			t.Errorf("slim %v: not stuck because more was written", slim)
		}
		on.queued = total() - 2
		if s.stuck(now) {
			t.Errorf("slim %v: stuck although another byte went out", slim)
		}
	}
}

// TestEcho: a ping answers what waits for an answer, says how long it waited, and is not
// sent where it would only pile up.
func TestEcho(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, on := stillPeer(t), newPaper()
		s := newSession(p.node, p.led, on, order{})
		last := func() echoFrame {
			t.Helper()
			f, err := decodeEchoFrame(on.frames[len(on.frames)-1])
			if err != nil {
				t.Fatal(err)
			}
			return f
		}
		time.Sleep(3 * time.Second)
		if err := s.ping(); err != nil {
			t.Fatal(err)
		}
		if f := last(); f.Ping != 3_000_001 || f.Pong != 0 || f.Held != 0 {
			t.Errorf("%+v", f)
		}
		every := s.pingEvery()
		if every != echoInterval || !s.nextPing().Equal(time.Now().Add(every)) && !s.nextPing().Equal(time.Now().Add(every+min(echoSlack, every/4))) {
			t.Errorf("every %v, next in %v", every, time.Until(s.nextPing()))
		}
		on.full = true
		if err := s.ping(); err != nil || len(on.frames) != 1 {
			t.Errorf("a full queue: %v, %d frames", err, len(on.frames))
		}
		on.full = false
		on.queued = 1
		if err := s.ping(); err != nil || len(on.frames) != 2 {
			t.Errorf("something in the queue: %v, %d frames", err, len(on.frames))
		}
		s.doubted.Store(true)
		if err := s.ping(); err != nil || len(on.frames) != 2 {
			t.Errorf("in doubt with something in the queue: %v, %d frames", err, len(on.frames))
		}
		on.queued = 0
		if err := s.ping(); err != nil || len(on.frames) != 3 {
			t.Errorf("in doubt with nothing in the queue: %v, %d frames", err, len(on.frames))
		}
	})
}

// TestRoundTrips: the first one counts as it is, later ones by an eighth, their variation
// by a quarter (RFC 6298 §2), repeated ones only as the last.
func TestRoundTrips(t *testing.T) {
	p := stillPeer(t)
	s := newSession(p.node, p.led, newPaper(), order{})
	check := func(rtt, variation, last time.Duration) {
		t.Helper()
		if got := [3]time.Duration{time.Duration(s.rtt.Load()), time.Duration(s.rttVar.Load()), time.Duration(s.rttLast.Load())}; got != [3]time.Duration{rtt, variation, last} {
			t.Errorf("%v", got)
		}
	}
	if got := s.silentLimit(); got != defaultSuspectAfter {
		t.Errorf("before the first one: %v", got)
	}
	s.measured(80*time.Millisecond, true)
	check(80*time.Millisecond, 40*time.Millisecond, 80*time.Millisecond)
	s.measured(160*time.Millisecond, false)
	check(90*time.Millisecond, 50*time.Millisecond, 160*time.Millisecond)
	s.measured(10*time.Millisecond, false)
	check(80*time.Millisecond, 57_500*time.Microsecond, 10*time.Millisecond)
	s.measured(time.Second, true)
	check(80*time.Millisecond, 57_500*time.Microsecond, time.Second)
	if got := s.ackLimit(); got != 1500*time.Millisecond {
		t.Errorf("ackLimit is %v", got)
	}
	s.rtt.Store(int64(4 * time.Second))
	if got := s.silentLimit(); got != 9*time.Second {
		t.Errorf("silentLimit is %v", got)
	}
	if got := s.ackLimit(); got != 16*time.Second {
		t.Errorf("ackLimit is %v", got)
	}
}

// TestHeed: what the other side says did it no good is avoided here as well.
func TestHeed(t *testing.T) {
	for v, want := range map[avoid][]string{
		0:                            nil,
		avoidFullDirect:              {pathDirect},
		avoidFull:                    {pathDirect, pathAny},
		avoidFull | avoidFullDirect:  {pathDirect, pathAny},
		avoidDirect:                  nil,
		avoidDirect | avoidFull | 64: {pathDirect, pathAny},
	} {
		p := stillPeer(t)
		p.heed(v)
		p.heed(v)
		if !slices.Equal(p.narrows, want) {
			t.Errorf("%d: narrow are %q", v, p.narrows)
		}
		if got := slices.Contains(p.shun.list(time.Now()), pathDirect); got != (v&avoidDirect != 0) {
			t.Errorf("%d: the direct path is shunned: %v", v, got)
		}
	}
}

// TestReplacedPeerIsSilent: a Peer that a newer process has replaced answers neither
// offers nor asks, and has no use for one that only they made.
func TestReplacedPeerIsSilent(t *testing.T) {
	for _, met := range []bool{false, true} {
		for _, asks := range []bool{false, true} {
			p := stillPeer(t)
			p.machine.met = met
			p.led.markReplaced()
			v := verified{Sealed: &signaling.Sealed{Envelope: signaling.Envelope{From: "agent-b", Generation: 7,
				Body: (&askBody{Reason: ReasonSilence}).encode()}}}
			if asks {
				p.asked(v)
			} else {
				p.offered(v)
			}
			if len(p.attempts) != 0 || p.deferred != nil || p.lastGen != 7 {
				t.Errorf("met %v, asks %v: %d attempts, generation %d", met, asks, len(p.attempts), p.lastGen)
			}
			if cause := context.Cause(p.ctx); errors.Is(cause, ErrReplaced) == met || (p.ctx.Err() == nil) != met {
				t.Errorf("met %v, asks %v: ended with %v", met, asks, cause)
			}
		}
	}
}

// TestHandedOver: what peers hand over has a queue of a certain length and holds nobody up.
func TestHandedOver(t *testing.T) {
	p := stillPeer(t)
	s := newSession(p.node, p.led, newPaper(), order{})
	for range cap(p.node.carried) + 2 {
		p.node.handed(s, []byte("x"))
	}
	if len(p.node.carried) != cap(p.node.carried) {
		t.Errorf("%d wait", len(p.node.carried))
	}
}

// TestAbsentEverywhere: every server that is open must have said so, and there must be one.
func TestAbsentEverywhere(t *testing.T) {
	p := stillPeer(t)
	at := func(all ...signaling.ServerStatus) { p.node.signaler = servers{p.node.signaler, all} }
	open, away := signaling.StateOpen, signaling.StateConnecting
	for _, c := range []struct {
		all  []signaling.ServerStatus
		said []string
		want bool
	}{
		{nil, []string{"s1"}, false},
		{[]signaling.ServerStatus{{URL: "s1", State: away}}, []string{"s1"}, false},
		{[]signaling.ServerStatus{{URL: "s1", State: open}}, []string{"s1"}, true},
		{[]signaling.ServerStatus{{URL: "s1", State: open}}, nil, false},
		{[]signaling.ServerStatus{{URL: "s1", State: open}, {URL: "s2", State: open}}, []string{"s1"}, false},
		{[]signaling.ServerStatus{{URL: "s1", State: open}, {URL: "s2", State: away}}, []string{"s1"}, true},
		{[]signaling.ServerStatus{{URL: "s1", State: open}, {URL: "s2", State: open}}, []string{"s2", "s1"}, true},
	} {
		at(c.all...)
		if got := p.node.absentEverywhere(c.said); got != c.want {
			t.Errorf("%+v said by %q: %v", c.all, c.said, got)
		}
	}
}

// servers is a signaler with the servers that a test gives it.
type servers struct {
	signaler
	all []signaling.ServerStatus
}

func (s servers) Servers() []signaling.ServerStatus { return s.all }

// TestCertificateInTime: a Node's certificate is used until a week before its end, and not
// before it is valid for those whose clock is behind.
func TestCertificateInTime(t *testing.T) {
	n := stillPeer(t).node
	now := time.Now()
	first, err := n.certificate(now)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		at   time.Time
		same bool
	}{
		{first.Leaf.NotAfter.Add(-certificateAhead), true},
		{first.Leaf.NotAfter.Add(-certificateAhead + time.Second), false},
		{first.Leaf.NotBefore.Add(freshness), true},
		{first.Leaf.NotBefore.Add(freshness - time.Second), false},
	} {
		n.cert = first
		got, err := n.certificate(c.at)
		if err != nil || (got == first) != c.same {
			t.Errorf("%v after its beginning: the same %v, %v", c.at.Sub(first.Leaf.NotBefore), got == first, err)
		}
	}
	var never *keys.Certificate
	n.cert = never
	if got, err := n.certificate(now.AddDate(9000, 0, 0)); err == nil {
		t.Errorf("a certificate for the year %d", got.Leaf.NotBefore.Year())
	}
}

// TestAttachBelow: a session that comes after a higher one stands below it, and data stays
// where it is.
func TestAttachBelow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := stillPeer(t)
		middle, high, low := deadSession(p, 5, 1), deadSession(p, 9, 1), deadSession(p, 3, 1)
		for _, s := range []*session{middle, high, low} {
			if err := p.attach(newAttempt(p, s.order, true), s, helloOf(s)); err != nil {
				t.Fatal(err)
			}
		}
		if !slices.Equal(p.sessions, []*session{low, middle, high}) || p.top() != high || p.led.top != high {
			t.Errorf("%d sessions, the highest of generation %d", len(p.sessions), p.top().order.generation)
		}
		if !low.passed || !middle.passed || high.passed {
			t.Errorf("passed: %v, %v, %v", low.passed, middle.passed, high.passed)
		}
		// What ends below changes nothing above.
		p.sessionEnded(low, ErrConnectionLost)
		if !slices.Equal(p.sessions, []*session{middle, high}) || p.Status().State != StateConnected || p.lastErr != nil {
			t.Errorf("%d sessions, %+v, %v", len(p.sessions), p.Status(), p.lastErr)
		}
		p.sessionEnded(high, ErrConnectionLost)
		if !errors.Is(p.lastErr, ErrConnectionLost) || p.Status().State == StateConnected {
			t.Errorf("%+v, %v", p.Status(), p.lastErr)
		}
	})
}

// TestAttachTooLate: a session that comes when the Peer has ended is none of its.
func TestAttachTooLate(t *testing.T) {
	p := stillPeer(t)
	s := deadSession(p, 1, 1)
	late := errors.New("it has ended")
	p.led.end(late)
	if _, err := p.led.attach(s, helloOf(s)); !errors.Is(err, net.ErrClosed) || !errors.Is(err, late) || p.led.top != nil {
		t.Errorf("the ledger takes it: %v", err)
	}
	p.shut(goodbyeClosed, late)
	if err := p.attach(newAttempt(p, s.order, true), s, helloOf(s)); !errors.Is(err, late) || len(p.sessions) != 0 {
		t.Errorf("the Peer takes it: %v", err)
	}
}

// TestRoomIsTaken: a new process was told that there is more room than former ones have
// left by now: it has to ask anew.
func TestRoomIsTaken(t *testing.T) {
	p := stillPeer(t)
	first := deadSession(p, 1, 1)
	first.told = p.led.remembers(first.bind.remoteInst)
	if _, err := p.led.attach(first, helloOf(first)); err != nil {
		t.Fatal(err)
	}
	next, again := deadSession(p, 2, 2), deadSession(p, 3, 2)
	next.told = p.led.remembers(next.bind.remoteInst)
	if err := p.led.accept(first, []Message{{SequenceNum: 1, Signature: &Signature{}}}, [][]byte{make([]byte, 100)}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.led.attach(next, helloOf(next)); !errors.Is(err, errRoomTaken) || p.led.top != first {
		t.Errorf("%v", err)
	}
	again.told = p.led.remembers(again.bind.remoteInst)
	if again.told.credit != next.told.credit-100-recordOverhead {
		t.Errorf("told of %d bytes, then of %d", next.told.credit, again.told.credit)
	}
	if got, err := p.led.attach(again, helloOf(again)); err != nil || !got.displaced || p.led.top != again {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestHelloSettles: what a hello acknowledges as delivered ends the calls of Flush that
// wait for it, and makes room for who waits to send.
func TestHelloSettles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := stillPeer(t)
		s, next := deadSession(p, 1, 1), deadSession(p, 2, 1)
		if _, err := p.led.attach(s, helloOf(s)); err != nil {
			t.Fatal(err)
		}
		if err := p.Send(t.Context(), Message{ID: "one"}); err != nil {
			t.Fatal(err)
		}
		if w := p.led.collect(s); len(w.records) != 1 {
			t.Fatalf("%+v", w)
		}
		flushed := make(chan error, 1)
		go func() { flushed <- p.Flush(t.Context()) }()
		synctest.Wait()
		h := helloOf(next)
		h.Positions = []position{{Flow: messageFlow, Received: 1, Delivered: 1, Credit: DefaultWindow}}
		if _, err := p.led.attach(next, h); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		select {
		case err := <-flushed:
			if err != nil {
				t.Error(err)
			}
		default:
			t.Error("Flush has not heard of it")
		}
	})
}
