package signaling

import "time"

// Limits of the format. Input beyond them is refused.
const (
	// MaxEnvelope is the greatest size of a sealed envelope in bytes.
	MaxEnvelope = 64 << 10
	// MaxBody is the greatest size of an envelope's body in bytes; what is
	// left of MaxEnvelope holds every other field at its greatest.
	MaxBody = MaxEnvelope - 2<<10
	// MaxMessage is the greatest size of a WebSocket message in bytes.
	MaxMessage = MaxEnvelope + 16
	// MaxServerName is the greatest size of a server's name in bytes: a DNS
	// name and a port.
	MaxServerName = 260
	// MaxNoticeText is the greatest size of a notice's text in bytes.
	MaxNoticeText = 512
	// MaxPresenceBatch is the greatest number of agents in one presence message.
	MaxPresenceBatch = 128
	// maxTime is the last millisecond that RFC 3339 can write, in the year 9999.
	maxTime = 253402300799999
	// maxArray is the greatest number of elements of any array in a message.
	maxArray = MaxPresenceBatch
	// maxString is more than any string that a message's size allows.
	maxString = MaxMessage
	// maxRate bounds rate and burst in a welcome: a client leaves a server that
	// names more, and a ServerConfig with more is an error.
	maxRate = 1_000_000
)

// clockTick is how often clients and servers compare the wall clock with the
// monotonic one.
const clockTick = time.Second

// Limits of a server that no configuration changes.
const (
	// MaxPresenceSnapshot is how many agents of its mesh a client is told of
	// when it registers.
	MaxPresenceSnapshot = 1024
	// MaxRecipients is how many registrations of a name get an envelope that
	// names no key. Among more it is a random choice, so that somebody who
	// registers many keys under a name cannot keep its owner out for ever.
	MaxRecipients = 4
	// MaxOffences is how many envelopes that break a rule a connection may
	// send; the next one closes it.
	MaxOffences = 8
	// MaxListed is how many agents /stats and /agents list.
	MaxListed = 10_000
	// MaxRemote is how many registrations at other servers a server knows of;
	// agents beyond are reached only through servers they share.
	MaxRemote = 1_000_000
	// maxCertFile bounds what is read of a certificate or key file in bytes; a
	// larger one is an error, and the last good certificate stays in use.
	maxCertFile = 1 << 20
	// outboxBytes bounds what waits for one client, besides the count in
	// ServerLimits.Queue.
	outboxBytes = 1 << 20
	// senderShare is the part (one in senderShare) of a recipient's queue that
	// one sender may fill: a flood is charged to its author, and neither
	// closes the recipient's connection nor keeps others from it.
	senderShare = 4
	// trustGrace is how long a registration outlives the last answer of a trust
	// policy that cannot be asked.
	trustGrace = 5 * time.Minute
	// relayWait is how long a sender is not read while its share of the
	// recipient's queue is full; then the envelope is dropped, and it is told.
	relayWait = time.Second
)

// Limits and times of a client that no configuration changes.
const (
	// MaxURLs is the greatest number of servers in a ClientConfig.
	MaxURLs = 32
	// sendQueue is how many envelopes wait for one connection before Send
	// blocks.
	sendQueue = 64
	// eventQueue is how many events wait for Receive before the connections
	// are no longer read.
	eventQueue = 64
	// closeTimeout is how long Close lets a connection write what was sent and
	// say goodbye.
	closeTimeout = time.Second
	// stableTime is how long a connection must have lived for its end to be no
	// further failure: the next attempt follows after MinBackoff.
	stableTime = 5 * time.Second
	// probeTimeout is how long the answer to a Probe may take.
	probeTimeout = 3 * time.Second
	// maxProxyAnswer bounds what is read of a proxy's answer to CONNECT in bytes.
	maxProxyAnswer = 64 << 10
	// maxRefusal bounds what is shown of an HTTP server's reason in bytes.
	maxRefusal = 200
	// spareDelay is how long a server must be missing before a spare is used.
	spareDelay = 2 * time.Second
)
