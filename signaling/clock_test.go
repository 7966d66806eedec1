package signaling_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/internal/wallclock"
	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
)

// TestClocksApart: an agent whose clock is off registers, and is warned with both
// times; one whose clock is right is not.
func TestClocksApart(t *testing.T) {
	for name, c := range map[string]struct {
		off  time.Duration
		warn bool
	}{
		"right":          {0, false},
		"a little":       {signaling.ClockTolerance - time.Second, false},
		"an hour ahead":  {time.Hour, true},
		"an hour behind": {-time.Hour, true},
		"in 1970":        {-30 * 365 * 24 * time.Hour, true},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				var log bytes.Buffer
				var clock wallclock.Clock
				clock.Step(c.off)
				s := w.serve("s1", signaling.ServerConfig{})
				a := w.clientWith(signaling.ClientConfig{Identity: w.identity("agent-a"), URLs: []string{"ws://s1/"},
					Time: clock.Now, Logger: slog.New(slog.NewTextHandler(&log, nil))}).ready()
				ups := a.events(signaling.EventUp)
				got := a.Servers()[0].Clock
				if len(ups) != 1 || ups[0].Clock != got || got.Apart() != c.warn || (got.Ahead()-c.off).Abs() > time.Second {
					t.Errorf("%v, %+v", got, ups)
				}
				s.kill()
				w.serve("s1", signaling.ServerConfig{})
				time.Sleep(time.Minute) // registered anew: that is not told again
				a.Close()
				text := log.String()
				if n := strings.Count(text, "the clocks are apart"); (n == 1) != c.warn || n > 1 {
					t.Errorf("%d warnings:\n%s", n, text)
				}
				for _, at := range []time.Time{got.Here, got.Server} {
					if c.warn && !strings.Contains(text, at.Format("2006-01-02T15:04")) {
						t.Errorf("%v is not named:\n%s", at, text)
					}
				}
			})
		})
	}
}

// TestRefusedByTheClock: who is refused, and whose clock is apart from the server's,
// is told both times.
func TestRefusedByTheClock(t *testing.T) {
	inWorld(t, func(w *world) {
		var clock wallclock.Clock
		clock.Step(2 * time.Hour)
		expired := policy(func(_ context.Context, c keys.Claim) (keys.Verdict, error) {
			return keys.Verdict{Decision: keys.Yes, Until: time.Now().Add(time.Hour)}, nil
		})
		w.serve("s1", signaling.ServerConfig{Trust: expired, Time: clock.Now})
		a := w.client("agent-a", "ws://s1/")
		err := a.WaitReady(w.Context())
		var ce *signaling.ClockError
		if !errors.Is(err, signaling.ErrRefused) || !errors.As(err, &ce) || (ce.Clock.Ahead()+2*time.Hour).Abs() > time.Second {
			t.Fatalf("%v", err)
		}
		for _, at := range []time.Time{time.Now(), clock.Now()} {
			if !strings.Contains(err.Error(), at.UTC().Format("2006-01-02T15:04")) {
				t.Errorf("%v is not named: %v", at, err)
			}
		}
		if !strings.Contains(err.Error(), "refuses, by the time,") {
			t.Errorf("the time is not the reason: %v", err)
		}
	})
}

// policy is a trust policy that is a function.
type policy func(context.Context, keys.Claim) (keys.Verdict, error)

func (p policy) Check(ctx context.Context, c keys.Claim) (keys.Verdict, error) { return p(ctx, c) }

// TestSleep: a machine that slept asks its servers at once whether they are there.
func TestSleep(t *testing.T) {
	inWorld(t, func(w *world) {
		var clock wallclock.Clock
		w.serve("s1", signaling.ServerConfig{})
		w.serve("s2", signaling.ServerConfig{})
		a := w.clientWith(signaling.ClientConfig{Identity: w.identity("agent-a"), URLs: []string{"ws://s1/", "ws://s2/"},
			Time: clock.Now}).ready()
		time.Sleep(10 * time.Second)
		w.net.Stall("s1")
		clock.Step(8 * time.Hour)
		time.Sleep(5 * time.Second)
		settle()
		downs := a.events(signaling.EventDown)
		if len(downs) != 1 || downs[0].Server != "ws://s1/" || !errors.Is(downs[0].Err, signaling.ErrPingTimeout) {
			t.Errorf("after the sleep: %+v", downs)
		}
		if c := a.Servers()[1].Clock; c.Known() {
			t.Errorf("a reading from before the sleep: %v", c)
		}
		w.net.Resume("s1")
	})
}

// TestSteppedClockLocksNobodyOut: set an hour ahead and right again, the agent is
// registered all the time, and comes back when its server does.
func TestSteppedClockLocksNobodyOut(t *testing.T) {
	inWorld(t, func(w *world) {
		var clock wallclock.Clock
		s := w.serve("s1", signaling.ServerConfig{Time: clock.Now})
		a := w.clientWith(signaling.ClientConfig{Identity: w.identity("agent-a"), URLs: []string{"ws://s1/"}, Time: clock.Now}).ready()
		for _, step := range []time.Duration{time.Hour, -time.Hour, -time.Hour, time.Hour} {
			clock.Step(step)
			time.Sleep(2 * time.Minute)
			settle()
			want(t, "down", names(a.events(signaling.EventDown)))
		}
		clock.Step(-time.Hour)
		s.kill()
		settle()
		w.serve("s1", signaling.ServerConfig{Time: clock.Now})
		time.Sleep(time.Minute)
		settle()
		if a.state(0) != signaling.StateOpen {
			t.Errorf("state %v", a.state(0))
		}
	})
}

// TestTrustAfterSleep: what ended while the server slept ends at once.
func TestTrustAfterSleep(t *testing.T) {
	inWorld(t, func(w *world) {
		var clock wallclock.Clock
		until := clock.Now().Add(time.Hour)
		w.serve("s1", signaling.ServerConfig{Time: clock.Now, RecheckInterval: 24 * time.Hour,
			Trust: policy(func(context.Context, keys.Claim) (keys.Verdict, error) {
				return keys.Verdict{Decision: keys.Yes, Until: until}, nil
			})})
		a := w.client("agent-a", "ws://s1/").ready()
		clock.Step(2 * time.Hour)
		time.Sleep(1100 * time.Millisecond)
		settle()
		if a.state(0) != signaling.StateRefused {
			t.Errorf("state %v", a.state(0))
		}
	})
}

// TestTrustThatCannotAnswer: a policy whose time is over, or whose machine is short
// of descriptors, refuses nobody.
func TestTrustThatCannotAnswer(t *testing.T) {
	inWorld(t, func(w *world) {
		var hangs atomic.Bool
		w.serve("s1", signaling.ServerConfig{RecheckInterval: time.Minute,
			Trust: policy(func(ctx context.Context, _ keys.Claim) (keys.Verdict, error) {
				if hangs.Load() {
					<-ctx.Done()
					return keys.Verdict{}, ctx.Err()
				}
				return keys.Verdict{Decision: keys.Yes}, nil
			})})
		a := w.client("agent-a", "ws://s1/").ready()
		hangs.Store(true)
		b := w.client("agent-b", "ws://s1/")
		time.Sleep(4 * time.Minute)
		settle()
		if err := b.Servers()[0].Err; errors.Is(err, signaling.ErrRefused) || err == nil || a.state(0) != signaling.StateOpen {
			t.Errorf("b: %v; a is %v", err, a.state(0))
		}
		hangs.Store(false)
		time.Sleep(time.Minute)
		settle()
		if a.state(0) != signaling.StateOpen || b.state(0) != signaling.StateOpen {
			t.Errorf("when it answers again: %v and %v", a.state(0), b.state(0))
		}
		hangs.Store(true)
		time.Sleep(8 * time.Minute)
		settle()
		if a.state(0) == signaling.StateOpen {
			t.Error("registered eight minutes after the last yes")
		}
	})
}
