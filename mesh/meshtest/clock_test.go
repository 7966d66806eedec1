package meshtest_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/mesh"
	"github.com/infrafabric/agentmesh/mesh/meshtest"
)

// TestClocks: agents whose clocks are off by less than others take, or are set while
// they are connected, or that slept, exchange everything and meet again; with a clock
// that is off by an hour they meet when it is right.
func TestClocks(t *testing.T) {
	t.Parallel()
	clean(t, couple(t, meshtest.Config{}, func(u *meshtest.Universe) {
		p := u.Lookup("a").Dial("b")
		for _, off := range []time.Duration{4 * time.Minute, -4 * time.Minute, 0} {
			u.SetClock("a", off)
			time.Sleep(2 * time.Second) // what is noticed, is by now
			if err := p.Replace(context.Background()); err != nil {
				t.Errorf("%v ahead: %v", off, err)
			}
		}
		u.LongestGap("a", "b")
		u.SetClock("a", time.Hour)
		time.Sleep(10 * time.Second)
		if gap := u.LongestGap("a", "b"); gap > 2*time.Second {
			t.Errorf("a gap of %v with a clock that was set an hour ahead", gap)
		}
		u.SetClock("a", 0)
		time.Sleep(10 * time.Second)
		if err := p.Replace(context.Background()); err != nil {
			t.Errorf("right again: %v", err)
		}

		u.SetClock("b", -3*time.Minute)
		u.Sleep("b")
		u.LongestGap("a", "b")
		time.Sleep(10 * time.Second)
		if gap := u.LongestGap("a", "b"); gap < 9*time.Second {
			t.Errorf("a gap of %v while one sleeps", gap)
		}
		u.Wake("b", 3*time.Minute)
		u.AwaitTraffic("a", "b")
		u.AwaitTraffic("b", "a")
		if err := p.Replace(context.Background()); err != nil {
			t.Errorf("awake: %v", err)
		}
		u.SetClock("b", time.Hour) // and Settle sets it right
	}))
}

// TestClockDatesMessages: what an agent signs bears the time that it has.
func TestClockDatesMessages(t *testing.T) {
	t.Parallel()
	meshtest.Run(t, meshtest.Config{RTT: rtt}, func(u *meshtest.Universe) {
		a := u.Agent("a", meshtest.Open)
		b := u.Agent("b", meshtest.Open)
		p := a.Dial("b")
		q, err := b.Node().Accept(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		u.SetClock("a", -2*time.Minute)
		if err := p.Send(context.Background(), mesh.Message{Payload: json.RawMessage(`1`)}); err != nil {
			t.Fatal(err)
		}
		m, err := q.Receive(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if off := time.Since(m.Timestamp); off < 2*time.Minute || off > 2*time.Minute+time.Second {
			t.Errorf("a message that was sent now is %v old", off)
		}
	})
}
