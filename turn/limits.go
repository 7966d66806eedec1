package turn

import "time"

// Limits of a server that no configuration changes.
const (
	// maxUsername is the greatest size of a user name in bytes (RFC 8489 §14.3
	// wants fewer than 509); a longer one is an authentication failure.
	maxUsername = 508
	// maxRealm bounds the realm in bytes, so that the answer to the smallest
	// Allocate of a client that has not authenticated (28 bytes) keeps within
	// amplification; a longer realm is an error of the configuration.
	maxRealm = 20
	// minSecret and minPassword are the least sizes of secrets and of the
	// passwords of ServerConfig.Users in bytes: whoever sees one request can try
	// passwords against its MESSAGE-INTEGRITY without asking the server.
	minSecret   = 16
	minPassword = 8
	// maxDatagram is the size in bytes from which datagrams are dropped,
	// whichever way they go; it is what pion/turn can hold.
	maxDatagram = 1600
	// amplification is how many times the size of a request an answer may have
	// that goes to an address which has not authenticated, as in RFC 9000 §8. A
	// larger one is not sent.
	amplification = 3
	// maxSources is how many token buckets there are for the rate of answers to
	// requests that are not authenticated. Source addresses are spread over them
	// by a hash that nobody outside can foresee; with more sources than buckets,
	// some share one.
	maxSources = 1 << 16
	// maxEarlyAnswers is how many answers a TCP connection gets to requests that
	// are not authenticated; then it is closed. A client needs one or two.
	maxEarlyAnswers = 16
	// connIdle is how long a TCP connection may be without an allocation, TLS
	// handshake included, before it is closed.
	connIdle = 10 * time.Second
	// connWrite bounds the time that one message to a TCP client takes; a
	// connection that is slower is closed. Meanwhile what comes for it from peers
	// is dropped, and nobody else waits.
	connWrite = 10 * time.Second
	// maxPermissions and maxChannels are how many permissions (RFC 8656 §9) and
	// channels (§12) one allocation may have at a time; further ones get 508.
	maxPermissions = 256
	maxChannels    = 256
	// maxPortTries is how many ports are tried for an allocation that other
	// programs may occupy; then it gets 508.
	maxPortTries = 64
	// burstPart is the part (one in burstPart) of BytesPerSecond that a user may
	// relay at once; minBurst is what it is at least, in bytes.
	burstPart = 10
	minBurst  = 16 << 10
)
