package meshtest_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/mesh"
	"github.com/infrafabric/agentmesh/mesh/meshtest"
	"github.com/infrafabric/agentmesh/witness"
)

// clean fails the test unless everything that was sent has arrived.
func clean(t *testing.T, a meshtest.Account) {
	t.Helper()
	if a.Sent == 0 || a.Delivered != a.Sent || a.Lost+a.Duplicated+a.Reordered+a.Refused+a.Reported > 0 {
		t.Errorf("%v", a)
	}
}

// couple runs f with two agents and traffic each way.
func couple(t *testing.T, cfg meshtest.Config, f func(u *meshtest.Universe)) (a meshtest.Account) {
	t.Helper()
	cfg.RTT = rtt
	meshtest.Run(t, cfg, func(u *meshtest.Universe) {
		u.Agent("a", meshtest.PortRestricted)
		u.Agent("b", meshtest.Open)
		u.Traffic("a", "b", 100*time.Millisecond, 1)
		u.Traffic("b", "a", 100*time.Millisecond, 1)
		u.AwaitTraffic("a", "b")
		u.AwaitTraffic("b", "a")
		f(u)
		a = u.Settle()
	})
	return a
}

// TestWireVerbs: what each does is seen, by the traffic or by the datagrams, what it
// does is over when that is said, and nothing is lost by it.
func TestWireVerbs(t *testing.T) {
	t.Parallel()
	const minute = time.Minute
	tests := []struct {
		name    string
		on, off func(u *meshtest.Universe)
		stops   bool // messages of 4,000 bytes, in one direction at least
	}{
		{"narrow", func(u *meshtest.Universe) { u.Narrow("b", 700) }, func(u *meshtest.Universe) { u.Narrow("b", 0) }, true},
		{"narrow path", func(u *meshtest.Universe) { u.NarrowPath("a", "b", 700) }, func(u *meshtest.Universe) { u.NarrowPath("a", "b", 0) }, true},
		{"choke", func(u *meshtest.Universe) { u.Choke("b", 1) }, func(u *meshtest.Universe) { u.Choke("b", 0) }, true},
		{"choke path", func(u *meshtest.Universe) { u.ChokePath("b", "a", 1) }, func(u *meshtest.Universe) { u.ChokePath("b", "a", 0) }, true},
		{"lose path", func(u *meshtest.Universe) { u.LosePath("a", "b", 100) }, func(u *meshtest.Universe) { u.LosePath("a", "b", 0) }, true},
		{"throttle", func(u *meshtest.Universe) { u.Throttle("a", 500, 0) }, func(u *meshtest.Universe) { u.Throttle("a", 0, 0) }, true},
		{"duplicate", func(u *meshtest.Universe) { u.Duplicate("a", 50) }, func(u *meshtest.Universe) { u.Duplicate("a", 0) }, false},
		{"reorder", func(u *meshtest.Universe) { u.Reorder("a", 50, 40*time.Millisecond) }, func(u *meshtest.Universe) { u.Reorder("a", 0, 0) }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			clean(t, couple(t, meshtest.Config{}, func(u *meshtest.Universe) {
				u.Weigh("a", 4000)
				time.Sleep(5 * time.Second)
				u.LongestGap("a", "b")
				before := u.Datagrams()
				tt.on(u)
				time.Sleep(10 * time.Second)
				if gap := u.LongestGap("a", "b"); tt.stops != (gap > 9*time.Second) {
					t.Errorf("a gap of %v", gap)
				}
				during := u.Datagrams() - before
				tt.off(u)
				u.AwaitTraffic("a", "b")
				time.Sleep(minute)
				u.LongestGap("a", "b")
				before = u.Datagrams()
				time.Sleep(10 * time.Second)
				if gap := u.LongestGap("a", "b"); gap > time.Second {
					t.Errorf("a gap of %v afterwards", gap)
				}
				if after := u.Datagrams() - before; tt.name == "duplicate" && during < after+after/4 {
					t.Errorf("%d datagrams while half of them are doubled, %d when not", during, after)
				}
			}))
		})
	}
}

// TestMendEndsAll: what is not taken back by itself is by Mend.
func TestMendEndsAll(t *testing.T) {
	t.Parallel()
	clean(t, couple(t, meshtest.Config{Servers: 2}, func(u *meshtest.Universe) {
		u.Narrow("a", 300)
		u.NarrowPath("a", "b", 300)
		u.Choke("b", 1)
		u.ChokePath("a", "b", 1)
		u.Throttle("a", 100, 0)
		u.Duplicate("a", 10)
		u.Reorder("b", 10, time.Second)
		u.LosePath("b", "a", 100)
		u.Exhaust("a")
		u.Linger("b", 5*time.Second)
		u.SlowTrust("a", time.Second)
		u.Muddle("s1", 50)
		time.Sleep(10 * time.Second)
		u.Mend()
		u.AwaitTraffic("a", "b")
		u.LongestGap("a", "b")
		time.Sleep(30 * time.Second)
		if gap := u.LongestGap("a", "b"); gap > time.Second {
			t.Errorf("a gap of %v", gap)
		}
	}))
}

// TestThrottleSlows: a message takes the time that its bytes need.
func TestThrottleSlows(t *testing.T) {
	t.Parallel()
	meshtest.Run(t, meshtest.Config{RTT: rtt}, func(u *meshtest.Universe) {
		u.Agent("a", meshtest.Open)
		u.Agent("b", meshtest.Open)
		u.Weigh("a", 8000)
		u.Traffic("a", "b", 2*time.Second, 1)
		u.AwaitTraffic("a", "b")
		u.AwaitTraffic("a", "b") // one has just arrived
		for _, tt := range []struct{ rate, least, most time.Duration }{
			{0, 2000, 2100}, {16000, 2400, 3000},
		} {
			u.Throttle("b", int(tt.rate), 16000)
			u.AwaitTraffic("a", "b")
			took := u.AwaitTraffic("a", "b")
			if tt.rate > 0 { // the first of them waited as long
				took += 500 * time.Millisecond
			}
			if took < tt.least*time.Millisecond || took > tt.most*time.Millisecond {
				t.Errorf("at %d bytes a second the next message came after %v", tt.rate, took)
			}
		}
		clean(t, u.Settle())
	})
}

// TestExhaust: without descriptors nothing new is made, what is there goes on, and no
// process starts; with them all of it works again.
func TestExhaust(t *testing.T) {
	t.Parallel()
	couple(t, meshtest.Config{}, func(u *meshtest.Universe) {
		p := u.Lookup("a").Dial("b")
		u.Exhaust("a")
		if _, err := u.Lookup("a").Host().Interfaces(); !errors.Is(err, syscall.EMFILE) {
			t.Errorf("interfaces: %v", err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := p.Replace(ctx); err == nil {
			t.Error("a session was made without a descriptor")
		}
		u.LongestGap("a", "b")
		time.Sleep(5 * time.Second)
		if gap := u.LongestGap("a", "b"); gap > time.Second {
			t.Errorf("a gap of %v", gap)
		}
		u.Kill("a")
		u.Restart("a")
		if u.Lookup("a").Node() != nil {
			t.Error("a process started without a descriptor")
		}
		u.Replenish("a")
		u.Restart("a")
		u.AwaitTraffic("a", "b")
		if err := u.Lookup("a").Dial("b").Replace(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

// TestWeighAndWindow: heavy messages travel; what is larger than a window is refused,
// and that is no loss.
func TestWeighAndWindow(t *testing.T) {
	t.Parallel()
	a := couple(t, meshtest.Config{}, func(u *meshtest.Universe) {
		u.Weigh("a", 100_000)
		time.Sleep(2 * time.Second)
		u.Weigh("a", 0)
		u.Window("a", 64<<10)
		u.Kill("a")
		u.Restart("a")
		u.AwaitTraffic("a", "b")
		if n := u.Account().Refused; n != 0 {
			t.Errorf("%d refused with a large window", n)
		}
		u.Weigh("a", 100_000)
		time.Sleep(2 * time.Second)
		u.AwaitTraffic("a", "b")
		refused := u.Account().Refused
		if refused < 15 || refused > 25 {
			t.Errorf("%d refused in two seconds with a small window", refused)
		}
		u.Window("a", 0)
		u.Kill("a")
		u.Restart("a")
		u.AwaitTraffic("a", "b")
		time.Sleep(2 * time.Second)
		if again := u.Account().Refused; again != refused {
			t.Errorf("%d refused with the first window", again-refused)
		}
	})
	if a.Lost+a.Duplicated+a.Reordered > 0 {
		t.Errorf("%v", a)
	}
}

// TestSmallerWindow: an agent comes back with a window into which what waits for it does
// not fit. That is told and not lost, and the rest arrives.
func TestSmallerWindow(t *testing.T) {
	t.Parallel()
	a := couple(t, meshtest.Config{}, func(u *meshtest.Universe) {
		u.Window("b", 64<<10)
		u.Kill("b")
		u.Weigh("a", 100_000)
		time.Sleep(500 * time.Millisecond)
		u.Weigh("a", 0)
		time.Sleep(500 * time.Millisecond)
		u.Restart("b")
		u.AwaitTraffic("a", "b")
	})
	if a.Reported < 4 || a.Reported > 6 || a.Lost+a.Duplicated+a.Reordered > 0 {
		t.Errorf("%v", a)
	}
}

// TestLinger: an application that takes a second for each message holds the sender
// back, and loses nothing.
func TestLinger(t *testing.T) {
	t.Parallel()
	for _, answers := range [][]string{nil, {"b"}} {
		clean(t, couple(t, meshtest.Config{Answers: answers}, func(u *meshtest.Universe) {
			u.Linger("b", time.Second)
			time.Sleep(2 * time.Second)
			before := u.Account()
			time.Sleep(20 * time.Second)
			after := u.Account()
			// 200 of a, and 200 of b with up to 20 answers.
			sent, delivered := after.Sent-before.Sent, after.Delivered-before.Delivered
			if sent < 398 || sent > 425 || delivered < 215 || delivered > 245 {
				t.Errorf("%d sent and %d delivered in 20 s", sent, delivered)
			}
		}))
	}
}

// TestSlowTrust: a dial takes as long as the policies do.
func TestSlowTrust(t *testing.T) {
	t.Parallel()
	meshtest.Run(t, meshtest.Config{RTT: rtt}, func(u *meshtest.Universe) {
		a := u.Agent("a", meshtest.Open)
		u.Agent("b", meshtest.Open)
		u.SlowTrust("a", 700*time.Millisecond)
		began := time.Now()
		a.Dial("b")
		if took := time.Since(began); took < 700*time.Millisecond || took > 5*time.Second {
			t.Errorf("dialled in %v", took)
		}
	})
}

// TestSlowRecorder: events come later, and the agent works.
func TestSlowRecorder(t *testing.T) {
	t.Parallel()
	var slow, quick atomic.Int64
	cfg := meshtest.Config{Configure: func(name string, c *mesh.Config) {
		if name == "a" {
			c.Recorder = witness.RecorderFunc(func(_ context.Context, e witness.Event) {
				if time.Since(e.Time) >= 5*time.Millisecond {
					slow.Add(1)
				} else {
					quick.Add(1)
				}
			})
		}
	}}
	clean(t, couple(t, cfg, func(u *meshtest.Universe) {
		if slow.Load() > 0 || quick.Load() == 0 {
			t.Errorf("%d slow events, %d quick ones", slow.Load(), quick.Load())
		}
		u.SlowRecorder("a", 5*time.Millisecond)
		before := quick.Load()
		time.Sleep(5 * time.Second)
		if slow.Load() < 50 || quick.Load() != before {
			t.Errorf("%d slow events, %d quick ones", slow.Load(), quick.Load()-before)
		}
	}))
}

// TestAnswers: each message of the traffic is answered, and answers are accounted for,
// through a partition and a restart of each side.
func TestAnswers(t *testing.T) {
	t.Parallel()
	for _, who := range [][]string{{"a"}, {"b"}, {"a", "b"}} {
		a := couple(t, meshtest.Config{Answers: who}, func(u *meshtest.Universe) {
			before := u.Account()
			time.Sleep(10 * time.Second)
			after := u.Account()
			want := 200 + 100*len(who)
			if got := after.Delivered - before.Delivered; got < want-4 || got > want+4 {
				t.Errorf("with answers of %q %d were delivered in 10 s, want %d", who, got, want)
			}
			u.Partition([]string{"a"}, []string{"b"})
			time.Sleep(10 * time.Second)
			u.Heal()
			u.AwaitTraffic("a", "b")
			for _, name := range []string{"a", "b"} {
				u.Kill(name)
				u.Restart(name)
				u.AwaitTraffic("a", "b")
				u.AwaitTraffic("b", "a")
			}
		})
		if a.Lost+a.Duplicated+a.Reordered > 0 {
			t.Errorf("%v", a)
		}
	}
}

// TestAnswersBacklog: what a Handler is still given when its Peer or its process ends counts
// as received, every message of it.
func TestAnswersBacklog(t *testing.T) {
	t.Parallel()
	couple(t, meshtest.Config{Answers: []string{"b"}}, func(u *meshtest.Universe) {
		for _, end := range []func(){
			func() { u.HangUp("b", "a") },
			func() { u.Kill("b"); u.Restart("b") },
		} {
			u.Linger("b", time.Second)
			time.Sleep(3 * time.Second)
			end()
			u.Linger("b", 0)
			u.AwaitTraffic("a", "b")
		}
	})
}

// TestHangUp: the Peers end, traffic dials again, and what is reported is no loss.
func TestHangUp(t *testing.T) {
	t.Parallel()
	for _, answers := range [][]string{nil, {"a"}, {"b"}} {
		a := couple(t, meshtest.Config{Answers: answers}, func(u *meshtest.Universe) {
			for range 3 {
				old := u.Lookup("a").Dial("b")
				u.HangUp("a", "b")
				u.AwaitTraffic("a", "b")
				u.AwaitTraffic("b", "a")
				if u.Lookup("a").Dial("b") == old {
					t.Error("the Peer goes on")
				}
			}
			u.HangUp("b", "a")
			u.HangUp("a", "b")
			u.AwaitTraffic("a", "b")
			u.Throttle("a", 2000, 4000)
			u.Weigh("a", 3000)
			time.Sleep(5 * time.Second) // a backlog
			u.HangUp("a", "b")
			time.Sleep(5 * time.Second)
			if u.Account().Reported == 0 {
				t.Error("nothing of a backlog was reported")
			}
		})
		if a.Lost+a.Duplicated+a.Reordered > 0 {
			t.Errorf("%v", a)
		}
	}
}

// TestMuddle: agents meet, and a second server is not needed for it.
func TestMuddle(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	took := map[int]time.Duration{}
	for _, percent := range []int{0, 50} {
		meshtest.Run(t, meshtest.Config{RTT: rtt, Seed: 3}, func(u *meshtest.Universe) {
			a := u.Agent("a", meshtest.PortRestricted)
			u.Agent("b", meshtest.PortRestricted)
			u.Muddle("s1", percent)
			began := time.Now()
			a.Dial("b")
			mu.Lock()
			defer mu.Unlock()
			took[percent] = time.Since(began)
		})
	}
	if took[0] >= took[50] {
		t.Errorf("dials took %v", took)
	}
}
