package meshtest_test

import (
	"context"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/mesh"
	"github.com/infrafabric/agentmesh/mesh/meshtest"
	"github.com/infrafabric/agentmesh/witness"
)

// TestScenarioC is a network partition as an operator's handbook tells it: silence
// of 30 s is a partition; ten attempts follow after 1, 2, 4 … seconds, give or take
// a fifth; then the peer is reported as permanently unreachable, and what was sent
// is kept; an hour later it returns, and everything arrives.
func TestScenarioC(t *testing.T) {
	t.Parallel()
	l := new(log)
	cfg := meshtest.Config{RTT: rtt, Servers: 2, Configure: func(name string, c *mesh.Config) {
		if name == "a" {
			c.Recorder = l
		}
	}}
	meshtest.Run(t, cfg, func(u *meshtest.Universe) {
		u.Agent("a", meshtest.PortRestricted)
		u.Agent("b", meshtest.PortRestricted)
		u.Traffic("a", "b", 10*time.Second, 1)
		time.Sleep(15 * time.Second)
		p := u.Lookup("a").Dial("b")
		died := time.Now()
		u.Kill("b")
		await(p, mesh.StateUnreachable)
		took := time.Since(died)
		t.Logf("unreachable after %v", took)
		if took < 14*time.Minute || took > 23*time.Minute {
			t.Errorf("unreachable after %v", took)
		}
		u.Stop("s1") // it has no part in this
		time.Sleep(time.Hour)
		back := time.Now()
		u.Restart("b")
		await(p, mesh.StateConnected)
		if took := time.Since(back); took > 2*time.Second {
			t.Errorf("connected %v after the return", took)
		}
		if a := u.Settle(); a.Sent < 400 || a.Delivered != a.Sent {
			t.Errorf("%v", a)
		}
	})

	// The events of a about b, in order.
	type told struct {
		name    witness.Name
		attempt int
	}
	want := []told{{witness.MeshPartitionDetected, 0}}
	for n := 1; n <= 10; n++ {
		want = append(want, told{witness.MeshReconnectionScheduled, n}, told{witness.MeshHealingAttempt, n})
	}
	want = append(want, told{witness.PeerPermanentlyUnreachable, 0}, told{witness.MeshPartitionHealed, 0})
	var got []witness.Event
	for _, e := range l.events {
		switch e.Name {
		case witness.MeshPartitionDetected, witness.MeshReconnectionScheduled, witness.MeshHealingAttempt,
			witness.PeerPermanentlyUnreachable, witness.MeshPartitionHealed:
			got = append(got, e)
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%d events, want %d: %v", len(got), len(want), got)
	}
	base := time.Second
	for i, e := range got {
		attempt, _ := e.Metadata["attempt"].(int)
		if e.Name != want[i].name || attempt != want[i].attempt || e.PeerID != "b" {
			t.Errorf("event %d is %s %d about %s, want %v", i, e.Name, attempt, e.PeerID, want[i])
		}
		switch e.Name {
		case witness.MeshPartitionDetected:
			if silent := e.Metadata["silent_seconds"].(float64); silent != 30 {
				t.Errorf("a partition after %v s of silence", silent)
			}
		case witness.MeshReconnectionScheduled:
			delay := e.Metadata["delay_seconds"].(float64)
			if least, most := 0.8*base.Seconds(), 1.2*base.Seconds(); delay < least || delay > most {
				t.Errorf("attempt %d after %.3f s, want %.1f to %.1f", attempt, delay, least, most)
			}
			if waited := got[i+1].Time.Sub(e.Time).Seconds(); waited-delay > 1e-6 || delay-waited > 1e-6 {
				t.Errorf("attempt %d began after %v s, not %v", attempt, waited, delay)
			}
			base *= 2
		}
	}
}

// TestReturnEndsTheWait: the peer's process is back in the middle of a long wait,
// and is registered with a server.
func TestReturnEndsTheWait(t *testing.T) {
	t.Parallel()
	meshtest.Run(t, meshtest.Config{RTT: rtt}, func(u *meshtest.Universe) {
		u.Agent("a", meshtest.Open)
		u.Agent("b", meshtest.Open)
		p := u.Lookup("a").Dial("b")
		u.Kill("b")
		for c := range p.Changes(context.Background()) {
			if c.Wait > 100*time.Second {
				break
			}
		}
		time.Sleep(20 * time.Second)
		began := time.Now()
		u.Restart("b")
		if s := p.Status().State; s != mesh.StateRecovering {
			t.Errorf("before the return: %v", s)
		}
		await(p, mesh.StateConnected)
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("connected %v after the return", took)
		}
	})
}
