//go:build interop && linux

package mesh

import (
	"testing"
	"time"
)

// TestInteropAddressChange: the address of a real interface changes under a running
// agent. The kernel tells it, and traffic goes on from the new address within a
// second.
func TestInteropAddressChange(t *testing.T) {
	l := newLab(t)
	hosts := map[string]int{"a": 11, "b": 12}
	for _, name := range []string{"a", "b"} {
		l.host(name, hosts[name])
	}
	a, b := l.pair(place{"a", "a"}, place{"b", "b"}, labConfig{})
	messages(t, a, b, 100)
	t.Logf("in peace: longest pause %v", messages(t, a, b, 100))
	for _, who := range []string{"a", "b", "a"} {
		l.in(who, "ip", "addr", "del", public(hosts[who])+"/24", "dev", "eth0")
		hosts[who] += 10
		l.in(who, "ip", "addr", "add", public(hosts[who])+"/24", "dev", "eth0")
		pause := messages(t, a, b, 200)
		t.Logf("%s has another address: longest pause %v", who, millis(pause))
		if pause > time.Second {
			t.Errorf("%s has another address: longest pause %v", who, pause)
		}
	}
	finish(t, a, b)
}
