package mesh

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/transport/v5"
	"github.com/pion/transport/v5/stdnet"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
)

// madeKeys returns n keys that nobody has the private half of.
func madeKeys(t *testing.T, n int) []keys.PublicKey {
	t.Helper()
	made := make([]keys.PublicKey, n)
	for i := range made {
		b := make([]byte, ed25519.PublicKeySize)
		binary.BigEndian.PutUint32(b, uint32(i)+1)
		k, err := keys.PublicKeyFrom(b)
		if err != nil {
			t.Fatal(err)
		}
		made[i] = k
	}
	return made
}

// keyOfNobody is a key of which nobody has the private half.
func keyOfNobody() keys.PublicKey {
	b := make([]byte, ed25519.PublicKeySize)
	for {
		rand.Read(b) // never fails
		if k, err := keys.PublicKeyFrom(b); err == nil {
			return k
		}
	}
}

// TestReplayMemoryOfKeys: the memory holds so many keys. What is stale by its time makes
// room for others, and what is forgotten may come again.
func TestReplayMemoryOfKeys(t *testing.T) {
	r, now := newReplayMemory(), goldenTime
	made := madeKeys(t, maxNonceKeys+1)
	for _, k := range made[:maxNonceKeys] {
		if v := r.remember(now, k, [16]byte{1}, signaling.Hash{1}, now); v != replayNew {
			t.Fatal(v)
		}
	}
	last := made[maxNonceKeys]
	if v := r.remember(now, last, [16]byte{1}, signaling.Hash{1}, now); v != replayFull || r.knows(last) {
		t.Errorf("beyond the limit of keys: %v", v)
	}
	if !r.knows(made[0]) {
		t.Error("a key is not known")
	}
	// A key that is known is not in the way of itself.
	if v := r.remember(now, made[0], [16]byte{2}, signaling.Hash{1}, now); v != replayNew {
		t.Errorf("another envelope of a known key: %v", v)
	}
	r.forget(made[0], [16]byte{2})
	r.forget(last, [16]byte{2}) // which it does not know
	if v := r.remember(now, made[0], [16]byte{2}, signaling.Hash{1}, now); v != replayNew {
		t.Errorf("a forgotten envelope: %v", v)
	}
	later := now.Add(freshness + time.Millisecond)
	if v := r.remember(later, last, [16]byte{1}, signaling.Hash{1}, later); v != replayNew || len(r.keys) != 1 {
		t.Errorf("when the others are stale: %v, %d keys", v, len(r.keys))
	}
}

// TestPastVerdicts: a verdict is believed for a while, until it ends by itself or trust
// changes; what is remembered has a limit, beyond which it is asked for again.
func TestPastVerdicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, now := newPastVerdicts(), time.Now()
		a := author{"agent-a", madeKeys(t, 1)[0]}
		if _, ok := v.get(a, now); ok {
			t.Error("a verdict that was never given")
		}
		v.put(a, keys.Verdict{Decision: keys.Yes, Until: now.Add(time.Second)})
		if got, ok := v.get(a, now.Add(time.Second-1)); !ok || got.Decision != keys.Yes {
			t.Error("not remembered")
		}
		if _, ok := v.get(a, now.Add(time.Second)); ok {
			t.Error("remembered beyond its end")
		}
		v.put(a, keys.Verdict{Decision: keys.Refused})
		time.Sleep(trustInterval - 1)
		if got, ok := v.get(a, now); !ok || got.Decision != keys.Refused {
			t.Error("not remembered for trustInterval")
		}
		time.Sleep(time.Nanosecond)
		if _, ok := v.get(a, now); ok {
			t.Error("remembered for longer")
		}
		v.put(a, keys.Verdict{Decision: keys.Yes})
		v.forget()
		if _, ok := v.get(a, now); ok {
			t.Error("remembered although trust has changed")
		}
		if !v.tellsOf(a) || v.tellsOf(a) {
			t.Error("an author is not told of once")
		}
		time.Sleep(clockTold)
		if !v.tellsOf(a) {
			t.Error("an author is not told of again")
		}
		if !v.turnedAway(signaling.Hash{1}) || v.turnedAway(signaling.Hash{1}) {
			t.Error("an envelope is not new once")
		}
		b := author{"agent-b", a.key}
		v.put(a, keys.Verdict{Decision: keys.Yes})
		v.put(b, keys.Verdict{Decision: keys.Yes})
		v.tellsOf(b)
		v.turnedAway(signaling.Hash{2})
		if _, ok := v.get(a, now); !ok || v.tellsOf(a) || v.turnedAway(signaling.Hash{1}) {
			t.Error("of two the first is forgotten")
		}
		for i := range 2*maxVerdicts + 10 {
			who := author{fmt.Sprint("agent-", i), a.key}
			v.put(who, keys.Verdict{})
			v.tellsOf(who)
			var h signaling.Hash
			binary.BigEndian.PutUint32(h[:], uint32(i)+7)
			v.turnedAway(h)
			if len(v.all) > maxVerdicts || len(v.told) > maxVerdicts || len(v.away) > maxVerdicts {
				t.Fatalf("%d, %d and %d are remembered", len(v.all), len(v.told), len(v.away))
			}
			if _, ok := v.get(who, now); !ok || v.tellsOf(who) || v.turnedAway(h) {
				t.Fatal("the newest is not remembered")
			}
		}
	})
}

// TestRelayComesBack: a relay that works again begins an attempt wherever one is missing.
func TestRelayComesBack(t *testing.T) {
	for _, c := range []struct {
		state         State
		met, dialling bool
		busy          bool
		want          string
	}{
		{StateUnreachable, true, false, false, "connecting, TRY returned"},
		{StateRecovering, true, false, false, "TRY returned"},
		{StateSuspect, true, false, false, "TRY silence"},
		{StateConnecting, true, false, false, "TRY silence"},
		{StateConnecting, false, true, false, "TRY silence"},
		{StateConnecting, false, false, false, ""},
		{StateConnected, true, false, false, ""},
		{StateReplacing, true, false, false, ""},
		{StateUnreachable, true, false, true, ""},
		{StateRecovering, true, false, true, ""},
		{StateSuspect, true, false, true, ""},
		{StateConnecting, true, true, true, ""},
	} {
		m := testMachine()
		m.state, m.met, m.dialling, m.reason, m.due = c.state, c.met, c.dialling, ReasonSilence, time.Unix(1e9, 0)
		if st := m.relaysChanged(c.busy); st.summary() != c.want {
			t.Errorf("%v, met %v, dialling %v, busy %v: %q", c.state, c.met, c.dialling, c.busy, st.summary())
		}
		if c.state == StateUnreachable && m.due.IsZero() == c.busy {
			t.Errorf("%v, busy %v: the next attempt is due at %v", c.state, c.busy, m.due)
		}
	}
}

// TestUnreachableTriesAgain: what is due while the Peer is unreachable makes an attempt,
// unless one is under way: then it is due again later.
func TestUnreachableTriesAgain(t *testing.T) {
	now := time.Unix(1e9, 0)
	for _, busy := range []bool{false, true} {
		m := testMachine()
		m.state, m.met, m.due, m.answered, m.parted = StateUnreachable, true, now, now, true
		if st := m.wake(now.Add(-1), busy); st.summary() != "" || !m.due.Equal(now) {
			t.Errorf("too early: %q, due %v", st.summary(), m.due)
		}
		st := m.wake(now, busy)
		if busy && (st.summary() != "" || !m.due.Equal(now.Add(unreachablePause))) || !busy && (st.summary() != "connecting, TRY returned" || !m.due.IsZero()) {
			t.Errorf("busy %v: %q, due %v", busy, st.summary(), m.due)
		}
	}
}

// TestFamilies: a network has the families of its addresses that lead elsewhere, or any
// when it cannot tell.
func TestFamilies(t *testing.T) {
	if four, six := families(nil); !four || !six {
		t.Error("no network has not both")
	}
	for _, c := range []struct {
		list      []hardware
		err       error
		four, six bool
	}{
		{[]hardware{{"eth0", isUp, []string{"10.0.0.1/8"}}}, nil, true, false},
		{[]hardware{{"eth0", isUp, []string{"2001:db8::1/64", "fe80::1/64"}}}, nil, false, true},
		{[]hardware{{"eth0", isUp, []string{"10.0.0.1/8"}}, {"eth1", isUp, []string{"2001:db8::1/64"}}}, nil, true, true},
		{nil, net.ErrClosed, true, true},
	} {
		n := &listedNet{list: c.list, err: c.err}
		if four, six := families(n); four != c.four || six != c.six {
			t.Errorf("%v, %v: %v, %v", c.list, c.err, four, six)
		}
	}
}

// listedNet is a network of which only the interfaces are known.
type listedNet struct {
	transport.Net
	list []hardware
	err  error
}

func (n *listedNet) Interfaces() ([]*transport.Interface, error) {
	if n.err != nil {
		return nil, n.err
	}
	return interfaces(n.list...), nil
}

// TestFilterWithoutInterfaces: where interfaces cannot be listed nothing passes a filter,
// and the error is the system's.
func TestFilterWithoutInterfaces(t *testing.T) {
	away := errors.New("the interfaces cannot be listed")
	n := &listedNet{Net: new(stdnet.Net), list: []hardware{{"eth0", isUp, []string{"10.0.0.1/8"}}}}
	f, err := FilterNet(n, NetFilter{Address: netip.Addr.Is4})
	if err != nil {
		t.Fatal(err)
	}
	n.err = away
	if _, err := f.Interfaces(); !errors.Is(err, away) {
		t.Errorf("Interfaces: %v", err)
	}
	if c, err := f.ListenPacket("udp4", "0.0.0.0:0"); !errors.Is(err, away) {
		t.Errorf("ListenPacket: %v, %v", c, err)
	}
	if c, err := f.ListenUDP("udp4", nil); !errors.Is(err, away) {
		t.Errorf("ListenUDP: %v, %v", c, err)
	}
}

// TestConfigFields: what Listen refuses is named by its field.
func TestConfigFields(t *testing.T) {
	good := func() Config {
		return Config{Identity: newIdentity(t, "agent-a"), Trust: newBook(), Signaling: []string{"ws://s1/"}}
	}
	for _, c := range []struct {
		field  string
		change func(c *Config)
	}{
		{"", func(*Config) {}},
		{"", func(c *Config) { c.Window = minWindow }},
		{"", func(c *Config) { c.Window = 1 << 40 }},
		{"Window", func(c *Config) { c.Window = minWindow - 1 }},
		{"Window", func(c *Config) { c.Window = 1<<40 + 1 }},
		{"Mesh", func(c *Config) { c.Mesh = "not a mesh" }},
		{"Signaling", func(c *Config) { c.Signaling = nil }},
		{"Identity", func(c *Config) { c.Identity = nil }},
		{"Trust", func(c *Config) { c.Trust = nil }},
		{"Paths.StandbyAfter", func(c *Config) { c.Paths.StandbyAfter = -5 * time.Second }},
	} {
		cfg := good()
		c.change(&cfg)
		_, err := cfg.withDefaults()
		var ce *ConfigError
		if errors.As(err, &ce); c.field == "" && err != nil || c.field != "" && (ce == nil || ce.Field != c.field) {
			t.Errorf("%s: %v", c.field, err)
		}
	}
	for in, want := range map[time.Duration]time.Duration{0: time.Second, AtOnce: 0, Never: Never, time.Minute: time.Minute} {
		if p, err := (Paths{StandbyAfter: in}).withDefaults(); err != nil || p.StandbyAfter != want {
			t.Errorf("StandbyAfter %v is %v, %v", in, p.StandbyAfter, err)
		}
	}
}

// TestDeepHandler: a Handler knows where it is however deep its own calls go.
func TestDeepHandler(t *testing.T) {
	closed := make(chan error, 1)
	var deep func(p *Peer, n int) error
	deep = func(p *Peer, n int) error {
		if n > 0 {
			return deep(p, n-1)
		}
		return p.Close() // would wait for itself otherwise
	}
	inHub(t, func(t *testing.T, h *hub, a, b *Node) {
		p, err := a.Dial(t.Context(), b.ID())
		if err != nil {
			t.Fatal(err)
		}
		tell(t, p, "close")
		select {
		case <-p.Context().Done():
		case <-time.After(time.Minute):
			t.Fatal("Close in a Handler does not return")
		}
		if err := <-closed; err != nil {
			t.Error(err)
		}
	}, func(c *Config) {
		c.Handler = func(_ context.Context, p *Peer, _ Message) { closed <- deep(p, 500) }
	})
}

// TestPeerWithoutSession: figures of a session are zero when there is none; what was tried
// is remembered to a limit, the newest of it, and nothing twice in a row.
func TestPeerWithoutSession(t *testing.T) {
	p := stillPeer(t)
	if p.RTT() != 0 || p.Packets() != (Packets{}) {
		t.Errorf("%v, %+v", p.RTT(), p.Packets())
	}
	if c := p.changes.last(); c.State != StateConnecting || c.From != StateConnecting {
		t.Errorf("%+v", c)
	}
	for i := range maxTried + 3 {
		p.note(fmt.Sprint(i))
		p.note(fmt.Sprint(i))
	}
	h := p.history()
	if len(h) != maxTried || h[0] != "3" || h[maxTried-1] != fmt.Sprint(maxTried+2) {
		t.Errorf("%q", h)
	}
	if !strings.Contains(p.latest(), fmt.Sprint(maxTried+2)) {
		t.Error(p.latest())
	}
}

// TestRTT: a session in use measures its round trip.
func TestRTT(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub, a, b *Node) {
		p, q := meet(t, a, b)
		tell(t, p, "one")
		hear(t, q, "one")
		time.Sleep(3 * time.Second)
		if p.RTT() <= 0 || q.RTT() <= 0 {
			t.Errorf("round trips of %v and %v", p.RTT(), q.RTT())
		}
	})
}
