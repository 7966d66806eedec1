package meshtest_test

import (
	"testing"

	"github.com/infrafabric/agentmesh/mesh/meshtest"
)

// TestRandomDrawsEveryVerb: random stories know of everything that can go wrong, and of
// agents that answer, have small windows, and know servers by their names.
func TestRandomDrawsEveryVerb(t *testing.T) {
	t.Parallel()
	left := map[meshtest.Verb]bool{}
	for _, v := range []meshtest.Verb{
		meshtest.Kill, meshtest.Restart, meshtest.Stop, meshtest.Continue, meshtest.Partition, meshtest.OneWay,
		meshtest.Heal, meshtest.Move, meshtest.MoveUnseen, meshtest.Slow, meshtest.Lose, meshtest.Replace,
		meshtest.Narrow, meshtest.NarrowPath, meshtest.Choke, meshtest.ChokePath, meshtest.Throttle,
		meshtest.Duplicate, meshtest.Reorder, meshtest.LosePath, meshtest.Exhaust, meshtest.Replenish,
		meshtest.HangNames, meshtest.AnswerNames, meshtest.Weigh, meshtest.Linger, meshtest.SlowTrust,
		meshtest.SlowRecorder, meshtest.Window, meshtest.HangUp, meshtest.SetClock, meshtest.Sleep,
		meshtest.Wake, meshtest.Muddle,
	} {
		left[v] = true
	}
	var answers, windows, names int
	for seed := range uint64(200) {
		s := meshtest.Random(seed)
		for _, e := range s.Events {
			delete(left, e.Verb)
			if e.At < 0 || e.At >= s.Length {
				t.Errorf("seed %d: %v, in a story of %v", seed, e, s.Length)
			}
		}
		answers += len(s.Answers)
		windows += len(s.Windows)
		if s.Names {
			names++
		}
	}
	for v := range left {
		t.Errorf("no story has the verb %q", v)
	}
	if answers == 0 || windows == 0 || names == 0 {
		t.Errorf("%d agents answer, %d have a small window, %d stories have names", answers, windows, names)
	}
}
