package wallclock_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/infrafabric/agentmesh/internal/wallclock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// watched runs f while a Watch with ticks of a second runs, and returns what it told.
func watched(t *testing.T, now func() time.Time, f func()) (told []time.Duration) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		wallclock.Watch(ctx, now, time.Second, func(by time.Duration) { told = append(told, by) })
	})
	synctest.Wait() // it has looked at both clocks
	f()
	cancel()
	wg.Wait()
	return told
}

func TestWatch(t *testing.T) {
	for _, c := range []struct {
		name  string
		steps []time.Duration // each followed by two seconds
		want  []time.Duration
	}{
		{"nothing happens", []time.Duration{0, 0}, nil},
		{"a night's sleep", []time.Duration{8 * time.Hour}, []time.Duration{8 * time.Hour}},
		{"set back", []time.Duration{-time.Hour}, []time.Duration{-time.Hour}},
		{"set ahead and right again", []time.Duration{time.Hour, -time.Hour}, []time.Duration{time.Hour, -time.Hour}},
		{"the threshold", []time.Duration{wallclock.Threshold}, []time.Duration{wallclock.Threshold}},
		{"a little", []time.Duration{wallclock.Threshold - 1, 1 - wallclock.Threshold, 1 - wallclock.Threshold}, nil},
		{"little by little", []time.Duration{time.Second, time.Second, time.Second}, []time.Duration{wallclock.Threshold}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var clock wallclock.Clock
				told := watched(t, clock.Now, func() {
					for _, s := range c.steps {
						clock.Step(s)
						time.Sleep(2 * time.Second)
					}
				})
				if !slices.Equal(told, c.want) {
					t.Errorf("told %v, want %v", told, c.want)
				}
			})
		})
	}
}

// TestWatchTellsSoon: within a tick of waking.
func TestWatchTellsSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var clock wallclock.Clock
		told := watched(t, clock.Now, func() {
			time.Sleep(time.Hour + time.Millisecond)
			clock.Step(time.Minute)
			time.Sleep(time.Second)
			synctest.Wait()
		})
		if !slices.Equal(told, []time.Duration{time.Minute}) {
			t.Errorf("told %v", told)
		}
	})
}

// TestWatchSlowClock: what passes while the clock is read is no divergence.
func TestWatchSlowClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		slow := func() time.Time {
			if n++; n == 1 {
				return time.Now()
			}
			time.Sleep(10 * time.Second)
			now := time.Now()
			time.Sleep(10 * time.Second)
			return now
		}
		if told := watched(t, slow, func() { time.Sleep(time.Hour) }); len(told) > 0 {
			t.Errorf("told %v", told)
		}
	})
}

// TestWatchDefaultClock: time.Now has a monotonic reading, which must not be what is compared.
func TestWatchDefaultClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if told := watched(t, nil, func() { time.Sleep(time.Minute) }); len(told) > 0 {
			t.Errorf("told %v", told)
		}
	})
}
