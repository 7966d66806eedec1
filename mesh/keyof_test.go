package mesh

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/keys"
)

// finder is a policy that lists keys and says no to each.
type finder struct {
	keys []keys.PublicKey
	err  error
}

func (finder) Check(context.Context, keys.Claim) (keys.Verdict, error) {
	return keys.Verdict{Decision: keys.Refused}, nil
}

func (f finder) Find(context.Context, string) ([]keys.PublicKey, error) { return f.keys, f.err }

// TestKeyOf: an offer is for the one key that the policy lists.
func TestKeyOf(t *testing.T) {
	one, two := newIdentity(t, "agent-b").PublicKey(), newIdentity(t, "agent-b").PublicKey()
	for name, c := range map[string]struct {
		trust keys.Trust
		want  keys.PublicKey
	}{
		"one":           {finder{keys: []keys.PublicKey{one}}, one},
		"two":           {finder{keys: []keys.PublicKey{one, two}}, keys.PublicKey{}},
		"none":          {finder{}, keys.PublicKey{}},
		"no answer":     {finder{[]keys.PublicKey{one}, errors.New("it is down")}, keys.PublicKey{}},
		"it cannot say": {newBook(), keys.PublicKey{}},
	} {
		p := stillPeer(t)
		p.node.cfg.Trust = c.trust
		if got := p.node.keyOf(t.Context(), "agent-b"); got != c.want {
			t.Errorf("%s: %v", name, got.Fingerprint())
		}
	}
}

// TestStillTrusted: a key that is not trusted any more is told, but not by a Node that
// closes: its policy may be gone.
func TestStillTrusted(t *testing.T) {
	p := stillPeer(t)
	p.node.cfg.Trust = finder{}
	key := newIdentity(t, "agent-b").PublicKey()
	if err := p.node.stillTrusted("agent-b", key); !errors.Is(err, ErrUntrusted) {
		t.Errorf("refused: %v", err)
	}
	p.node.cancel(net.ErrClosed)
	if err := p.node.stillTrusted("agent-b", key); err != nil {
		t.Errorf("by a Node that closes: %v", err)
	}
}

// TestPreparedTime: a message has the time that its reader will see.
func TestPreparedTime(t *testing.T) {
	none := func(context.Context) string { return "" }
	now := time.Date(2026, 11, 27, 23, 0, 0, 123_456_789, time.FixedZone("far", 3600))
	want := time.Date(2026, 11, 27, 22, 0, 0, 123_000_000, time.UTC)
	for _, m := range []Message{{}, {Timestamp: now}} {
		got, err := m.prepare(t.Context(), "agent-a", "agent-b", now, none)
		if err != nil || got.Timestamp != want {
			t.Errorf("%v: %v, %v", m.Timestamp, got.Timestamp, err)
		}
	}
	var at time.Time
	var me *MessageError
	if err := timestamp("timestamp", []byte("5"), &at); !errors.As(err, &me) || me.Reason != "is a number, not a string" || !at.IsZero() {
		t.Errorf("a number: %v", err)
	}
}

// TestRelayWait: how long an attempt waits for a direct path.
func TestRelayWait(t *testing.T) {
	for name, c := range map[string]struct {
		change func(a *attempt)
		want   time.Duration
	}{
		"first contact":      {func(*attempt) {}, 5 * time.Second},
		"a replacement":      {func(a *attempt) { a.replaces = true }, replaceRelayWait},
		"relayed before":     {func(a *attempt) { a.relayed = true }, 0},
		"relayed, replacing": {func(a *attempt) { a.relayed, a.replaces = true, true }, 0},
		"relays only":        {func(a *attempt) { a.peer.node.cfg.Paths.RelayOnly = true }, 0},
	} {
		p := stillPeer(t)
		p.node.cfg.TURN = fixedRelays{{URL: "turn:192.0.2.1", Username: "u", Password: "p"}}
		a := newAttempt(p, order{}, true)
		c.change(a)
		if o, err := a.options(t.Context()); err != nil || o.relayWait != c.want || a.relayWait != c.want {
			t.Errorf("%s: %v and %v, %v", name, o.relayWait, a.relayWait, err)
		}
	}
}
