package turn

import (
	"testing"
	"time"
)

// TestPace: how often and for how long a silent server is asked.
func TestPace(t *testing.T) {
	const ms, timeout = time.Millisecond, 5 * time.Second
	for name, c := range map[string]struct {
		health        Health
		latency       time.Duration
		alone, urgent bool
		stream        bool
		want          pace
	}{
		"unknown":              {health: Unprobed, want: pace{250 * ms, 2 * time.Second, 2 * time.Second}},
		"near":                 {health: Healthy, latency: 20 * ms, want: pace{200 * ms, 2 * time.Second, 2 * time.Second}},
		"far":                  {health: Healthy, latency: 400 * ms, want: pace{600 * ms, 3200 * ms, 3200 * ms}},
		"very far":             {health: Healthy, latency: time.Second, want: pace{800 * ms, 8 * time.Second, 8 * time.Second}},
		"in doubt":             {health: Healthy, latency: 75 * ms, urgent: true, want: pace{100 * ms, 1200 * ms, 2 * time.Second}},
		"far and in doubt":     {health: Healthy, latency: 400 * ms, urgent: true, want: pace{100 * ms, 3200 * ms, 3200 * ms}},
		"stream in doubt":      {health: Healthy, latency: 75 * ms, urgent: true, stream: true, want: pace{100 * ms, 3 * time.Second, 2 * time.Second}},
		"unhealthy":            {health: Unhealthy, latency: 75 * ms, want: pace{200 * ms, 2 * time.Second, 2 * time.Second}},
		"unhealthy and alone":  {health: Unhealthy, latency: 75 * ms, alone: true, want: pace{knockPause, 2500 * ms, 2500 * ms}},
		"never seen and alone": {health: Unhealthy, alone: true, urgent: true, want: pace{knockPause, 2500 * ms, 2500 * ms}},
	} {
		m := &member{latency: c.latency}
		m.breaker.health, m.datagram = c.health, !c.stream
		if got := m.pace(timeout, c.alone, c.urgent); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
