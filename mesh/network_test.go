package mesh

import (
	"os"
	"testing"
)

// TestListenLeavesNothing: a Listen that fails after it began to watch the network
// lets go of what it opened.
func TestListenLeavesNothing(t *testing.T) {
	open := func() int {
		d, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			return 0 // not this system; the call below is made all the same
		}
		return len(d)
	}
	id := newIdentity(t, "agent-a")
	before := open()
	for range 20 {
		_, err := Listen(t.Context(), Config{Identity: id, Trust: newBook(id), Signaling: []string{"gopher://s1/"}})
		if err == nil {
			t.Fatal("listens at a server that is none")
		}
	}
	if after := open(); after > before+5 {
		t.Errorf("%d files open, %d before", after, before)
	}
}
