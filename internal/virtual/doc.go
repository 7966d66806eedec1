// Package virtual is an internet in memory: hosts behind routers that
// translate addresses, a delay between them, loss, a STUN server, relays, and
// what goes wrong with them. It is made for tests that run inside one
// [testing/synctest] bubble, where its delays cost no time and are exact to the
// nanosecond.
//
//	       host ── NAT router ──┐
//	     10.0.0.2    1.2.16.1   │
//	extra delay                 ├── core 1.2.0.0/16 ── STUN server 1.2.3.4:3478
//	       host ── NAT router ──┤      RTT/2;
//	     10.0.1.2    1.2.16.2   │      loss, blocks,
//	                            │      pulled cables
//	       host (Open) ─────────┤
//	       1.2.16.3             │
//	                            │
//	       relay ───────────────┘
//	       1.2.16.4:3478
//
// Every host is alone on its network, so every datagram from one host to
// another crosses the core exactly once. The delay and the loss are in the core;
// nested routers add nothing. That is why a datagram takes RTT/2 whatever NATs
// it passes.
//
// # Faults
//
// Each can be set and taken back at any time, and each is independent of the
// others:
//
//	Net.SetLoss         some of all datagrams are lost, or all
//	Net.Block           one direction between two hosts is closed
//	Net.SetOneWayLoss   some of what one host sends another is lost
//	Net.SetMTU          one direction between two hosts drops large datagrams
//	Net.LimitFlows      what two hosts send each other soon goes nowhere
//	Host.Unplug         a host is cut off
//	Host.SetLoss        some of what a host sends and receives is lost
//	Host.SetMTU         a host drops large datagrams
//	Host.LimitFlows     a flow of a host soon goes nowhere
//	Host.SetDelay       a host is further away
//	Host.SetRate        a host has little bandwidth
//	Host.SetDuplicates  some of what a host sends and receives comes twice
//	Host.SetReorder     some of it is overtaken
//	Host.SetOpenError   a host has no file descriptor left
//	Host.HangNames      a host's name servers do not answer
//	Host.Move           a host gets another address
//	Relay.Kill          a relay dies, and with Relay.Start comes back empty
//	Relay.Hang          a relay no longer answers, but keeps what it has
//
// They belong to the host and not to its address, so they outlive a move. Whether
// a datagram is lost is decided when it leaves the core, that is in the moment
// in which it would arrive: a fault hits what is under way, and one that is over
// by then does not. What delays or copies datagrams stands before the core, in
// this order: the copies, the sender's rate, the delays of both hosts with what
// reorders, the receiver's rate.
//
// A test reads:
//
//	synctest.Test(t, func(t *testing.T) {
//		n := virtual.New(t, virtual.Config{RTT: 50 * time.Millisecond, STUN: true})
//		host, err := n.Host(virtual.PortRestricted)
//		…
//		settingEngine.SetNet(host)
//		settingEngine.DisableCloseByDTLS(true) // or closing both ends may hang the bubble
//	})
//
// # Limits of the model
//
//   - UDP over IPv4 only: TCP calls return [transport.ErrNotSupported], and so
//     do SetReadBuffer and SetWriteBuffer.
//   - A socket holds 1024 datagrams that nobody has read; what comes on top is
//     dropped, as a kernel does.
//   - A socket bound to port 0 gets one from 5000–5999.
//   - A NAT hands out 16384 ports over its life and does not reuse them.
//   - A NAT does not hairpin: a host cannot reach its own public address. An Open
//     host can, by way of the core: it takes RTT/2, and what is said of one host
//     does not touch it, except that nothing passes while the host is cut off.
//   - Without [Host.SetReorder] what one host sends to another stays in order.
//   - Names, of [Net.SetName], have one IPv4 address. Looking one up takes a round trip,
//     whatever else is wrong with the host.
//   - Rates, sizes and copies are of datagrams; nobody is told that one was too large
//     (no ICMP), and none is cut into fragments.
//   - At most 65536 datagrams are held back in the whole network; what comes on top
//     is dropped.
//   - A relay speaks UDP only, and nobody is refused a peer.
//   - With [Config.RTT] zero a datagram takes no time, but several goroutines.
//
// # Stopping
//
// A bubble ends only when every goroutine in it has ended. [New] registers
// [Net.Close] as a cleanup, which a bubble runs before it waits, so a test that
// fails half way ends as well. Close what uses the hosts first: write
// `defer n.Close()` above it, or leave it to the cleanup. Outside a bubble the
// routers work too, in real time; their goroutines end soon after Close.
package virtual
