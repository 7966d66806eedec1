package meshtest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/mesh"
	"github.com/infrafabric/agentmesh/mesh/meshtest"
)

// t is what the testing package hands to a test.
var t *testing.T

// A test of an application: its agents run in the universe as they would anywhere,
// and the network between them breaks.
func ExampleRun() {
	meshtest.Run(t, meshtest.Config{RTT: 80 * time.Millisecond, Servers: 2}, func(u *meshtest.Universe) {
		a := u.Agent("a", meshtest.PortRestricted)
		b := u.Agent("b", meshtest.Symmetric)
		ctx := context.Background()

		go func() { // the application of b
			peer, err := b.Node().Accept(ctx)
			if err != nil {
				return
			}
			for {
				m, err := peer.Receive(ctx)
				if err != nil {
					return
				}
				u.Note("b has %s", m.Payload)
			}
		}()

		peer := a.Dial("b")
		u.Partition([]string{"a"}, []string{"b"})
		if err := peer.Send(ctx, mesh.Message{Payload: json.RawMessage(`"patience"`)}); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Hour) // virtual
		u.Heal()
		if err := peer.Flush(ctx); err != nil {
			t.Error(err)
		}
		t.Log(u.Timeline())
	})
}

// Traffic that the universe makes and accounts for: the test says what breaks.
func ExampleUniverse_Traffic() {
	meshtest.Run(t, meshtest.Config{Relays: 1}, func(u *meshtest.Universe) {
		u.Agent("a", meshtest.Symmetric)
		u.Agent("b", meshtest.Symmetric)
		u.Traffic("a", "b", 20*time.Millisecond, 1)
		u.Traffic("b", "a", 20*time.Millisecond, 1)
		u.AwaitTraffic("a", "b") // by the relay
		u.LongestGap("a", "b")
		u.Kill("b")
		u.Restart("b")
		u.AwaitTraffic("a", "b")
		t.Log("nothing was delivered for", u.LongestGap("a", "b"))
		t.Log(u.Settle())
	})
}

// A bad line: thin, narrow, and nothing on it stays in order. The application of b
// answers each message, and takes its time.
func ExampleUniverse_Throttle() {
	meshtest.Run(t, meshtest.Config{Answers: []string{"b"}}, func(u *meshtest.Universe) {
		u.Agent("a", meshtest.PortRestricted)
		u.Agent("b", meshtest.Open)
		u.Traffic("a", "b", 100*time.Millisecond, 1)
		u.Throttle("b", 32_000, 16_000) // bytes a second, bytes that wait
		u.Reorder("b", 10, 50*time.Millisecond)
		u.Duplicate("b", 5)
		u.Linger("b", 20*time.Millisecond)
		u.Weigh("a", 2000)
		time.Sleep(time.Minute)
		u.HangUp("a", "b") // and dial again
		u.AwaitTraffic("a", "b")
		t.Log(u.Settle())
	})
}

// A story of one's own.
func ExampleStory() {
	s := meshtest.Story{
		RTT: 50 * time.Millisecond, Agents: []meshtest.NAT{meshtest.Open, meshtest.PortRestricted}, Servers: 1,
		Every: 100 * time.Millisecond, Burst: 1,
		Events: []meshtest.Event{
			{At: 5 * time.Second, Verb: meshtest.Kill, Who: []string{"s1"}},
			{At: 6 * time.Second, Verb: meshtest.Partition, Who: []string{"a"}, Whom: []string{"b"}},
			{At: 36 * time.Second, Verb: meshtest.Heal},
			{At: 40 * time.Second, Verb: meshtest.Move, Who: []string{"b"}},
		},
		Length: time.Minute,
	}
	fmt.Println(s)
	// In a test: account := s.Run(t)

	// Output:
	// seed 0: RTT 50ms, 1 servers, 0 relays, 1 messages every 100ms each way
	//   a is open
	//   b is port-restricted
	//   0:05.000  kill s1
	//   0:06.000  partition a | b
	//   0:36.000  heal
	//   0:40.000  move b
	//   1:00.000  mend
}

// A random story, the same for the same seed.
func ExampleRandom() {
	s := meshtest.Random(7)
	fmt.Println(len(s.Agents), "agents,", s.Servers, "servers,", s.Relays, "relays,", len(s.Events), "events in", s.Length)

	// Output:
	// 6 agents, 1 servers, 3 relays, 23 events in 1m10s
}
