package turn

import (
	"testing"
	"time"
)

func TestBreaker(t *testing.T) {
	const every = 30 * time.Second
	type step struct {
		do     string // "pass", "fail", or "doubt": a failure at once
		health Health
		pause  time.Duration // while others are usable
		alone  time.Duration
	}
	for name, steps := range map[string][]step{
		"a healthy one has credit": {
			{"pass", Healthy, every, every},
			{"fail", Healthy, time.Second, time.Second},
			{"fail", Healthy, time.Second, time.Second},
			{"pass", Healthy, every, every},
			{"fail", Healthy, time.Second, time.Second},
			{"fail", Healthy, time.Second, time.Second},
			{"fail", Unhealthy, time.Second, knockPause},
			{"pass", Healthy, every, every},
		},
		"an unproven one has none": {
			{"fail", Unhealthy, time.Second, knockPause},
			{"fail", Unhealthy, 2 * time.Second, knockPause},
		},
		"a doubted one has none": {
			{"pass", Healthy, every, every},
			{"doubt", Unhealthy, time.Second, knockPause},
		},
		"the pause doubles": {
			{"fail", Unhealthy, 1 * time.Second, knockPause},
			{"doubt", Unhealthy, 2 * time.Second, knockPause},
			{"fail", Unhealthy, 4 * time.Second, knockPause},
			{"fail", Unhealthy, 8 * time.Second, knockPause},
			{"fail", Unhealthy, 16 * time.Second, knockPause},
			{"fail", Unhealthy, 30 * time.Second, knockPause},
			{"fail", Unhealthy, 30 * time.Second, knockPause},
			{"pass", Healthy, every, every},
			{"doubt", Unhealthy, time.Second, knockPause},
		},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Unix(1000, 0)
			b := breaker{health: Unprobed, since: now}
			if b.pause(every, false, false) != 0 {
				t.Error("the first probe waits")
			}
			for i, s := range steps {
				now = now.Add(time.Second)
				was := b.health
				var flipped bool
				switch s.do {
				case "pass":
					flipped = b.pass(now)
				default:
					flipped = b.fail(now, 3, s.do == "doubt")
				}
				if b.health != s.health || flipped != (was != s.health) || flipped != b.since.Equal(now) {
					t.Errorf("step %d: %s since %v, flipped %v", i, b.health, b.since, flipped)
				}
				if got := b.pause(every, false, false); got != s.pause {
					t.Errorf("step %d: pause %v, want %v", i, got, s.pause)
				}
				if got := b.pause(every, true, false); got != s.alone {
					t.Errorf("step %d: pause alone %v, want %v", i, got, s.alone)
				}
				if got := b.pause(every, true, true); got != s.pause {
					t.Errorf("step %d: pause of one that refuses %v, want %v", i, got, s.pause)
				}
			}
		})
	}
}
