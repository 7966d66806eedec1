package meshtest_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/mesh"
	"github.com/infrafabric/agentmesh/mesh/meshtest"
	"github.com/infrafabric/agentmesh/witness"
)

// Scenario A: relays die, hang, lose and return under agents that have no other
// path, whose pools know nothing but what they probe.

// relayedPair runs f with two agents behind symmetric NATs that are connected and
// send each other a message every so often.
func relayedPair(t *testing.T, every time.Duration, cfg meshtest.Config, f func(u *meshtest.Universe, p *mesh.Peer, l *log)) {
	t.Helper()
	l := new(log)
	cfg.RTT = rtt
	change := cfg.Configure
	cfg.Configure = func(name string, c *mesh.Config) {
		c.Recorder = l
		if change != nil {
			change(name, c)
		}
	}
	meshtest.Run(t, cfg, func(u *meshtest.Universe) {
		for i := 1; i < cfg.Relays; i++ { // so that r1 is everybody's first, and so on
			u.Slow(fmt.Sprintf("r%d", i+1), time.Duration(i)*10*time.Millisecond)
		}
		u.Agent("a", meshtest.Symmetric)
		u.Agent("b", meshtest.Symmetric)
		u.Traffic("a", "b", every, 1)
		u.Traffic("b", "a", every, 1)
		u.AwaitTraffic("a", "b")
		u.AwaitTraffic("b", "a")
		time.Sleep(5 * time.Second)
		u.LongestGap("a", "b")
		u.LongestGap("b", "a")
		f(u, u.Lookup("a").Dial("b"), l)
		u.Settle()
	})
}

func without(_ string, c *mesh.Config) { c.Paths.StandbyAfter = mesh.Never }

// TestScenarioARelayFails: the relay in use is killed, or hangs. With a standby
// session traffic flows again within a second, without one within two, also when
// no signaling server is left (standby only: nothing else leads to the other side)
// right after a replacement and in the middle of one.
func TestScenarioARelayFails(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"killed", "hangs"} {
		for _, with := range []string{"standby", "standby, no server", "standby, one server of two", "replacement", "in a replacement", "no standby", "no standby, one server of two"} {
			cfg, most := meshtest.Config{Relays: 2, Servers: 2}, time.Second
			if with == "no standby" || with == "no standby, one server of two" {
				cfg.Configure, most = without, 2*time.Second
			}
			relayedPair(t, 25*time.Millisecond, cfg, func(u *meshtest.Universe, p *mesh.Peer, l *log) {
				switch with {
				case "standby, no server":
					u.Kill("s1")
					u.Kill("s2")
				case "standby, one server of two", "no standby, one server of two":
					u.Kill("s1")
				case "replacement":
					if err := p.Replace(context.Background()); err != nil {
						t.Error(err)
					}
					time.Sleep(3 * time.Second)
				}
				used := u.Carrier(p)
				if with == "in a replacement" {
					u.Replace("a", "b")
				}
				if how == "killed" {
					u.Kill(used)
				} else {
					u.Stop(used)
				}
				time.Sleep(10 * time.Second)
				gaps(t, u, fmt.Sprintf("relay %s, %s", how, with), most)
				if now := u.Carrier(p); now == used || now == "" {
					t.Errorf("%s, %s: still on %q", how, with, now)
				}
				if n := l.count(witness.TURNServerMarkedUnhealthy, "a"); n != 1 {
					t.Errorf("%s, %s: marked unhealthy %d times", how, with, n)
				}
				if n := l.count(witness.TURNServerFailover, ""); n != 2 {
					t.Errorf("%s, %s: %d failovers of the pools", how, with, n)
				}
			})
		}
	}
}

// TestScenarioABothFail: both relays are killed, for a while that is short or long;
// within three seconds of the return of one traffic flows.
func TestScenarioABothFail(t *testing.T) {
	t.Parallel()
	for i, out := range []time.Duration{2 * time.Second, 15 * time.Second, 2 * time.Minute, 20 * time.Minute} {
		for _, configure := range []func(string, *mesh.Config){nil, without} {
			relayedPair(t, 200*time.Millisecond, meshtest.Config{Relays: 2, Servers: 2, Seed: uint64(i), Configure: configure}, func(u *meshtest.Universe, p *mesh.Peer, l *log) {
				u.Kill("s1")
				u.Kill("r1")
				u.Kill("r2")
				time.Sleep(out)
				back := time.Now()
				u.Restart("r2")
				u.AwaitTraffic("a", "b")
				u.AwaitTraffic("b", "a")
				took := time.Since(back)
				t.Logf("both relays dead for %v, standby %v: recovered %v after the return of one", out, configure == nil, took)
				if took > 3*time.Second {
					t.Errorf("both relays dead for %v, standby %v: recovered %v after the return of one", out, configure == nil, took)
				}
				if n := l.count(witness.AllTURNServersUnhealthy, "a"); out > 5*time.Second && n != 1 {
					t.Errorf("%d reports that all are unhealthy", n)
				}
			})
		}
	}
}

// TestScenarioALoss: the relay in use loses a fifth of what it gets and of what it
// sends, while one of two signaling servers is dead. Nothing is lost, sessions do not
// come and go, and the one that is replaced is. More than a third of the datagrams is
// lost, and the time until one is repeated doubles each time: a gap beyond five seconds
// was seen once in two hundred runs.
func TestScenarioALoss(t *testing.T) {
	t.Parallel()
	for seed := range uint64(2) {
		relayedPair(t, 50*time.Millisecond, meshtest.Config{Relays: 2, Servers: 2, Seed: seed}, func(u *meshtest.Universe, p *mesh.Peer, l *log) {
			before := l.count(witness.WebRTCSessionEstablished, "a")
			u.Lose(u.Carrier(p), 20)
			u.Kill("s1")
			time.Sleep(time.Minute)
			for range 10 { // what is lost may cost an attempt its ten seconds
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				err := p.Replace(ctx)
				cancel()
				if err == nil {
					break
				}
			}
			time.Sleep(time.Minute)
			gaps(t, u, "a fifth is lost at the relay", 10*time.Second)
			n := l.count(witness.WebRTCSessionEstablished, "a") - before
			t.Logf("%d sessions, now on %s", n, u.Carrier(p))
			if n < 1 || n > 4 {
				t.Errorf("%d sessions", n)
			}
		})
	}
}

// TestScenarioABetterReturns: a Peer that has moved to a slower relay stays there when the
// faster one returns, which carries its standby session from then on.
func TestScenarioABetterReturns(t *testing.T) {
	t.Parallel()
	relayedPair(t, 100*time.Millisecond, meshtest.Config{Relays: 2, Servers: 2}, func(u *meshtest.Universe, p *mesh.Peer, l *log) {
		const better, worse = "r1", "r2"
		u.Kill("s1")
		for range 2 {
			u.Kill(better)
			time.Sleep(20 * time.Second)
			if now := u.Carrier(p); now != worse {
				t.Fatalf("on %q", now)
			}
			u.LongestGap("a", "b")
			u.LongestGap("b", "a")
			before := l.count(witness.WebRTCSessionEstablished, "")
			u.Restart(better)
			time.Sleep(3 * time.Minute)
			if n := l.count(witness.WebRTCSessionEstablished, "") - before; n != 0 || u.Carrier(p) != worse {
				t.Errorf("%d sessions after the return of the better relay, now on %q", n, u.Carrier(p))
			}
			gaps(t, u, "the better relay returns", 300*time.Millisecond)
			// Its standby is there: the death of the worse one costs as little.
			u.Kill(worse)
			time.Sleep(10 * time.Second)
			gaps(t, u, "the worse relay is killed", time.Second)
			if now := u.Carrier(p); now != better {
				t.Fatalf("on %q", now)
			}
			u.Restart(worse)
			time.Sleep(time.Minute)
		}
	})
}

// TestScenarioAStandbyDies: the relay of the standby session dies while nobody uses
// it; another one is made on a third relay, so that the death of the first costs no
// more than before.
func TestScenarioAStandbyDies(t *testing.T) {
	t.Parallel()
	cfg := meshtest.Config{Relays: 3}
	relayedPair(t, 25*time.Millisecond, cfg, func(u *meshtest.Universe, p *mesh.Peer, l *log) {
		if used := u.Carrier(p); used != "r1" {
			t.Fatalf("on %q", used)
		}
		u.Kill("r2")
		time.Sleep(20 * time.Second)
		gaps(t, u, "the relay of the standby session is killed", rtt+20*time.Millisecond)
		u.Kill("r1")
		time.Sleep(5 * time.Second)
		gaps(t, u, "the relay in use is killed", time.Second)
		if now := u.Carrier(p); now != "r3" {
			t.Errorf("on %q", now)
		}
		if n := l.count(witness.WebRTCSessionEstablished, "a"); n != 2 {
			t.Errorf("%d sessions", n)
		}
	})
}

// TestScenarioAQuickReturn: a relay that died is back after five seconds, and stands by
// ten seconds later.
func TestScenarioAQuickReturn(t *testing.T) {
	t.Parallel()
	relayedPair(t, 25*time.Millisecond, meshtest.Config{Relays: 2}, func(u *meshtest.Universe, p *mesh.Peer, l *log) {
		for _, r := range []string{"r1", "r2", "r1", "r2"} {
			u.Kill(r)
			time.Sleep(5 * time.Second)
			u.Restart(r)
			time.Sleep(10 * time.Second)
			gaps(t, u, r+" is killed", time.Second)
		}
	})
}

// TestScenarioAFirstContact: the relay that every pool ranks first has died since it was
// probed. First contact finds out, and takes the next one, within the time of one attempt.
func TestScenarioAFirstContact(t *testing.T) {
	t.Parallel()
	meshtest.Run(t, meshtest.Config{RTT: rtt, Relays: 2, Configure: func(_ string, c *mesh.Config) {
		c.Paths.RelayAfter = mesh.AtOnce
	}}, func(u *meshtest.Universe) {
		u.Slow("r2", 10*time.Millisecond)
		u.Agent("a", meshtest.Symmetric)
		u.Agent("b", meshtest.Symmetric)
		time.Sleep(2 * time.Second)
		u.Kill("r1")
		began := time.Now()
		p := u.Lookup("a").Dial("b")
		took := time.Since(began)
		t.Logf("first contact with a dead relay ranked first: %v", took)
		if took > 5*time.Second || u.Carrier(p) != "r2" {
			t.Errorf("after %v on %q", took, u.Carrier(p))
		}
	})
}

// TestScenarioAReports: what operators are told of it.
func TestScenarioAReports(t *testing.T) {
	t.Parallel()
	relayedPair(t, 100*time.Millisecond, meshtest.Config{Relays: 2}, func(u *meshtest.Universe, p *mesh.Peer, l *log) {
		expect := func(when string, counts map[witness.Name]int) {
			t.Helper()
			for name, want := range counts {
				if n := l.count(name, "a"); n != want {
					t.Errorf("%s: %d times %s instead of %d", when, n, name, want)
				}
			}
		}
		counts := map[witness.Name]int{
			witness.TURNFallbackInitiated: 1, witness.TURNFallbackSuccessful: 1, witness.TURNConnectionDetected: 1,
			witness.TURNServerHealthCheckSuccess: 2, witness.TURNServerMarkedUnhealthy: 0, witness.TURNServerFailover: 0,
			witness.AllTURNServersUnhealthy: 0,
		}
		expect("first contact", counts)
		u.Kill("r1")
		time.Sleep(10 * time.Second)
		counts[witness.TURNConnectionDetected] = 2 // the standby session
		counts[witness.TURNServerMarkedUnhealthy], counts[witness.TURNServerFailover] = 1, 1
		expect("the relay in use is killed", counts)
		u.Kill("r2")
		time.Sleep(10 * time.Second)
		delete(counts, witness.TURNFallbackInitiated) // what is tried in vain
		counts[witness.TURNServerMarkedUnhealthy], counts[witness.AllTURNServersUnhealthy] = 2, 1
		expect("both are dead", counts)
		u.Restart("r1")
		time.Sleep(10 * time.Second)
		counts[witness.TURNServerHealthCheckSuccess], counts[witness.TURNServerFailover] = 3, 2
		if n := l.count(witness.TURNConnectionDetected, "a"); n != 3 {
			t.Errorf("%d sessions on a relay", n)
		}
		delete(counts, witness.TURNConnectionDetected)
		delete(counts, witness.TURNFallbackSuccessful)
		expect("one is back", counts)
	})
}
