//go:build interop && linux

package mesh

import (
	"testing"
	"time"
)

// TestInteropNAT: two agents behind symmetric NATs meet by a relay, and only by a
// relay. When their NATs let others in they move to the direct path, and lose
// nothing.
func TestInteropNAT(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.home("a", 11, symmetric)
	l.home("b", 12, symmetric)
	l.coturn("s", labFirst, append(static, "--no-tls")...)
	paths := Paths{RelayAfter: 500 * time.Millisecond, DirectEvery: time.Second, DirectMost: time.Second}
	stun := []string{"stun:" + labFirst + ":3478"}

	// 1. Two without a relay, beside the others, which have one.
	const limit = 10 * time.Second
	c, d := l.pair(place{"c", "a"}, place{"d", "b"}, labConfig{STUN: stun, DialFor: limit})
	a, b := l.pair(place{"a", "a"}, place{"b", "b"}, labConfig{STUN: stun, Paths: paths, TURN: []labRelay{{URL: "turn:" + labFirst + ":3478"}}})
	messages(t, a, b, 1)
	t.Logf("by the relay after %v", millis(a.since.Sub(a.began)))
	t.Logf("by the relay: longest pause %v", millis(messages(t, a, b, 200)))
	if !relayed(a, b) {
		t.Error("a direct path between symmetric NATs")
	}
	until(t, 2*limit, "the two without a relay give up", func() bool { return c.is(func() bool { return c.unreached != "" }) })
	t.Logf("without a relay: %s", c.unreached)
	if d.is(func() bool { return c.got+d.got > 0 || d.state != "" }) {
		t.Error("a connection without a relay between symmetric NATs")
	}

	// 2. The NATs open.
	messages(t, a, b, 1)
	opened := time.Now()
	l.rules("a", fullCone(11))
	l.rules("b", fullCone(12))
	until(t, labLimit, "a direct path", func() bool { return !relayed(a, b) })
	pause := messages(t, a, b, 100)
	t.Logf("the direct path %v after the NATs opened: longest pause %v", millis(a.since.Sub(opened)), millis(pause))
	if pause > time.Second {
		t.Errorf("a pause of %v", pause)
	}
	if relayed(a, b) {
		t.Error("back on the relay")
	}
	finish(t, a, b)
	// Who had no relay shows that the NATs were what was in the way.
	messages(t, c, d, 1)
}

// TestInteropNoUDP: agents on a relay lose UDP to a firewall and move to TLS; others
// begin there.
func TestInteropNoUDP(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.home("a", 11, symmetric)
	l.home("b", 12, symmetric)
	ca := newAuthority(t, labFirst)
	l.coturn("s", labFirst, append(static, ca.args()...)...)
	// limit includes that the pools find out that UDP is lost.
	const limit = 5 * time.Second
	relays := labConfig{Paths: Paths{RelayAfter: AtOnce, DirectEvery: Never}, TURN: []labRelay{
		{URL: "turn:" + labFirst + ":3478"}, {URL: "turns:" + labFirst + ":443?transport=tcp", CA: ca.CA}}}
	a, b := l.pair(place{"a", "a"}, place{"b", "b"}, relays)
	messages(t, a, b, 100)
	for _, home := range []string{"a", "b"} {
		l.rules(home, symmetric+dropUDP)
	}
	pause := messages(t, a, b, 200)
	t.Logf("UDP is dropped: longest pause %v", millis(pause))
	if pause > limit {
		t.Errorf("a pause of %v", pause)
	}
	if !relayed(a, b) || l.connections(labFirst+":443") == 0 {
		t.Error("not over TLS")
	}
	finish(t, a, b)

	c, d := l.pair(place{"c", "a"}, place{"d", "b"}, relays)
	messages(t, c, d, 1)
	took := c.since.Sub(c.began)
	t.Logf("without UDP: by the relay after %v", millis(took))
	if took > limit {
		t.Errorf("connected after %v", took)
	}
	t.Logf("without UDP: longest pause %v", millis(messages(t, c, d, 100)))
	finish(t, c, d)
}
