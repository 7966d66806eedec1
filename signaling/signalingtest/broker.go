package signalingtest

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
)

// patience is how long the suite waits for something that must happen. A
// broker that works is never that slow, so the length costs nothing.
const patience = 10 * time.Second

// TestBroker checks the contract of [signaling.Broker], [signaling.BrokerMember]
// and [signaling.BrokerHandler]. newPair returns two views of one new, empty
// broker: two connections to the same server, or the same broker twice if it
// lives in this process. It is called once for each part of the suite.
func TestBroker(t *testing.T, newPair func(t *testing.T) (a, b signaling.Broker)) {
	for name, test := range map[string]func(t *testing.T, a, b signaling.Broker){
		"Snapshot":        testSnapshot,
		"Order":           testOrder,
		"Count":           testCount,
		"Forward":         testForward,
		"ForwardToNobody": testForwardToNobody,
		"ForwardOnce":     testForwardOnce,
		"Close":           testClose,
		"Concurrency":     testConcurrency,
	} {
		t.Run(name, func(t *testing.T) {
			a, b := newPair(t)
			test(t, a, b)
		})
	}
}

// member is a member whose handler writes everything down.
type member struct {
	signaling.BrokerMember
	t      *testing.T
	name   string
	events chan event
}

type event struct {
	r        signaling.Registration
	present  bool
	envelope []byte // nil for presence
}

func (e event) String() string {
	if e.envelope != nil {
		return fmt.Sprintf("envelope %q for %s", e.envelope, e.r.Agent)
	}
	return fmt.Sprintf("%s present: %t", e.r.Agent, e.present)
}

func join(t *testing.T, b signaling.Broker, name string) *member {
	t.Helper()
	m := &member{t: t, name: name, events: make(chan event, 4096)}
	bm, err := b.Join(signaling.BrokerHandler{
		Presence: func(r signaling.Registration, present bool) { m.events <- event{r: r, present: present} },
		Envelope: func(r signaling.Registration, e []byte) { m.events <- event{r: r, envelope: e} },
	})
	if err != nil {
		t.Fatal(err)
	}
	m.BrokerMember = bm
	t.Cleanup(func() { bm.Close() })
	return m
}

// registration returns one with a key of its own.
func registration(t *testing.T, agent string) signaling.Registration {
	t.Helper()
	pub, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	k, err := keys.PublicKeyFrom(pub)
	if err != nil {
		t.Fatal(err)
	}
	return signaling.Registration{Mesh: "m", Agent: agent, Key: k}
}

func (m *member) announce(r signaling.Registration, present bool) {
	m.t.Helper()
	if err := m.Announce(r, present); err != nil {
		m.t.Fatalf("%s: Announce: %v", m.name, err)
	}
}

func (m *member) forward(r signaling.Registration, envelope string) {
	m.t.Helper()
	b := []byte(envelope)
	if err := m.Forward(r, b); err != nil {
		m.t.Fatalf("%s: Forward: %v", m.name, err)
	}
	clear(b) // the broker must not keep it
}

// next returns the next event.
func (m *member) next() event {
	m.t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case e := <-m.events:
		return e
	case <-timeout.C:
		m.t.Fatalf("%s: nothing came within %v", m.name, patience)
		panic("unreachable")
	}
}

// wantPresence fails the test unless exactly this is the next event.
func (m *member) wantPresence(r signaling.Registration, present bool) {
	m.t.Helper()
	if e := m.next(); e.envelope != nil || e.r != r || e.present != present {
		m.t.Fatalf("%s: got %v, want %s present: %t", m.name, e, r.Agent, present)
	}
}

// wantEnvelope fails the test unless exactly this is the next event.
func (m *member) wantEnvelope(r signaling.Registration, envelope string) {
	m.t.Helper()
	if e := m.next(); e.r != r || !bytes.Equal(e.envelope, []byte(envelope)) {
		m.t.Fatalf("%s: got %v, want %q for %s", m.name, e, envelope, r.Agent)
	}
}

// fence shows that nothing else has come to the members: something that from
// announces now is their next event.
func fence(t *testing.T, from *member, to ...*member) {
	t.Helper()
	r := registration(t, "fence")
	from.announce(r, true)
	from.announce(r, false)
	for _, m := range to {
		m.wantPresence(r, true)
		m.wantPresence(r, false)
	}
}

// Who joins learns what was announced before.
func testSnapshot(t *testing.T, a, b signaling.Broker) {
	first := join(t, a, "first")
	want := map[signaling.Registration]bool{}
	for i := range 3 {
		r := registration(t, fmt.Sprint("agent-", i))
		first.announce(r, true)
		want[r] = true
	}
	gone := registration(t, "gone")
	first.announce(gone, true)
	first.announce(gone, false)

	second := join(t, b, "second")
	for len(want) > 0 {
		e := second.next()
		if !e.present && e.r == gone { // a broker without memory may tell it all
			continue
		}
		if !e.present || !want[e.r] {
			t.Fatalf("the snapshot contains %v", e)
		}
		delete(want, e.r)
	}
	fence(t, first, second)
}

// Changes come in order, to others only.
func testOrder(t *testing.T, a, b signaling.Broker) {
	first, second := join(t, a, "first"), join(t, b, "second")
	r := registration(t, "agent-a")
	for range 50 {
		first.announce(r, true)
		first.announce(r, false)
	}
	for range 50 {
		second.wantPresence(r, true)
		second.wantPresence(r, false)
	}
	fence(t, second, first)
}

// A registration at several members is present while one of the others has it.
func testCount(t *testing.T, a, b signaling.Broker) {
	one, two, observer := join(t, a, "one"), join(t, b, "two"), join(t, b, "observer")
	r := registration(t, "agent-a")
	one.announce(r, true)
	observer.wantPresence(r, true)
	two.wantPresence(r, true)
	two.announce(r, true)
	one.wantPresence(r, true)
	one.announce(r, false)
	two.wantPresence(r, false)   // nobody but itself has it
	fence(t, one, two, observer) // for the observer somebody still has it
	two.announce(r, false)
	observer.wantPresence(r, false)
}

// Envelopes go to the member that has the registration, whole and in order.
func testForward(t *testing.T, a, b signaling.Broker) {
	first, second := join(t, a, "first"), join(t, b, "second")
	r := registration(t, "agent-a")
	first.announce(r, true)
	second.wantPresence(r, true)
	second.forward(r, "one")
	second.forward(r, "two")
	first.wantEnvelope(r, "one")
	first.wantEnvelope(r, "two")
	big := string(bytes.Repeat([]byte{0, 'x', 0xff}, signaling.MaxEnvelope/3))
	second.forward(r, big)
	first.wantEnvelope(r, big)
	fence(t, first, second)
}

// An envelope for what nobody, nobody any more, or only the sender has is lost
// without an error.
func testForwardToNobody(t *testing.T, a, b signaling.Broker) {
	first, second := join(t, a, "first"), join(t, b, "second")
	own, gone := registration(t, "own"), registration(t, "gone")
	first.announce(own, true)
	second.wantPresence(own, true)
	first.announce(gone, true)
	second.wantPresence(gone, true)
	first.announce(gone, false)
	second.wantPresence(gone, false)

	first.forward(own, "to itself")
	second.forward(gone, "to nobody any more")
	second.forward(registration(t, "nobody"), "to nobody")
	second.forward(own, "fence")
	first.wantEnvelope(own, "fence")
	fence(t, second, first)
}

// With several members at least one gets it, and none twice.
func testForwardOnce(t *testing.T, a, b signaling.Broker) {
	one, two, sender := join(t, a, "one"), join(t, b, "two"), join(t, a, "sender")
	r := registration(t, "agent-a")
	one.announce(r, true)
	two.wantPresence(r, true)
	sender.wantPresence(r, true)
	two.announce(r, true)
	one.wantPresence(r, true)

	sender.forward(r, "x")
	// A fence for each: what comes before it is a copy.
	end := registration(t, "end")
	sender.announce(end, true)
	copies := 0
	for _, m := range []*member{one, two} {
		n := 0
		for e := m.next(); e.r != end; e = m.next() {
			if e.envelope == nil {
				t.Fatalf("%s: %v", m.name, e)
			}
			n++
		}
		if n > 1 {
			t.Errorf("%s got %d copies", m.name, n)
		}
		copies += n
	}
	if copies == 0 {
		t.Error("nobody got it")
	}
}

// Close withdraws, ends the handler's calls, and is final.
func testClose(t *testing.T, a, b signaling.Broker) {
	first, second := join(t, a, "first"), join(t, b, "second")
	r, other := registration(t, "agent-a"), registration(t, "agent-b")
	first.announce(r, true)
	second.wantPresence(r, true)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second.wantPresence(r, false)
	if err := first.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if err := first.Announce(r, true); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Announce after Close: %v", err)
	}
	if err := first.Forward(r, []byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Forward after Close: %v", err)
	}
	third := join(t, a, "third")
	second.announce(other, true)
	third.wantPresence(other, true)
	select {
	case e := <-first.events:
		t.Errorf("after Close: %v", e)
	default:
	}
}

// Everything may be called at the same time; the last word is the true one.
func testConcurrency(t *testing.T, a, b signaling.Broker) {
	first, second := join(t, a, "first"), join(t, b, "second")
	const agents, rounds = 8, 25
	var rs [agents]signaling.Registration
	for i := range rs {
		rs[i] = registration(t, fmt.Sprint("agent-", i))
	}
	var wg sync.WaitGroup
	for i := range rs {
		wg.Go(func() {
			for range rounds {
				if err := errors.Join(first.Announce(rs[i], true), second.Forward(rs[i], []byte("x")), first.Announce(rs[i], false)); err != nil {
					t.Error(err)
				}
			}
			if err := first.Announce(rs[i], true); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	state := map[signaling.Registration]bool{}
	changes := map[signaling.Registration]int{}
	for range agents * (2*rounds + 1) {
		e := second.next()
		if was, known := state[e.r]; known && was == e.present || !known && !e.present {
			t.Fatalf("%v twice in a row", e)
		}
		state[e.r] = e.present
		changes[e.r]++
	}
	for _, r := range rs {
		if !state[r] || changes[r] != 2*rounds+1 {
			t.Errorf("%s: present %t after %d changes", r.Agent, state[r], changes[r])
		}
	}
}
