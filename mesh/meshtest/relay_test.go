package meshtest_test

import (
	"context"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/mesh"
	"github.com/infrafabric/agentmesh/mesh/meshtest"
)

// relayed returns the next change of a Peer to a session on a relay, or off it.
func relayed(p *mesh.Peer, yes bool) mesh.Change {
	for c := range p.Changes(context.Background()) {
		if c.State == mesh.StateConnected && c.Path.Relayed() == yes {
			return c
		}
	}
	return mesh.Change{}
}

// TestDirectPathDies: a direct path dies and the relay takes over; the direct path
// comes back and is taken again. Nothing is lost and nothing is long.
func TestDirectPathDies(t *testing.T) {
	t.Parallel()
	duo(t, 10*time.Millisecond, meshtest.Config{Relays: 1}, func(u *meshtest.Universe, l *log) {
		p := u.Lookup("a").Dial("b")
		if path := p.Status().Path; path.Relayed() {
			t.Fatalf("first contact by %v", path)
		}
		for range 2 {
			time.Sleep(5 * time.Second)
			gaps(t, u, "direct", 100*time.Millisecond)
			u.Partition([]string{"a"}, []string{"b"}) // each reaches the relay
			relayed(p, true)
			time.Sleep(time.Second)
			gaps(t, u, "from direct to relay", 2*time.Second)
			u.Heal()
			began := time.Now()
			c := relayed(p, false)
			t.Logf("direct again after %v: %v", time.Since(began), c.Reason)
			if took := time.Since(began); took > 45*time.Second || c.Reason != mesh.ReasonDirectPath {
				t.Errorf("direct again after %v: %v", took, c.Reason)
			}
			time.Sleep(time.Second)
			gaps(t, u, "from relay to direct", rtt+20*time.Millisecond)
		}
	})
}

// TestRelayOnly: no direct path ever exists. First contact takes the relay after
// the time that the policy says, and attempts at a direct path disturb nothing.
func TestRelayOnly(t *testing.T) {
	t.Parallel()
	for _, wait := range []time.Duration{0, mesh.AtOnce, 2 * time.Second} {
		meshtest.Run(t, meshtest.Config{RTT: rtt, Relays: 1, Configure: func(_ string, c *mesh.Config) {
			c.Paths.RelayAfter = wait
		}}, func(u *meshtest.Universe) {
			u.Agent("a", meshtest.Symmetric)
			u.Agent("b", meshtest.Symmetric)
			began := time.Now()
			p := u.Lookup("a").Dial("b")
			took := time.Since(began)
			least := map[time.Duration]time.Duration{0: 5 * time.Second, mesh.AtOnce: 0, 2 * time.Second: 2 * time.Second}[wait]
			t.Logf("wait %v: connected after %v by %v", wait, took, p.Status().Path)
			if !p.Status().Path.Relayed() || took < least || took > least+time.Second {
				t.Errorf("wait %v: connected after %v by %v", wait, took, p.Status().Path)
			}
			u.Traffic("a", "b", 100*time.Millisecond, 1)
			u.Traffic("b", "a", 100*time.Millisecond, 1)
			time.Sleep(100 * time.Second)
			gaps(t, u, "100 s on a relay", 2*rtt+100*time.Millisecond)
			if !p.Status().Path.Relayed() {
				t.Errorf("a path that does not exist: %v", p.Status().Path)
			}
			// A session that replaces a relayed one waits for nothing.
			began = time.Now()
			if err := p.Replace(context.Background()); err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("replaced in %v", took)
			}
			u.Settle()
		})
	}
}

// TestRelayReturns: the only relay is gone for longer than all attempts last. The pools
// find out when it is back.
func TestRelayReturns(t *testing.T) {
	meshtest.Run(t, meshtest.Config{RTT: rtt, Relays: 1}, func(u *meshtest.Universe) {
		u.Agent("a", meshtest.Symmetric)
		u.Agent("b", meshtest.Symmetric)
		u.Traffic("a", "b", 10*time.Second, 1)
		u.AwaitTraffic("a", "b")
		p := u.Lookup("a").Dial("b")
		u.Kill("r1")
		await(p, mesh.StateUnreachable)
		time.Sleep(30 * time.Minute)
		u.Restart("r1")
		back := time.Now()
		await(p, mesh.StateConnected)
		if took := time.Since(back); took > 3*time.Second {
			t.Errorf("connected %v after the return of the relay", took)
		}
		u.Settle()
	})
}
