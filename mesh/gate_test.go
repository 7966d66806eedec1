package mesh

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
)

// arrivalOf is an envelope of an author as the gate sees it.
func arrivalOf(t *testing.T, id *keys.Identity, number uint64) arrival {
	t.Helper()
	e, err := signaling.Seal(id, signaling.Envelope{Kind: signaling.Offer, Mesh: "default", To: "agent-a",
		Instance: signaling.NewInstance(), Generation: number, Time: time.Now(), Body: []byte{1}})
	if err != nil {
		t.Fatal(err)
	}
	return arrival{Sealed: e}
}

// TestGate: one at a time and in order for each author, several authors at once, by turns,
// never more than there are places, and nothing left behind.
func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		judged, busy, running, most := map[string][]uint64{}, map[string]bool{}, 0, 0
		g := newGate(func(a arrival) {
			mu.Lock()
			if busy[a.From] {
				t.Errorf("two of %s at a time", a.From)
			}
			busy[a.From] = true
			running++
			most = max(most, running)
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			defer mu.Unlock()
			busy[a.From] = false
			running--
			judged[a.From] = append(judged[a.From], a.Generation)
		})
		run := func(f func()) { go f() }
		const authors, each = maxJudging + 10, 3
		for i := range authors {
			id := newIdentity(t, fmt.Sprintf("agent-%d", i))
			for n := range uint64(each) {
				if !g.enter(arrivalOf(t, id, n+1), true, run) {
					t.Fatal("no room")
				}
			}
		}
		stranger := newIdentity(t, "stranger")
		g.enter(arrivalOf(t, stranger, 1), false, run)
		if !g.holds("stranger") || !g.holds("agent-0") || g.holds("agent") {
			t.Error("who waits is not known")
		}
		time.Sleep(1500 * time.Millisecond)
		mu.Lock()
		if len(judged["stranger"]) != 1 {
			t.Error("a stranger waits behind friends")
		}
		mu.Unlock()
		time.Sleep(time.Minute)
		mu.Lock()
		if most != maxJudging+1 {
			t.Errorf("%d at a time", most)
		}
		for i := range authors {
			if got := fmt.Sprint(judged[fmt.Sprintf("agent-%d", i)]); got != "[1 2 3]" {
				t.Errorf("agent-%d: %s", i, got)
			}
		}
		mu.Unlock()
		g.mu.Lock()
		if len(g.authors)+len(g.names)+len(g.friends.waiting)+g.friends.bytes+g.friends.running+g.strangers.bytes != 0 {
			t.Error("something is left")
		}
		g.mu.Unlock()
		// One author has so much room and no more, and takes nobody else's.
		full := 0
		for n := range uint64(2 * maxAuthorItems) {
			if !g.enter(arrivalOf(t, stranger, n), false, run) {
				full++
			}
		}
		if full != maxAuthorItems || !g.enter(arrivalOf(t, newIdentity(t, "another"), 1), false, run) {
			t.Errorf("%d of %d found no room", full, 2*maxAuthorItems)
		}
		time.Sleep(time.Hour)
	})
}
