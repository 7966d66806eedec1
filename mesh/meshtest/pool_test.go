package meshtest_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/mesh"
	"github.com/infrafabric/agentmesh/mesh/meshtest"
	"github.com/infrafabric/agentmesh/turn"
	"github.com/infrafabric/agentmesh/witness"
)

// TestRelayRemoved: an operator takes the relay in use out of the pools, and adds
// another. The session leaves the first without a gap, and the second is used.
func TestRelayRemoved(t *testing.T) {
	t.Parallel()
	relayedPair(t, 25*time.Millisecond, meshtest.Config{Relays: 3}, func(u *meshtest.Universe, p *mesh.Peer, l *log) {
		each := func(f func(*turn.Pool) error) {
			for _, name := range []string{"a", "b"} {
				if err := f(u.Lookup(name).Pool()); err != nil {
					t.Error(err)
				}
			}
		}
		each(func(p *turn.Pool) error { return p.Remove(u.RelayURL("r3")) })
		time.Sleep(time.Second)
		used := u.Carrier(p)
		each(func(p *turn.Pool) error { return p.Remove(u.RelayURL(used)) })
		time.Sleep(5 * time.Second)
		now := u.Carrier(p)
		gaps(t, u, "the relay in use is removed", 200*time.Millisecond)
		if now == used || now == "r3" || now == "" || p.Status().Reason != mesh.ReasonRelay {
			t.Errorf("from %q to %q, %v", used, now, p.Status().Reason)
		}
		u.Kill(used) // nobody cares
		each(func(p *turn.Pool) error {
			return p.Add(turn.Endpoint{URL: u.RelayURL("r3"), Credentials: turn.Static(meshtest.RelayUser, meshtest.RelayPassword)})
		})
		time.Sleep(5 * time.Second) // the standby session
		u.LongestGap("a", "b")
		u.LongestGap("b", "a")
		u.Kill(now)
		time.Sleep(5 * time.Second)
		gaps(t, u, "the other relay is killed", time.Second)
		if now := u.Carrier(p); now != "r3" {
			t.Errorf("on %q", now)
		}
	})
}

// TestCredentialsRenewed: credentials last ten minutes. New ones are fetched before
// they end, and the session that was made with the old ones is replaced before
// their end, without a gap.
func TestCredentialsRenewed(t *testing.T) {
	t.Parallel()
	const life = 10 * time.Minute
	var u *meshtest.Universe
	var pools []*turn.Pool
	fetched := 0
	configure := func(_ string, c *mesh.Config) {
		pool, err := turn.NewPool(turn.PoolConfig{Net: c.Net, Endpoints: []turn.Endpoint{{
			URL: u.RelayURL("r1"),
			Credentials: func(context.Context) (turn.Credential, error) {
				fetched++
				end := time.Now().Add(life)
				return turn.Credential{Username: fmt.Sprintf("%s:%d", meshtest.RelayUser, end.Unix()),
					Password: meshtest.RelayPassword, Expires: end}, nil
			},
		}}})
		if err != nil {
			t.Fatal(err)
		}
		pools = append(pools, pool)
		c.TURN = pool
	}
	l := new(log)
	meshtest.Run(t, meshtest.Config{RTT: rtt, Relays: 1, Configure: func(name string, c *mesh.Config) {
		configure(name, c)
		c.Recorder = l
	}}, func(universe *meshtest.Universe) {
		u = universe
		defer func() {
			for _, p := range pools {
				p.Close()
			}
		}()
		u.Agent("a", meshtest.Symmetric)
		u.Agent("b", meshtest.Symmetric)
		u.Traffic("a", "b", 250*time.Millisecond, 1)
		u.Traffic("b", "a", 250*time.Millisecond, 1)
		u.AwaitTraffic("a", "b")
		p := u.Lookup("a").Dial("b")
		u.LongestGap("a", "b")
		u.LongestGap("b", "a")
		last := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), 25*time.Minute)
		defer cancel()
		replaced := 0
		for c := range p.Changes(ctx) {
			if c.State == mesh.StateConnected && c.Reason == mesh.ReasonRelay {
				if time.Since(last) > life {
					t.Errorf("replaced %v after the session before", time.Since(last))
				}
				last = time.Now()
				replaced++
			}
		}
		t.Logf("%d sessions and %d credentials in 25 minutes", replaced, fetched)
		if replaced < 2 || replaced > 8 {
			t.Errorf("replaced %d times", replaced)
		}
		gaps(t, u, "credentials are renewed", 300*time.Millisecond)
		if n := l.count(witness.ConnectionStateChanged, "a"); n > 6*replaced+10 {
			t.Errorf("%d changes of state", n)
		}
		u.Settle()
	})
}
