//go:build unix

package chaos

import (
	"flag"
	"testing"
	"time"
)

var (
	rounds = flag.Int("rounds", 6, "how many faults TestChaos makes")
	seed   = flag.Uint64("seed", 0, "what TestChaos does; 0 is the time of day")
)

// maxGap is how long nothing may be delivered between two agents that a fault does
// not hit. It leaves room for a machine that is busy with other things: without
// such, it is some milliseconds.
const maxGap = 5 * time.Second

// TestChaos kills and stops processes while they talk. It takes two to three
// seconds a round.
func TestChaos(t *testing.T) {
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	t.Logf("%d rounds; again: -rounds %d -seed %d", *rounds, *rounds, *seed)
	w := newTown(t)
	w.begin()
	var recoveries, gaps [kinds]times
	var changes [kinds]int
	for i, f := range plan(*seed, *rounds, len(w.agents), len(w.servers)) {
		w.round = i + 1
		o := w.run(f)
		t.Logf("round %d: %s: recovered in %v; those not hit: longest gap %v, %d changes",
			w.round, f.words(w.names), short(o.recovery), short(o.gap), o.changes)
		recoveries[f.kind], gaps[f.kind] = append(recoveries[f.kind], o.recovery), append(gaps[f.kind], o.gap)
		changes[f.kind] += o.changes
		if o.gap > maxGap {
			w.fatal("nothing was delivered for %v between agents that were not hit", o.gap)
		}
	}
	w.round = 0
	a := w.settle()

	for k := range kinds {
		t.Logf("%-23v recovery %v; those not hit: longest gap %v, %d changes", k, recoveries[k], short(gaps[k].most()), changes[k])
	}
	t.Logf("%-23v until all agents are registered %v", "server started again", w.registered)
	t.Logf("%v", a)
	if a.lost+a.duplicated+a.reordered > 0 || a.delivered == 0 {
		t.Errorf("seed %d: the account is wrong", *seed)
	}
}
