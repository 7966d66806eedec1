package mesh

import (
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/signaling"
)

// TestAskIsNudged: an ask that is repeated on demand does so a few times and then only
// by its own timer, and the Peer goes on demanding.
func TestAskIsNudged(t *testing.T) {
	inWorld(t, hostileNet, func(w *world) {
		l := newLiar(w, "liar.example")
		defer l.stop()
		a := l.agent("agent-a")
		l.set(onEnvelopes(func(string, *signaling.Sealed) [][]byte { return nil }), nil)
		a.mu.Lock()
		p := a.join("agent-b", true).peer
		a.mu.Unlock()
		defer p.Close()
		p.post(func() { p.startAsk(ReasonDial) })
		for range 3 * maxNudges {
			time.Sleep(10 * time.Millisecond)
			p.post(p.repeat)
		}
		if n := len(l.sent("agent-a", signaling.Ask)); n < maxNudges || n > maxNudges+3 {
			t.Errorf("%d asks were sent, want one, %d on demand and one or two repetitions", n, maxNudges)
		}
	})
}
