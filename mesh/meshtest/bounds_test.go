package meshtest_test

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/mesh"
	"github.com/infrafabric/agentmesh/mesh/meshtest"
	"github.com/infrafabric/agentmesh/witness"
)

// The bounds of recovery, at a round trip of 50 ms, in exact virtual time.
const rtt = 50 * time.Millisecond

// log keeps the events of all agents.
type log struct {
	mu     sync.Mutex
	events []witness.Event
}

func (l *log) Record(_ context.Context, e witness.Event) {
	if e.Name == witness.IFMessageSent || e.Name == witness.IFMessageReceived {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, e)
}

// count counts events of one name, of one agent or of any.
func (l *log) count(name witness.Name, agent string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.events {
		if e.Name == name && (agent == "" || e.AgentID == agent) {
			n++
		}
	}
	return n
}

// duo runs f with two agents that send each other a message every so often.
func duo(t *testing.T, every time.Duration, cfg meshtest.Config, f func(u *meshtest.Universe, l *log)) {
	t.Helper()
	l := new(log)
	cfg.RTT = rtt
	if cfg.Configure == nil {
		cfg.Configure = func(_ string, c *mesh.Config) { c.Recorder = l }
	}
	meshtest.Run(t, cfg, func(u *meshtest.Universe) {
		u.Agent("a", meshtest.PortRestricted)
		u.Agent("b", meshtest.PortRestricted)
		u.Traffic("a", "b", every, 1)
		u.Traffic("b", "a", every, 1)
		u.AwaitTraffic("a", "b")
		u.AwaitTraffic("b", "a")
		f(u, l)
		u.Settle()
	})
}

// gaps fails the test when nothing was delivered for longer, either way.
func gaps(t *testing.T, u *meshtest.Universe, what string, most time.Duration) {
	t.Helper()
	ab, ba := u.LongestGap("a", "b"), u.LongestGap("b", "a")
	t.Logf("%s: longest gaps %v and %v", what, ab, ba)
	if max(ab, ba) > most {
		t.Errorf("%s: longest gaps %v and %v, more than %v; what happened:\n%s", what, ab, ba, most, u.Timeline())
	}
}

// flows fails the test when traffic does not flow both ways so soon.
func flows(t *testing.T, u *meshtest.Universe, what string, most time.Duration) {
	t.Helper()
	began := time.Now()
	u.AwaitTraffic("a", "b")
	ab := time.Since(began)
	u.AwaitTraffic("b", "a")
	ba := time.Since(began)
	t.Logf("%s: traffic after %v and %v", what, ab, ba)
	if max(ab, ba) > most {
		t.Errorf("%s: traffic after %v and %v, more than %v", what, ab, ba, most)
	}
}

func dialTakes(t *testing.T, u *meshtest.Universe, from, to, what string, most time.Duration) {
	t.Helper()
	began := time.Now()
	u.Lookup(from).Dial(to)
	took := time.Since(began)
	t.Logf("%s: dialled in %v", what, took)
	if took > most {
		t.Errorf("%s: dialled in %v, more than %v", what, took, most)
	}
}

func TestSignalingServerDies(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"killed", "hangs"} {
		duo(t, 5*time.Millisecond, meshtest.Config{Servers: 2}, func(u *meshtest.Universe, l *log) {
			u.Agent("c", meshtest.Open)
			time.Sleep(5 * time.Second)
			gaps(t, u, "in peace", 40*time.Millisecond)
			if how == "killed" {
				u.Kill("s1")
			} else {
				u.Stop("s1")
			}
			dialTakes(t, u, "c", "a", "s1 "+how, time.Second)
			time.Sleep(15 * time.Second)
			gaps(t, u, "s1 "+how, 40*time.Millisecond)
			if n := l.count(witness.SignalingFailover, "c"); how == "killed" && n != 1 {
				t.Errorf("%d failovers of c", n)
			}
		})
	}
}

func TestEverySignalingServerDies(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"killed", "hang"} {
		duo(t, 5*time.Millisecond, meshtest.Config{Servers: 2}, func(u *meshtest.Universe, l *log) {
			u.Agent("c", meshtest.Open)
			u.Lookup("c").Dial("b")
			time.Sleep(time.Second)
			for _, s := range []string{"s1", "s2"} {
				if how == "killed" {
					u.Kill(s)
				} else {
					u.Stop(s)
				}
			}
			// a knows b, and b knows c.
			dialTakes(t, u, "a", "c", "all servers "+how, 2*time.Second)
			u.Partition([]string{"a"}, []string{"b"})
			time.Sleep(10 * time.Second)
			u.Heal()
			flows(t, u, "a pair without a server", time.Second)
			// The sessions of a pair die while it has a common neighbour.
			u.MoveUnseen("a")
			time.Sleep(10 * time.Second)
			if n := l.count(witness.PeerDisconnected, ""); n != 0 {
				t.Errorf("%d Peers ended", n)
			}
		})
	}
}

func TestSuspicion(t *testing.T) {
	t.Parallel()
	// In silence: two agents that send each other nothing.
	for phase := range 10 {
		meshtest.Run(t, meshtest.Config{RTT: rtt}, func(u *meshtest.Universe) {
			u.Agent("a", meshtest.Open)
			u.Agent("b", meshtest.Open)
			p := u.Lookup("a").Dial("b")
			time.Sleep(20*time.Second + time.Duration(phase)*100*time.Millisecond)
			began := time.Now()
			u.Partition([]string{"a"}, []string{"b"})
			c := await(p, mesh.StateSuspect)
			if took := time.Since(began); took > 3500*time.Millisecond || took < 1900*time.Millisecond || c.Reason != mesh.ReasonSilence {
				t.Errorf("silence noticed after %v: %v", took, c.Reason)
			}
			u.Heal()
			await(p, mesh.StateConnected)
			// With one record on its way.
			time.Sleep(10 * time.Second)
			u.Partition([]string{"a"}, []string{"b"})
			began = time.Now()
			if err := p.Send(context.Background(), mesh.Message{}); err != nil {
				t.Error(err)
			}
			c = await(p, mesh.StateSuspect)
			if took := time.Since(began); took > 600*time.Millisecond || c.Reason != mesh.ReasonUnacknowledged {
				t.Errorf("an unacknowledged record noticed after %v: %v", took, c.Reason)
			}
		})
	}
}

// await returns the next change to a state.
func await(p *mesh.Peer, s mesh.State) mesh.Change {
	for c := range p.Changes(context.Background()) {
		if c.State == s {
			return c
		}
	}
	return mesh.Change{}
}

func TestPartitionHeals(t *testing.T) {
	t.Parallel()
	for _, lasts := range []time.Duration{10 * time.Second, time.Minute, 20 * time.Minute} {
		for _, alone := range []bool{false, true} {
			duo(t, 50*time.Millisecond, meshtest.Config{}, func(u *meshtest.Universe, l *log) {
				time.Sleep(time.Second)
				if alone {
					// The server is on the other side, and what travels to it is
					// held up as well.
					u.Partition([]string{"a"}, []string{"b", "s1"})
				} else {
					u.Partition([]string{"a"}, []string{"b"})
				}
				time.Sleep(lasts)
				u.Heal()
				flows(t, u, lasts.String(), time.Second)
				t.Logf("%v: %d attempts, %d times unreachable", lasts,
					l.count(witness.MeshHealingAttempt, ""), l.count(witness.PeerPermanentlyUnreachable, ""))
				time.Sleep(time.Minute)
				if s := u.Lookup("a").Dial("b").Status().State; s != mesh.StateConnected {
					t.Errorf("a minute later a is %v", s)
				}
			})
		}
	}
}

func TestReplaceHealthy(t *testing.T) {
	t.Parallel()
	duo(t, 5*time.Millisecond, meshtest.Config{}, func(u *meshtest.Universe, l *log) {
		time.Sleep(5 * time.Second)
		gaps(t, u, "in peace", 40*time.Millisecond)
		before := l.count(witness.WebRTCSessionEstablished, "a")
		for i, from := range []string{"a", "b"} {
			to := []string{"b", "a"}[i]
			if err := u.Lookup(from).Dial(to).Replace(context.Background()); err != nil {
				t.Error(err)
			}
			time.Sleep(5 * time.Second)
			gaps(t, u, "replaced by "+from, rtt+20*time.Millisecond)
		}
		if n := l.count(witness.WebRTCSessionEstablished, "a") - before; n != 2 {
			t.Errorf("%d sessions for two replacements", n)
		}
	})
}

func TestReplaceAtOneInstant(t *testing.T) {
	t.Parallel()
	duo(t, 5*time.Millisecond, meshtest.Config{}, func(u *meshtest.Universe, l *log) {
		time.Sleep(5 * time.Second)
		before := l.count(witness.WebRTCSessionEstablished, "a")
		var wg sync.WaitGroup
		for _, x := range [][2]string{{"a", "b"}, {"b", "a"}} {
			p := u.Lookup(x[0]).Dial(x[1])
			for range 3 {
				wg.Go(func() {
					if err := p.Replace(context.Background()); err != nil {
						t.Error(err)
					}
				})
			}
		}
		wg.Wait()
		time.Sleep(5 * time.Second)
		gaps(t, u, "replaced by both", rtt+20*time.Millisecond)
		if n := l.count(witness.WebRTCSessionEstablished, "a") - before; n != 1 {
			t.Errorf("%d sessions for one replacement by both", n)
		}
	})
}

func TestReplaceInARow(t *testing.T) {
	t.Parallel()
	duo(t, 5*time.Millisecond, meshtest.Config{}, func(u *meshtest.Universe, l *log) {
		before := l.count(witness.WebRTCSessionEstablished, "a")
		p, q := u.Lookup("a").Dial("b"), u.Lookup("b").Dial("a")
		for i := range 50 {
			if i%2 == 1 {
				p, q = q, p
			}
			if err := p.Replace(context.Background()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * rtt) // until the other side has moved as well
		}
		gaps(t, u, "fifty replacements", rtt+20*time.Millisecond)
		if n := l.count(witness.WebRTCSessionEstablished, "a") - before; n != 50 {
			t.Errorf("%d sessions for fifty replacements", n)
		}
	})
}

func TestPartitionDuringReplacement(t *testing.T) {
	t.Parallel()
	for ms := 0; ms <= 400; ms += 25 {
		duo(t, 20*time.Millisecond, meshtest.Config{}, func(u *meshtest.Universe, l *log) {
			time.Sleep(time.Second)
			u.Replace("a", "b")
			time.Sleep(time.Duration(ms) * time.Millisecond)
			u.Partition([]string{"a"}, []string{"b"})
			time.Sleep(7 * time.Second)
			u.Heal()
			flows(t, u, "partition during a replacement", time.Second)
		})
	}
}

func TestOneWayPartition(t *testing.T) {
	t.Parallel()
	for _, way := range [][2]string{{"a", "b"}, {"b", "a"}} {
		for _, lasts := range []time.Duration{2 * time.Second, time.Minute} {
			duo(t, 20*time.Millisecond, meshtest.Config{}, func(u *meshtest.Universe, l *log) {
				time.Sleep(time.Second)
				u.OneWay(way[0], way[1])
				time.Sleep(600 * time.Millisecond)
				if s := u.Lookup(way[0]).Dial(way[1]).Status(); s.State != mesh.StateSuspect {
					t.Errorf("0.6 s after its records are lost it is %v", s.State)
				}
				time.Sleep(lasts)
				u.Heal()
				flows(t, u, "one-way partition", time.Second)
			})
		}
	}
}

func TestAddressChange(t *testing.T) {
	t.Parallel()
	for _, who := range []string{"a", "b"} {
		duo(t, 10*time.Millisecond, meshtest.Config{Servers: 2}, func(u *meshtest.Universe, l *log) {
			for range 3 {
				time.Sleep(10 * time.Second)
				u.LongestGap("a", "b")
				u.LongestGap("b", "a")
				u.Move(who)
				time.Sleep(5 * time.Second)
				gaps(t, u, "move of "+who, time.Second)
			}
			// Nobody tells it: silence, or records without an answer, do.
			u.MoveUnseen(who)
			time.Sleep(15 * time.Second)
			gaps(t, u, "unseen move of "+who, 6*time.Second)
		})
	}
}

// TestMovedAgain: the second change of address follows soon after the first, and
// nobody tells of it. The servers are doubted for it as well, if a little later.
func TestMovedAgain(t *testing.T) {
	duo(t, 5*time.Millisecond, meshtest.Config{Servers: 2}, func(u *meshtest.Universe, l *log) {
		time.Sleep(10 * time.Second)
		u.Move("a")
		time.Sleep(3 * time.Second)
		u.LongestGap("a", "b")
		u.LongestGap("b", "a")
		u.MoveUnseen("a")
		time.Sleep(15 * time.Second)
		gaps(t, u, "moved again", 8*time.Second)
	})
}

// TestFlappingLink: two seconds up, two down, for ten minutes.
func TestFlappingLink(t *testing.T) {
	duo(t, 50*time.Millisecond, meshtest.Config{}, func(u *meshtest.Universe, l *log) {
		before := l.count(witness.WebRTCSessionEstablished, "a")
		offers := l.count(witness.WebRTCOfferCreated, "")
		var heaps []uint64
		for i := range 150 {
			u.Partition([]string{"a"}, []string{"b"})
			time.Sleep(2 * time.Second)
			u.Heal()
			time.Sleep(2 * time.Second)
			if i%25 == 24 {
				l.mu.Lock()
				l.events = slices.DeleteFunc(l.events, func(e witness.Event) bool {
					return e.Name != witness.WebRTCSessionEstablished && e.Name != witness.WebRTCOfferCreated
				})
				l.mu.Unlock()
				runtime.GC()
				runtime.GC() // what finalizers let go of
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				heaps = append(heaps, m.HeapAlloc)
			}
		}
		n := l.count(witness.WebRTCSessionEstablished, "a") - before
		offers = l.count(witness.WebRTCOfferCreated, "") - offers
		t.Logf("150 interruptions: %d sessions, %d offers; heap %v bytes", n, offers, heaps)
		// Most interruptions end before the attempt that they cause; a few are a
		// session too late.
		if n > 75 || offers > 300 {
			t.Errorf("150 interruptions: %d sessions, %d offers", n, offers)
		}
		// The timeline grows by some hundred bytes each; a session left behind each
		// would be 18 MB.
		if grown := int64(heaps[len(heaps)-1]) - int64(heaps[1]); grown > 1<<20 {
			t.Errorf("the heap grew by %d bytes: %v", grown, heaps)
		}
	})
}
