// Package meshtest is a universe for tests of agents: any number of them in one
// process, on a virtual internet with NATs, delay, loss, relays and signaling
// servers, in virtual time, and the verbs to break it all.
//
//	meshtest.Run(t, meshtest.Config{RTT: 50 * time.Millisecond, Servers: 2}, func(u *meshtest.Universe) {
//		u.Agent("a", meshtest.PortRestricted)
//		u.Agent("b", meshtest.Open)
//		u.Traffic("a", "b", 100*time.Millisecond, 1)
//		u.Traffic("b", "a", 100*time.Millisecond, 1)
//		time.Sleep(10 * time.Second) // virtual: costs milliseconds
//		u.Kill("s1")
//		u.Partition([]string{"a"}, []string{"b"})
//		time.Sleep(20 * time.Minute)
//		u.Mend()
//		u.Settle() // everything arrives, once and in order, or the test fails
//	})
//
// What runs is real: [mesh.Node], ICE, DTLS, SCTP, signaling servers and clients
// over WebSockets, TURN. Only the datagrams, the byte streams below the WebSockets
// and the clock are virtual: Run is a [testing/synctest] bubble. An hour of virtual
// time takes seconds, a delay is exact to the nanosecond, and a test that waits for
// something that never comes ends at once with a deadlock.
//
// # Names
//
// Agents are named by the test; the signaling servers are "s1", "s2" … and the
// relays "r1", "r2" …, and every verb takes any of them where that makes sense.
// Keys follow from [Config.Seed] and the name, so that which agent has the greater
// key is the same in every run.
//
// # Verbs
//
//	Kill       a process dies at once, without a goodbye; a machine closes its
//	           connections to servers for it, as an operating system does
//	Restart    it comes back: an agent as a new process with the same identity, at
//	           the same address; a server or relay without its memory
//	Stop       a process hangs: nothing comes from it and nothing reaches it
//	Continue   it goes on, and what was sent to it over byte streams arrives then
//	Partition  nothing passes between two groups, in both directions
//	OneWay     datagrams from one agent do not reach the other
//	Heal       every partition ends
//	Move       an agent's machine gets another address and is told of it; what was
//	           open at the old one is dead
//	MoveUnseen the same, and it is not told
//	Slow       a host's datagrams and streams take longer, each way
//	Lose       a part of a host's datagrams is lost
//	Replace    an agent makes a new session with another that it is connected to
//	HangUp     an agent closes its Peer for another; traffic dials again
//	Mend       all of these end: everybody runs and reaches everybody
//
// What happens to datagrams of an agent or a relay, and what between two of them:
//
//	Narrow     large ones are dropped                        NarrowPath
//	Choke      after some, those of a flow are dropped       ChokePath
//	LosePath   some are lost, in one direction
//	Throttle   they are few in a second, and wait in a queue
//	Duplicate  some come twice
//	Reorder    some are overtaken
//
// What makes an agent's life hard:
//
//	Exhaust       its process has no file descriptor left, until Replenish
//	HangNames     its name servers do not answer, until AnswerNames
//	Weigh         its messages are large
//	Linger        its application takes its time
//	SlowTrust     its trust policy does
//	SlowRecorder  its recorder does
//	Window        its next process has another window
//	SetClock      its wall clock is wrong
//	Sleep         its machine sleeps until Wake, when its wall clock has gone ahead
//
// And a server's:
//
//	Muddle     it loses envelopes, and repeats others
//
// A stopped or sleeping agent differs from a stopped process in one way: its timers run on. A
// [Story] is a list of verbs with their times; [Random] makes one from a seed, and a
// story that fails prints itself and what happened.
package meshtest
