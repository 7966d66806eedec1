package mesh

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
)

// flowPair is a sender and a receiver with a record of what is in between.
type flowPair struct {
	t *testing.T
	s sender
	r receiver
}

func newFlowPair(t *testing.T, window uint64) *flowPair {
	return &flowPair{t: t, s: newSender(0, window, 0, 0), r: newReceiver(0, window, 0)}
}

// attach opens a session: the receiver's hello reaches the sender.
func (f *flowPair) attach(same bool) []string {
	f.t.Helper()
	var pos *position
	if p, ok := f.r.position(); ok {
		pos = &p
	}
	_, unknown, err := f.s.resume(pos, same, f.r.window)
	if err != nil {
		f.t.Fatal(err)
	}
	return unknown
}

func (f *flowPair) push(ids ...string) {
	f.t.Helper()
	for _, id := range ids {
		if !f.s.fits(len(id), 0) {
			f.t.Fatalf("%s does not fit", id)
		}
		f.s.push(id, []byte(id), time.Time{})
	}
}

// travel moves what may travel; keep says which of it arrives.
func (f *flowPair) travel(keep func(number uint64) bool) (arrived []string) {
	f.t.Helper()
	from := f.s.cursor
	skip, recs := f.s.travel(1000, 1<<20)
	if skip != nil {
		from = skip.Number
		if err := f.r.skipTo(skip.Number, skip.Offset); err != nil {
			f.t.Fatal(err)
		}
	}
	for i, rec := range recs {
		n := from + uint64(i)
		if keep != nil && !keep(n) {
			return arrived // a session is ordered: what follows is lost with it
		}
		fresh, err := f.r.record(n, rec)
		if err != nil {
			f.t.Fatal(err)
		}
		if fresh {
			arrived = append(arrived, string(rec))
		}
	}
	return arrived
}

func (f *flowPair) acknowledge() {
	f.t.Helper()
	if p, ok := f.r.position(); ok {
		if _, err := f.s.position(p); err != nil {
			f.t.Fatal(err)
		}
	}
}

func expect(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func TestFlowResume(t *testing.T) {
	f := newFlowPair(t, 1<<20)
	f.attach(true)
	f.push("a", "b", "c", "d")
	expect(t, "first session", f.travel(func(n uint64) bool { return n <= 2 }), []string{"a", "b"})
	f.r.deliver(1)
	// The session dies with c and d on it, and with the acknowledgement.
	f.attach(true)
	expect(t, "second session", f.travel(nil), []string{"c", "d"})
	f.acknowledge()
	if f.s.base() != 2 {
		t.Errorf("base %d after a was delivered", f.s.base())
	}
	f.r.deliver(4)
	f.acknowledge()
	if f.s.base() != 5 || f.s.bytes != 0 {
		t.Errorf("base %d, %d bytes held after all was delivered", f.s.base(), f.s.bytes)
	}
}

// TestFlowRestartedReceiver: a receiver without state gets everything that the
// former one had not delivered, once.
func TestFlowRestartedReceiver(t *testing.T) {
	f := newFlowPair(t, 1<<20)
	f.attach(true)
	f.push("a", "b", "c")
	f.travel(nil)
	f.r.deliver(1)
	f.acknowledge()
	f.r = newReceiver(0, 1<<20, 0)
	f.attach(false)
	expect(t, "new instance", f.travel(nil), []string{"b", "c"})
	f.push("d")
	expect(t, "afterwards", f.travel(nil), []string{"d"})
}

// TestFlowForgotten: the same instance has lost its positions, so what had
// travelled may have been delivered or not.
func TestFlowForgotten(t *testing.T) {
	f := newFlowPair(t, 1<<20)
	f.attach(true)
	f.push("a", "b")
	f.travel(nil)
	f.push("c")
	f.r = newReceiver(0, 1<<20, 0)
	expect(t, "outcome unknown", f.attach(true), []string{"a", "b"})
	expect(t, "never sent before", f.travel(nil), []string{"c"})
}

// TestFlowAbandoned: numbers that were given up are skipped, not used again.
func TestFlowAbandoned(t *testing.T) {
	f := newFlowPair(t, 1<<20)
	f.attach(true)
	f.push("a", "b", "c")
	expect(t, "before", f.travel(func(n uint64) bool { return n <= 1 }), []string{"a"})
	expect(t, "given up", f.s.abandon(), []string{"a", "b", "c"})
	f.attach(true)
	f.push("d")
	expect(t, "after", f.travel(nil), []string{"d"})
	if f.r.received != 4 {
		t.Errorf("received up to %d", f.r.received)
	}
	f.r.deliver(1)
	f.r.deliver(4)
	f.acknowledge()
	if f.s.bytes != 0 || f.r.delivered != 4 {
		t.Errorf("%d bytes held, delivered %d", f.s.bytes, f.r.delivered)
	}
}

// TestFlowAbandonedCredit: a skip passes over bytes that the credit was spent
// on, so it needs none itself; otherwise both sides would wait for ever.
func TestFlowAbandonedCredit(t *testing.T) {
	window := uint64(4 * (1 + recordOverhead))
	f := newFlowPair(t, window)
	f.attach(true)
	f.push("a", "b", "c", "d")
	expect(t, "before", f.travel(func(n uint64) bool { return n == 1 }), []string{"a"})
	f.s.abandon()
	f.attach(true)
	f.push("e")
	expect(t, "without credit", f.travel(nil), nil)
	f.r.deliver(1)
	f.acknowledge()
	expect(t, "with the credit that follows the skip", f.travel(nil), []string{"e"})
}

func TestFlowCredit(t *testing.T) {
	window := uint64(3 * (1 + recordOverhead))
	f := newFlowPair(t, window)
	f.s.window = 1 << 20
	f.attach(true)
	f.push("a", "b", "c", "d", "e")
	expect(t, "within credit", f.travel(nil), []string{"a", "b", "c"})
	expect(t, "without credit", f.travel(nil), nil)
	f.acknowledge()
	expect(t, "received is not delivered", f.travel(nil), nil)
	f.r.deliver(2)
	f.acknowledge()
	expect(t, "after delivery", f.travel(nil), []string{"d", "e"})
}

// TestFlowViolations: each is the other side's error.
func TestFlowViolations(t *testing.T) {
	violation := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v", what, err)
		}
	}
	f := newFlowPair(t, 1000)
	f.attach(true)
	f.push("a", "b", "c")
	f.travel(nil)
	_, err := f.s.position(position{Received: 4})
	violation("received what was not sent", err)
	_, err = f.s.position(position{Received: 2, Delivered: 3})
	violation("delivered more than received", err)
	_, _, err = f.s.resume(&position{Received: 9}, true, 1000)
	violation("hello with an impossible position", err)
	_, _, err = f.s.resume(&position{Received: 1}, false, 1000)
	violation("new receiver with a position", err)
	_, err = f.r.record(0, nil)
	violation("record 0", err)
	_, err = f.r.record(5, nil)
	violation("gap", err)
	_, err = f.r.record(4, make([]byte, 1000))
	violation("beyond the credit", err)
	violation("skip to 0", f.r.skipTo(0, 0))
	violation("skip with fewer bytes than received", f.r.skipTo(9, 1))
	violation("skip with absurd bytes", f.r.skipTo(9, 1<<63))
	if fresh, err := f.r.record(3, []byte("c")); fresh || err != nil {
		t.Errorf("repeated record: %v, %v", fresh, err)
	}
}

// TestFlowStale: positions and credit only ever grow.
func TestFlowStale(t *testing.T) {
	f := newFlowPair(t, 1000)
	f.attach(true)
	f.push("a", "b", "c")
	f.travel(nil)
	old, _ := f.r.position()
	f.r.deliver(3)
	f.acknowledge()
	if _, err := f.s.position(old); err != nil {
		t.Fatal(err)
	}
	if f.s.base() != 4 {
		t.Errorf("base went back to %d", f.s.base())
	}
	// A hello that was written before the acknowledgement.
	if _, _, err := f.s.resume(&old, true, 1000); err != nil {
		t.Fatal(err)
	}
	f.push("d")
	expect(t, "after a stale hello", f.travel(nil), []string{"d"})
}

// TestNeverBackToLower: a session that ranks lower than the one in use is taken
// in, for what still comes on it, but data does not move to it, and its hello,
// which may be older, changes nothing.
func TestNeverBackToLower(t *testing.T) {
	l := newLedger("other", testObserver(t), 1<<20, 0, 0)
	l.begin()
	at := func(gen uint64) *session {
		return &session{led: l, order: order{generation: gen}, bind: binding{remoteInst: [16]byte{1}}, wake: make(chan struct{}, 1)}
	}
	hello := &helloBody{FromInstance: [16]byte{1}, Window: 1 << 20, Credit: 1 << 20, State: 1}
	high, low := at(2), at(1)
	for _, s := range []*session{high, low} {
		if _, err := l.attach(s, hello); err != nil {
			t.Fatal(err)
		}
	}
	if l.top != high {
		t.Error("data went back to the lower session")
	}
	higher := at(3)
	if _, err := l.attach(higher, hello); err != nil || l.top != higher {
		t.Errorf("data did not move to the higher session: %v", err)
	}
	// A hello of another instance is newer, whatever its order.
	other := at(1)
	other.bind.remoteInst = [16]byte{2}
	got, err := l.attach(other, &helloBody{FromInstance: [16]byte{2}, Window: 1 << 20, Credit: 1 << 20})
	if err != nil || !got.displaced || l.top != other {
		t.Errorf("new instance: displaced %v, %v", got.displaced, err)
	}
	if _, err := l.attach(at(9), hello); !errors.Is(err, ErrReplaced) {
		t.Errorf("the instance that was replaced comes back: %v", err)
	}
}

func TestLedgersFloor(t *testing.T) {
	ls := newLedgers(testObserver(t), 1<<20, 2)
	first, tenancy := ls.acquire("agent-1")
	for i := range 5 {
		m, err := (Message{ID: fmt.Sprint(i)}).prepare(t.Context(), "me", "agent-1", goldenTime, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := first.push(t.Context(), tenancy, &m, false); err != nil {
			t.Fatal(err)
		}
	}
	first.inst[0] = 1 // as if a session had been attached
	if lost := first.end(nil); len(lost) != 5 {
		t.Errorf("lost %v", lost)
	}
	ls.release(first)
	for i := 2; i <= 3; i++ {
		l, _ := ls.acquire(fmt.Sprint("agent-", i))
		l.inst[0] = 1
		l.end(nil)
		ls.release(l)
	}
	if ls.lookup("agent-1") != nil || ls.lookup("agent-2") == nil || ls.idle.Len() != 2 {
		t.Error("the longest unused ledger was not the one forgotten")
	}
	again, _ := ls.acquire("agent-1")
	if again == first || again.out.next != 6 {
		t.Errorf("numbers start again at %d", again.out.next)
	}
	if again.end(nil); ls.floorBytes == 0 {
		t.Error("byte counts start again")
	}
}

func testObserver(t testing.TB) *observer {
	t.Helper()
	cfg, err := Config{Identity: newIdentity(t, "me"), Trust: newBook(), Signaling: []string{"ws://hub.invalid/"}}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	o, err := newObserver(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	return o
}
