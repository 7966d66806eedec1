package turn

import "time"

// Limits and times of a Pool that no configuration changes, with what happens at
// them.
const (
	// MaxEndpoints is how many endpoints a Pool has at most; Add refuses more
	// with ErrTooMany. Each has at most one probe and one fetch of credentials
	// under way, each of them a goroutine, and a probe has one socket.
	MaxEndpoints = 64
	// MaxUsername is the longest user name in bytes (RFC 8489 §14.3), MaxPassword
	// the longest password. A credential beyond is refused with ErrNoCredential.
	MaxUsername = 508
	MaxPassword = 1024
	// maxURL is the longest URL in bytes: a DNS name and what surrounds it. Add
	// refuses a longer one.
	maxURL = 320

	// maxMessage is the largest message read from a server in bytes; a longer
	// datagram is cut and therefore no STUN, a longer frame ends the probe.
	maxMessage = 2048
	// maxStray is how many messages that answer nothing a probe reads in one step;
	// one more and the server counts as unreachable, so that a flood costs
	// nothing but a probe.
	maxStray = 256
	// maxTries is how often one request is made anew because the server's nonce
	// became stale (438); then the server allocates nothing.
	maxTries = 3

	// doubtPause is the least time between the beginnings of two probes of an
	// endpoint that doubts cause.
	doubtPause = time.Second
	// retryPause is between the beginnings of two probes of a healthy endpoint
	// whose last one failed, and the first step of the backoff of an unhealthy one;
	// each next step is twice as long, up to maxPause.
	retryPause = time.Second
	maxPause   = 30 * time.Second // the backoff grows no further
	// knockPause is between the beginnings of two probes, and between two
	// requests of one, while no endpoint is usable: with jitter and four round trips
	// of 50 ms the return of a server is known within 1.2 s.
	knockPause = 750 * time.Millisecond
	// jitter spreads every pause, as a part of it, so that agents do not probe in
	// step.
	jitter = 0.2

	// firstResend is when an unanswered datagram is sent again while nothing is
	// known of the round trip; after that at one and a half times the smoothed
	// latency, but not before leastResend, and not after maxResend, which is also
	// the most that a return of a server may be late by.
	firstResend = 250 * time.Millisecond
	leastResend = 200 * time.Millisecond
	maxResend   = 800 * time.Millisecond
	// doubtResend is the same when somebody is waiting for the verdict.
	doubtResend = 100 * time.Millisecond
	// patience is how long a server may be silent in one step of a probe, and at
	// least patienceFactor times its smoothed latency.
	patience       = 2 * time.Second
	patienceFactor = 8
	// doubtPatience is the same until the first answer to a probe that a doubt
	// caused: twelve datagrams, of which one must come through.
	doubtPatience = 1200 * time.Millisecond
	// streamPatience is the same over TCP and TLS, where a lost SYN is repeated
	// after a second.
	streamPatience = 3 * time.Second
	// freeWait is how long the answer to the end of an allocation is waited for.
	// Without it the server keeps the allocation for its lifetime.
	freeWait = 500 * time.Millisecond

	// nextAddress is how long a probe waits for one address of a name before it tries
	// the next one as well; a name has eight at most, further ones are ignored.
	nextAddress = 250 * time.Millisecond

	// clockTick is how often a Pool compares the wall clock with the monotonic one.
	clockTick = time.Second

	// maxEvents is how many events may wait for a Recorder that blocks; further ones
	// are dropped and logged. eventsWait is how long Close waits for those that do.
	maxEvents  = 256
	eventsWait = time.Second

	// firstWait is how long after NewPool Rank waits for all first credentials,
	// though it has some.
	firstWait = 100 * time.Millisecond
	// fetchTimeout bounds one call of Credentials.
	fetchTimeout = 10 * time.Second
	// fetchAhead is how long before its end a credential is renewed, unless a fifth
	// of its life is more, or half of it is less.
	fetchAhead = time.Minute

	// An endpoint overtakes another when it is faster by a fifth and by
	// rankMargin.
	rankMargin = 5 * time.Millisecond
)

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
