// Package virtual is an internet in memory: hosts behind routers that
// translate addresses, a delay between them, loss, and a STUN server. It is
// made for tests that run inside one [testing/synctest] bubble, where its
// delays cost no time and are exact to the nanosecond.
//
//	 host ── NAT router ──┐
//	10.0.0.2    1.2.16.1  │
//	                      ├── core 1.2.0.0/16 ── STUN server 1.2.3.4:3478
//	 host ── NAT router ──┤      RTT/2, loss
//	10.0.1.2    1.2.16.2  │
//	                      │
//	 host (Open) ─────────┘
//	 1.2.16.3
//
// Every host is alone on its network, so every datagram from one host to
// another crosses the core exactly once. The delay and the loss are in the core
// and nowhere else; nested routers add nothing. That is why a datagram takes
// RTT/2 whatever NATs it passes.
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
//   - A NAT does not hairpin: a host cannot reach its own public address.
//   - There is no bandwidth limit, and datagrams are never reordered.
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
