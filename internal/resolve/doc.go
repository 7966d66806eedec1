// Package resolve looks names up for those who cannot wait for them, and reads the
// hosts and ports in which they stand.
//
// A name server that does not answer costs the operating system's resolver half a
// minute for each name, and pion, which asks without a context, cannot be told to
// stop. So names are looked up here, before pion hears of them, and it is given
// addresses only. A [Resolver] remembers:
//
//	answer     used for          after that
//	addresses  freshFor          looked up again; who asks waits for againWait at
//	                             most and then gets those of before, up to staleFor
//	                             (RFC 8767)
//	failure    failedFor         likewise: the failure of before after againWait
//	nothing                      who asks waits until its context ends
//
// Both families are asked for at once, and when one has answered the other has
// graceFor to do so as well (RFC 8305 §3): name servers that never answer for
// IPv6 exist. What comes later is taken up all the same.
package resolve
