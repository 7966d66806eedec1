package mesh

import "time"

// Every bound of the package stands here, with what happens at it. The wire
// limits are part of the protocol: both sides count alike.
const (
	// MaxMessage is the largest message in bytes, measured as its record on
	// the wire: headers and compacted payload. Send refuses a larger one with
	// ErrTooLarge; a peer that sends one has its session closed.
	MaxMessage = 1 << 20

	// MaxMessageJSON is the longest text in bytes that Message.UnmarshalJSON reads;
	// a longer one is a *TooLargeError. AppendJSON writes no message beyond
	// MaxMessage, and its text is far shorter; white space counts.
	MaxMessageJSON = 4 * MaxMessage

	// MaxNesting is how deep a payload or an extra field may nest arrays and
	// objects, wherever it stands: the message around it does not count. A deeper
	// one is a *MessageError.
	MaxNesting = 64

	maxIDLen        = 128 // bytes of Message.ID
	maxPerformative = 64  // bytes of Message.Performative
	maxConversation = 255 // bytes of Message.ConversationID
	maxTraceID      = 64  // bytes of Message.TraceID
	maxCitations    = 64  // entries of Message.CitationIDs
	maxCitationLen  = 255 // bytes of one citation
	maxExtra        = 64  // entries of Message.Extra
	maxExtraName    = 128 // bytes of one extra field's name

	// maxTree is how many messages one signature may cover (leaves of its
	// Merkle tree), maxPath how many hashes prove membership at most.
	maxTree = 1024
	maxPath = 10

	// maxFrame is the largest data channel message. A larger batch travels in
	// parts.
	maxFrame = 16 << 10
	// helloLeast is the least hello in bytes: the largest payload of one packet of
	// SCTP, so that a path which loses full packets makes no session. A shorter one is
	// a protocol error.
	helloLeast = 1160
	// helloWait is how long the proof of a path that works may take, with
	// helloRoundTrips more round trips; then the path is taken for one that loses full
	// packets, if it is there. helloAgain is how long after it is looked again whether
	// it is.
	helloWait       = 3 * time.Second
	helloRoundTrips = 5
	helloAgain      = 500 * time.Millisecond
	// pieceSize is how many bytes of a frame travel in one piece on a path that does not
	// carry full packets. A piece is between pieceLeast and pieceMost bytes long.
	pieceSize  = 920
	pieceLeast = 576
	pieceMost  = 940
	// batchSize is about how many bytes of records one signature covers when
	// so many wait; a larger record is a batch of its own. Two frames cost
	// little time to gather and halve the signature's share.
	batchSize = 32 << 10
	// partSize is the payload of one part.
	partSize = maxFrame - 64
	// maxJoined is the largest batch that parts may add up to: a record of
	// MaxMessage and a signature. A larger one closes the session.
	maxJoined = MaxMessage + 1024

	// recordOverhead is added to each record's length when credit and memory
	// are counted, so that a million empty records are not free.
	recordOverhead = 64

	// maxPositions bounds the flows that one hello or positions frame may
	// speak of. A frame with more closes the session.
	maxPositions = 64

	// maxOffset keeps byte counts far from overflow; nobody reaches it honestly.
	// A hello or skip beyond it closes the session.
	maxOffset = 1 << 62

	// maxHelloText is to how many bytes what a stranger wrote is cut for errors
	// and logs.
	maxHelloText = 64
	// maxAbilities is how many optional features a hello may list, maxAbility
	// the length of each in bytes. A hello beyond makes no session.
	maxAbilities = 32
	maxAbility   = 64

	// maxRelayName is the longest name of a TURN server in a description or a
	// hello, in bytes, as in the DNS. A longer one is refused.
	maxRelayName = 255

	// maxSDP is the largest session description accepted, in bytes.
	maxSDP = 16 << 10
	// maxRemoteCandidates is how many distinct candidates of one session's other
	// side are used: the first ones. Further ones are ignored.
	maxRemoteCandidates = 32
	// What this side tells of fits in that: maxHostAddresses is how many of the
	// machine's addresses are used for one session, each with a socket, and told of,
	// maxTCPCandidates how many of them for TCP as well, maxReflexiveCandidates how
	// many addresses are told that STUN servers have seen, and maxRelayCandidates
	// how many of relays. The best ones are; further ones are not used.
	maxHostAddresses       = 12
	maxTCPCandidates       = 6
	maxReflexiveCandidates = 10
	maxRelayCandidates     = 4
	// maxCandidateLen bounds one candidate line, in bytes; a longer one is ignored.
	maxCandidateLen = 512
	// maxListed is how many candidates one envelope may list. One with more is
	// ignored.
	maxListed = 1024
	// maxReason bounds the text of a reject or a goodbye, in bytes.
	maxReason = 200

	// freshness is how far an envelope's time may lie from this node's clock.
	freshness = 5 * time.Minute
	// maxNonces is how many envelopes of one key are remembered against
	// replay at a time; further ones of that key are refused until the oldest
	// leave the window. Thirteen a second, sustained.
	maxNonces = 4096
	// maxNonceKeys is for how many keys; beyond it envelopes of keys not yet
	// remembered are refused. Trusted keys and those that may be learned count
	// separately, others are not remembered.
	maxNonceKeys = 4096

	// maxPeers is how many Peers a Node has at most; further offers are
	// rejected with the code busy, further dials fail with ErrTooMany. Each such
	// attempt closes one that is unreachable and was not dialled here, if there is
	// any, so that the next one finds room.
	maxPeers = 4096
	// maxProbes is how many unreachable Peers keep their last session, which may
	// yet come back; beyond it the one that is unreachable for the longest time lets go
	// of its, and comes back by a new one.
	maxProbes = 256
	// maxNegotiating is how many negotiations that it began a Node has under way
	// at a time, each with a connection; further ones wait for their turn within
	// their own time. maxAnswering is the same for those that others began, with room
	// beside a crowd of maxIncoming.
	maxNegotiating = 256
	maxAnswering   = maxIncoming + 256
	// maxAttempts is how many sessions one Peer may have under negotiation;
	// further offers are rejected with the code busy. As many offers wait for a
	// Peer that is closing, and make the next one.
	maxAttempts = 4
	// maxIncoming is how many agents that were not dialled may be under
	// negotiation with a Node at a time; further first offers are rejected with
	// the code busy, as far as rejectsPerSecond allows, and their senders make
	// new ones.
	maxIncoming = 256
	// attemptInbox is how many envelopes may wait for one negotiation: an answer,
	// a reject and candidates. What does not fit is dropped; answers are
	// repeated, and candidates beyond would be ignored.
	attemptInbox = 2 + maxRemoteCandidates
	// maxTasks is how many tasks wait for a Peer's loop; who has another one
	// waits for room.
	maxTasks = 16
	// maxTried is how many sentences a DialError tells; the oldest give way.
	maxTried = 12
	// negotiationsPerSecond is how many negotiations the other side may begin
	// or ask for, after maxNegotiationsBurst at once; further ones are rejected
	// with the code busy. What this side begins is paced by its own policy.
	negotiationsPerSecond = 1
	maxNegotiationsBurst  = 128
	// maxSessions is how many established sessions one Peer keeps at most
	// while it moves from one to the next; a further one displaces the lowest.
	maxSessions = 3
	// maxLedgers is for how many agents without a Peer the Node remembers
	// numbers and positions. The least recently used is forgotten first, and
	// the next hello to that agent says so.
	maxLedgers = 4096
	// maxRefusedInstances is how many replaced instances of one agent are
	// remembered as refused.
	maxRefusedInstances = 64
	// maxEvents is how many events wait for the recorder; further ones are lost to it.
	maxEvents = 4096
	// recorderWait is how long Send and Receive wait for room among them, and Close for
	// the recorder to take what waits.
	recorderWait = time.Second

	// acceptBacklog is how many Peers may wait for Accept; further first
	// offers are rejected with the code busy.
	acceptBacklog = 128

	// maxMillis is the last millisecond of the year 9999, the latest time that travels.
	maxMillis = 253402300799999
	// maxEarly is how many envelopes with candidates a Peer keeps that came before their
	// offer; the oldest gives way, and is lost to its negotiation.
	maxEarly = 16

	// rejectsPerSecond bounds the signed refusals a Node sends, maxRefusals how many wait
	// to be signed; further ones are dropped, and their offers are not answered.
	rejectsPerSecond = 20
	maxRefusals      = 64

	// maxJudging is how many envelopes of known authors are judged at a time, each of
	// another one; maxStrangers is that of others. A question about them may take up to
	// trustTimeout, and whoever is not known yet waits behind it only when there are more.
	// maxAuthorItems is how many wait of one, maxJudgingBytes the bytes that wait of either
	// kind; further ones are dropped, and their authors repeat them.
	maxJudging      = 64
	maxStrangers    = 256
	maxAuthorItems  = attemptInbox + maxAttempts
	maxJudgingBytes = 8 << 20
	// newKeysPerSecond is how many signatures are checked under keys that nobody here
	// knows yet, after twice as many at once; further ones are dropped.
	newKeysPerSecond = 1000
	// clockTold is how often it is told of one agent that its clock is off.
	clockTold = time.Minute
	// stalesPerSecond is how many signatures are checked on envelopes whose time is off,
	// after twice as many at once; the authors of others do not hear that it is.
	stalesPerSecond = 10
	// maxVerdicts is about how many keys it is remembered what trust said, for
	// trustInterval at most.
	maxVerdicts = 4096

	// keyFailuresPerSecond is how many bad signatures are checked for one key
	// that one server delivers envelopes of, wayFailuresPerSecond for all its
	// keys together, each after twice as many at once. Beyond it envelopes of
	// that key, or that server, are dropped unchecked; those that come by other
	// servers are not. A thousand checks are a twentieth of a core.
	keyFailuresPerSecond = 500
	wayFailuresPerSecond = 1000
	// maxFailureKeys is for how many keys of one server they are counted; at
	// that many the count of each begins anew.
	maxFailureKeys = 4096

	// offerGatherWait is how long an offer or answer waits for candidates
	// before it leaves; those found later trickle.
	offerGatherWait = 10 * time.Millisecond
	// attemptTimeout is how long one negotiation may take until its session's
	// hello is verified.
	attemptTimeout = 10 * time.Second
	// resendFirst is when an unanswered envelope is sent again, unchanged and
	// by the next route; the interval then doubles up to resendMax.
	resendFirst = 500 * time.Millisecond
	resendMax   = 2 * time.Second
	// sendWait is how long an envelope may wait for its place in the queue to a
	// server; then it goes by the next route, or is given up if it is a refusal.
	sendWait = 200 * time.Millisecond
	// maxNudges is how often one negotiation repeats its description because
	// the other side is said to have joined: once for each server that an agent
	// registers with, and some. Presence is not verified.
	maxNudges = 8
	// glareWait is how long the owner of the winning offer waits for its
	// answer before it answers the other side's offer as well.
	glareWait = 2 * time.Second
	// redialPause separates two attempts of one Dial, and of one Peer before
	// silence is a partition.
	redialPause = 250 * time.Millisecond
	// redialMost is the longest pause between two attempts of a dial of an agent that
	// does not answer, absentMost of one that nobody has registered: a server tells when
	// it comes.
	redialMost = 4 * time.Second
	absentMost = 30 * time.Second
	// absentAfter is how long neighbours may know an agent that no server does.
	absentAfter = time.Second
	// yieldAfter is when an offer without an answer gives its turn to others that wait.
	yieldAfter = 2 * time.Second
	// dialTold is when the log says why a dial waits, dialToldAgain how often then.
	dialTold      = 2 * time.Second
	dialToldAgain = 30 * time.Second
	// storyWait is how long a dial that is over waits for its attempts to say what they
	// tried.
	storyWait = time.Second
	// hintPause is the least time between two attempts that unverified hints
	// began: presence at a server, a server that is back.
	hintPause = 5 * time.Second
	// unreachablePause is between two attempts for an unreachable Peer of which
	// there is no sign.
	unreachablePause = 10 * time.Minute
	// recoveryJitter spreads the waits between attempts, as a part of each.
	recoveryJitter = 0.2
	// maxLadder is the most Recovery.Attempts: the last wait doubles Backoff
	// that often. Listen refuses more.
	maxLadder = 20
	// maxChanges is how many changes a Peer keeps for readers of Changes; a
	// slower one is told how many it missed.
	maxChanges = 64

	// probePause is the least time between two probes of the signaling
	// servers. A peer that falls silent, or does not answer an envelope, gives
	// reason for one: what is dead may be this agent's own network, and a server
	// that was may be back.
	probePause = 2 * time.Second

	// replaceRelayWait is how long a session that replaces a direct one waits
	// for a direct path before it takes the relay.
	replaceRelayWait = 300 * time.Millisecond
	// networkPause is the least time between two changes of the network that
	// are acted on; those in between count as one, at its end. It doubles up to
	// networkPauseMost, until there was none for as long as that.
	networkPause     = 200 * time.Millisecond
	networkPauseMost = 5 * time.Second
	// adriftBurst is how many new addresses in a row begin the replacement of a session
	// anew whose own has gone; others count once in attemptTimeout.
	adriftBurst = 5
	// networkRetry is how long after a failure what tells of changes of the network
	// is asked again; each further one doubles it, up to networkRetryMost.
	networkRetry     = 500 * time.Millisecond
	networkRetryMost = time.Minute
	// networkPoll is how often the interfaces are looked at when nothing tells of
	// changes, networkLook how often when something does: of routes it tells nothing.
	// networkFollows is how long after a change they are looked at once more: the
	// route comes after its address.
	networkPoll    = 2 * time.Second
	networkLook    = 10 * time.Second
	networkFollows = time.Second
	// clockLook is how often the clock of the world is compared with this process's.
	clockLook = time.Second
	// interfacesFresh is how old a list of the machine's interfaces may be.
	interfacesFresh = time.Second
	// shunFor is how long a Peer prefers other relays to one by which it did not
	// get through; maxShunned is how many it remembers, further ones are not.
	shunFor    = 30 * time.Second
	maxShunned = 64
	// youngSession is the least age at which a session has proved its path: one that
	// dies younger counts as an attempt that failed. After the second in a row the next
	// attempt waits, for Recovery.Backoff and each time four times as long, up to
	// youngPauseMost.
	youngSession   = 10 * time.Second
	youngPauseMost = 2 * time.Minute
	// standbyPause is between two attempts at a standby session; each failure
	// doubles it, up to standbyPauseMost.
	standbyPause     = 2 * time.Second
	standbyPauseMost = 2 * time.Minute
	// promotionLeast is how long a standby session may take at least to answer the
	// hello with which it takes over, promotionMost at most; in between it is four
	// round trips. Then another session is made.
	promotionLeast = 750 * time.Millisecond
	promotionMost  = 3 * time.Second
	// allocationWait is how long a relay may take to give an address before it is
	// in doubt.
	allocationWait = time.Second
	// leaveWithin is the time within which the sessions on a relay that is no longer
	// offered leave it.
	leaveWithin = 3 * time.Second
	// renewPause is between two attempts to leave a relay that is no longer offered
	// or whose credential ends.
	renewPause = 30 * time.Second
	// renewMost is within what time a session leaves a relay whose credential has a
	// successor, at the latest.
	renewMost = time.Hour

	// maxSTUN is how many servers Config.STUN names at most; Listen refuses more.
	// maxSTUNAddresses is how many addresses of each family one of them is asked at:
	// one may be dead, and each costs a socket. Further ones are ignored.
	maxSTUN          = 16
	maxSTUNAddresses = 2
	// nameWait is how long a session waits for name servers, and nameGrace how long
	// after the name of one STUN server is known; then it is made without the rest.
	nameWait  = time.Second
	nameGrace = 200 * time.Millisecond
	// familyWait is how long after the other side's first candidate of another family
	// of addresses than the relay's an allocation of that family is asked for, if it
	// has no other ones; familyLast if it has, and there is no path yet.
	familyWait = 300 * time.Millisecond
	familyLast = 3 * time.Second

	// rankWait is how long Relays.Rank may take before the session is made
	// without a relay.
	rankWait = time.Second

	// maxCarriers is through how many common neighbours one envelope goes each
	// time it is sent; the next time it is others' turn.
	maxCarriers = 8
	// carriedPerSecond is how many envelopes of one neighbour are taken, for
	// this agent or to be passed on, after maxCarriedBurst at once; further
	// ones are dropped, and their authors repeat them.
	carriedPerSecond = 20
	maxCarriedBurst  = 100
	// maxCarried is how many envelopes that neighbours handed over wait for
	// admission; further ones are dropped.
	maxCarried = 64
	// maxCarriedEnvelope is the largest envelope that a session carries, in
	// bytes; a larger one goes by servers only.
	maxCarriedEnvelope = maxFrame - 16
	// maxCarriedQueue is how many bytes may be queued on a session for another
	// envelope to be put on it; beyond, it goes by other routes only.
	maxCarriedQueue = 64 << 10

	// trustInterval is how often the trust policy is asked again about live
	// Peers when it cannot announce its changes.
	trustInterval = 2 * time.Second
	// maxRechecks is about how many Peers it is asked at a time.
	maxRechecks = 8
	// trustTimeout bounds one question to the trust policy.
	trustTimeout = 5 * time.Second

	// ackDelay is how long a position may wait for a frame to travel with.
	ackDelay = 2 * time.Millisecond

	// echoInterval is how often each side sends an echo.
	echoInterval = time.Second
	// defaultSuspectAfter is Recovery.SuspectAfter's default.
	defaultSuspectAfter = 3 * time.Second
	// echoSlack is how much longer the lesser key waits for the other side's
	// echo, to answer it, before it sends its own.
	echoSlack = 100 * time.Millisecond
	// firstRTT is the round trip assumed before the first is measured
	// (RFC 6298 §2.1 says one second for the timeout, which is four of these).
	firstRTT = 250 * time.Millisecond
	// maxRTT is the longest round trip believed; the other side has a say in
	// what is measured.
	maxRTT = 30 * time.Second

	// relayWriteWait is how long a stream to a relay may take a packet; then it is
	// closed.
	relayWriteWait = 2 * time.Second
	// maxPortTries is how many ports of a NetFilter's range are tried for a socket.
	maxPortTries = 256
	// maxTCPConns is how many connections Config.TCPListener has open at a time;
	// further ones are closed at once.
	maxTCPConns = 4096
	// tcpReadQueue is how many packets wait on one of them, tcpWriteBuffer how many
	// bytes; what does not fit is dropped, and SCTP repeats it.
	tcpReadQueue   = 64
	tcpWriteBuffer = 4 << 20

	// linger is how long a closing session may take to hand over what was
	// written to it, the goodbye above all.
	linger = 500 * time.Millisecond
	// closeSpread is within how long the closing of a connection begins, at
	// random, so that two ends do not begin at one instant.
	closeSpread = time.Millisecond
	// oldSessionGrace is added to one round trip before a session that was
	// replaced is closed.
	oldSessionGrace = 100 * time.Millisecond
	// oldSessionMost is the longest round trip believed for that: the other
	// side has a say in what is measured.
	oldSessionMost = 2 * time.Second

	// bufferHigh and bufferLow are the water marks of a data channel, in
	// bytes queued and not yet acknowledged by the other side's SCTP.
	bufferHigh = 512 << 10
	bufferLow  = 256 << 10
	// socketBuffer is the size asked for a UDP socket's kernel buffers.
	socketBuffer = 4 << 20

	// certificateAhead is how long before its end a DTLS certificate is no
	// longer used for new sessions.
	certificateAhead = 7 * 24 * time.Hour
)

// minWindow is the least Config.Window: a few frames. Listen refuses less.
const minWindow = 64 << 10

// DefaultWindow is the default of Config.Window, in bytes.
const DefaultWindow = 4 << 20
