package signaling

import (
	"fmt"
	"testing"

	"github.com/infrafabric/agentmesh/keys"
)

func testKey(t *testing.T, seed byte) keys.PublicKey {
	t.Helper()
	return fixedIdentity(t, "agent", seed).PublicKey()
}

// drain decodes everything that waits.
func (o *outbox) drain(t *testing.T) (out []any) {
	t.Helper()
	for {
		b, _ := o.next()
		if b == nil {
			return out
		}
		m, err := decodeMessage(b)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, m)
	}
}

func TestOutboxLimits(t *testing.T) {
	msg := Notice{Code: CodeRefused}.encode()
	env := encodeEnvelopeMsg([]byte("x"))
	o := newOutbox(16)
	a, b, c := testKey(t, 1), testKey(t, 2), testKey(t, 3)
	count := func(k keys.PublicKey) int {
		for n := 0; ; n++ {
			if ok, _ := o.pushEnvelope(env, k); !ok {
				return n
			}
		}
	}
	if n := count(a); n != 4 {
		t.Errorf("one author put %d envelopes in, want a quarter of 16", n)
	}
	if n := count(b); n != 4 {
		t.Errorf("a second one %d, want 4", n)
	}
	if n := count(c); n != 0 {
		t.Errorf("a third one %d, want 0 beyond the half", n)
	}
	for n := range 8 {
		if !o.push(msg) {
			t.Fatalf("message %d has no room", n)
		}
	}
	if o.push(msg) || o.pushPresence(joined, presentAgent{Agent: "a", Key: a.Bytes()}) {
		t.Error("a full queue takes more")
	}
	ok, room := o.pushEnvelope(env, a)
	if ok || room == nil {
		t.Fatal("no way to wait for room")
	}
	if got := len(o.drain(t)); got != 16 {
		t.Errorf("%d messages, want 16", got)
	}
	select {
	case <-room:
	default:
		t.Error("nobody was told of room")
	}
	if n := count(a); n != 4 || o.bytes != 4*len(env) {
		t.Errorf("after draining: %d envelopes, %d bytes", n, o.bytes)
	}
	o.finish(msg)
	o.finish(msg)
	if ok, room := o.pushEnvelope(env, b); ok || room != nil || !o.push(msg) {
		t.Error("a finished queue takes an envelope, or counts as full")
	}
	if got := len(o.drain(t)); got != 5 {
		t.Errorf("%d messages after finish, want 5", got)
	}
	if _, finished := o.next(); !finished || o.bytes != 0 || len(o.senders) != 0 {
		t.Errorf("at the end: finished %t, %d bytes, %d senders", finished, o.bytes, len(o.senders))
	}
}

func TestOutboxBytes(t *testing.T) {
	o := newOutbox(1_000_000)
	n := 0
	for msg := make([]byte, 100_000); o.push(msg); n++ {
	}
	if n != outboxBytes/100_000 {
		t.Errorf("%d messages of 100 kB", n)
	}
	// A last word is always sent.
	o.finish(Notice{Code: CodeDraining}.encode())
	if n := len(o.items); n != outboxBytes/100_000+1 {
		t.Errorf("%d items", n)
	}
}

func TestOutboxJoinsPresence(t *testing.T) {
	o := newOutbox(16)
	key := testKey(t, 1).Bytes()
	for i := range 300 {
		o.pushPresence(joined, presentAgent{Agent: fmt.Sprint("agent-", i), Key: key})
	}
	o.pushPresence(left, presentAgent{Agent: "agent-0", Key: key})
	o.push(Notice{Code: CodeRefused}.encode())
	o.pushPresence(left, presentAgent{Agent: "agent-1", Key: key})
	var sizes []int
	for _, m := range o.drain(t) {
		if p, ok := m.(*presenceMsg); ok {
			sizes = append(sizes, len(p.Agents))
		} else {
			sizes = append(sizes, 0)
		}
	}
	if got := fmt.Sprint(sizes); got != "[128 128 44 1 0 1]" {
		t.Errorf("batches %s", got)
	}
	if o.bytes != 0 {
		t.Errorf("%d bytes left", o.bytes)
	}
}

// TestHalfOfTheBytes: envelopes take half of the bytes and no more, whoever wrote them.
func TestHalfOfTheBytes(t *testing.T) {
	o := newOutbox(1_000_000)
	msg := make([]byte, outboxBytes/8)
	for i := range 5 {
		if ok, _ := o.pushEnvelope(msg, testKey(t, byte(1+i))); ok != (i < 4) {
			t.Errorf("envelope %d of an eighth: %v", i, ok)
		}
	}
	if !o.push(msg) {
		t.Error("the other half has no room")
	}
}

// TestRegistryForgets: of who has left nothing stays, not even his mesh.
func TestRegistryForgets(t *testing.T) {
	g := newRegistry()
	c := &conn{reg: Registration{Mesh: "m", Agent: "agent-a", Key: testKey(t, 1)}, out: newOutbox(16)}
	if _, ok := g.add(c); !ok {
		t.Fatal("not registered")
	}
	if !g.remove(c) || g.local != 0 || len(g.realms) != 0 {
		t.Errorf("%d local, realms %v", g.local, g.realms)
	}
	if g.remove(c) || g.local != 0 || len(g.realms) != 0 {
		t.Errorf("once more: %d local, realms %v", g.local, g.realms)
	}
}
