package resolve

import "time"

// Limits and times of a Resolver, with what happens at them.
const (
	// maxNames is how many names are remembered; another one displaces the one
	// that was asked for the longest time ago. While all of them are being looked
	// up, a further one is refused with ErrTooMany.
	maxNames = 256
	// maxAddresses is how many addresses of a name are kept; the rest is ignored.
	maxAddresses = 8
	// maxHost is the longest name in bytes, maxLabel the longest of its parts
	// (RFC 1035 §2.3.4).
	maxHost  = 253
	maxLabel = 63
	// maxShown is how many bytes of a URL an error shows.
	maxShown = 320

	// lookupTimeout bounds one look-up: long enough for a resolver that asks a dead
	// name server first, 5 s for each of two attempts, and then another one.
	lookupTimeout = 15 * time.Second
	// freshFor is how long addresses are used without another look-up.
	freshFor = 30 * time.Second
	// failedFor is how long a failure is.
	failedFor = 5 * time.Second
	// againWait is how long who asks waits for news where there is an answer of
	// before.
	againWait = 200 * time.Millisecond
	// graceFor is how long the slower family may take after the faster one.
	graceFor = 200 * time.Millisecond
	// staleFor is how long addresses may serve while no name server answers
	// (RFC 8767 §4 has days in mind). That one says there is no such name ends them
	// at once.
	staleFor = 24 * time.Hour
)
