// Package pipenet is a network of named in-memory stream connections for
// tests: listeners, dialers and an HTTP client that never touch the operating
// system.
//
// Nothing in it waits on a file descriptor, so whole client and server
// programs built on it run inside a [testing/synctest] bubble, where time is
// virtual and delays cost nothing. A connection behaves like a TCP connection
// between two hosts: it has a buffer of [BufferSize] bytes in each direction,
// bytes arrive in order and [Net.Delay] after they were written, deadlines
// work, closing one end is end-of-file at the other, and a connection whose
// server died is reset.
//
// A network can be stalled and reset by address ([Net.Stall], [Net.Reset]). For
// faults that only some of those who dial have, each gets a [Client].
package pipenet
