// Package turn is about relays, the TURN servers (RFC 8656) by which agents reach
// each other where no direct path exists.
//
// # Pool
//
// A [Pool] knows which of several servers work. It is told ways to them, each an
// [Endpoint]: a URL and where its credentials come from. It probes each way, and
// ranks those that pass by latency. Agents take relays from [Pool.Rank], hear of
// changes by [Pool.Changed], and tell by [Pool.Doubt] that a path went silent.
//
// # Probe
//
// A binding request shows that a server runs, but not that it knows the user, has a
// port left, and forwards. So a probe (see [Probe]) does what a session does:
//
//	agent                                            server
//	  ├─ Allocate ────────────────────────────────────▶│
//	  │◀────────────────────── 401, realm and nonce ───┤   RFC 8489 §9.2
//	  ├─ Allocate, authenticated ─────────────────────▶│
//	  │◀────────────────────────── relayed address R ──┤   RFC 8656 §7
//	  ├─ CreatePermission for R ──────────────────────▶│
//	  │◀───────────────────────────────────────────────┤   RFC 8656 §10
//	  ├─ Send to R ───────────────────────────────────▶├─┐
//	  │                                                │ │ R to R
//	  │◀─────────────────────────────── Data from R ───┤◀┘  RFC 8656 §11
//	  ├─ Refresh, lifetime 0 ─────────────────────────▶│
//	  │◀───────────────────────────────────────────────┤   RFC 8656 §8
//
// A name may stand for several addresses, of which some are dead or out of reach: the
// probe tries the next one when one fails or is silent for a quarter of a second, and
// passes with the first that does. Relay.Address is that one, for sessions to use; it is
// tried first the next time, and left only when it is silent for a second. Names are
// looked up within the probe's time, and remembered: while no name server answers, the
// addresses of before serve, for a day.
//
// The latency is that of the echo, from Send to Data. A quota must leave room for
// one allocation more than sessions need, for each endpoint of the server; coturn
// gives it back a moment after it was freed.
//
// What is found has an error each, of type [*ProbeError]:
//
//	ErrUnreachable    no route or name, refused, TLS failed, silence, no STUN
//	ErrCredentials    401, 441 after authentication
//	ErrExpired        the same, or not even tried, after the credential's end
//	ErrNoCredential   none could be fetched
//	ErrQuota          486
//	ErrNoAllocation   508, and every other refusal
//	ErrForbidden      403 for R as a peer
//	ErrNoEcho         allocated and permitted, and nothing comes back
//
// # Health
//
//	          pass             3 failures in a row, or 1 after a doubt
//	Unprobed ──────▶ Healthy ──────────────────────────────────────────▶ Unhealthy
//	   │               ▲                                                     │
//	   │               └──────────────────────── pass ───────────────────────┤
//	   └──────────────────────── 1 failure ─────────────────────────────────▶│
//
// Times, each give or take 20 %, from the beginning of one probe to that of the
// next:
//
//	healthy                              30 s (PoolConfig.ProbeEvery)
//	healthy, the last probe failed       1 s
//	healthy, in doubt                    at once, at most once a second
//	unhealthy                            1, 2, 4 … 30 s
//	unhealthy, and no endpoint usable    0.75 s
//
// A server that is silent is given up after 1.2 s in a probe for a doubt and after
// 2 s otherwise, over TCP and TLS after 3 s; or after eight times its usual latency
// if that is more. So at a round trip of 50 ms a dead relay in use is known 1.2 s
// after the doubt, and one that is not in use after 42 s at most. While no endpoint is
// usable the return of one is known within 1.2 s; that costs four datagrams in three
// seconds for each that is silent. What loses a fifth of all datagrams stays healthy.
//
// # Order
//
// Latencies are smoothed, and a healthy endpoint overtakes another only if it is
// faster by a fifth and by 5 ms: a session moves for a reason. A server that is back
// takes its place by the same rule. Those that are unhealthy come last, with
// Relay.Down set.
//
// # Credentials
//
// They come from a function, see [Credentials]; [Static] and [SharedSecret] make
// some. They are fetched ahead of their end. A fetch that fails is repeated after 1,
// 2, 4 … 30 s, and what there is serves until its end; then the endpoint is
// Unhealthy with ErrExpired, and is not ranked.
//
// A credential ends when the wall clock says so (PoolConfig.Time), or when the time is
// over that it had when it came, by the monotonic clock: whichever is first. So one that
// a machine slept past is over and renewed within a second after waking, and a clock
// that was set back makes none valid for ever. Everything else goes by the monotonic
// clock. When the two clocks part, every relay is probed and what failed is tried
// again. A password shows in no log, event,
// error or JSON of this package.
//
// # Server
//
// A [Server] is a TURN server to embed, and examples/turn-relay a program of it. It
// authenticates every request, relays to nobody whom its clients could not reach
// themselves, limits allocations and bytes of each user, and answers strangers no more
// than QUIC would (RFC 9000 §8.1): the comment of the type says how.
package turn
