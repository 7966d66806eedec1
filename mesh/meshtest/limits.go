package meshtest

import "time"

// What a universe may have at most; more of it fails the test.
const (
	// MaxAgents is how many agents; one more fails the test.
	MaxAgents = 1000
	// MaxServers is how many signaling servers; more fail the test.
	MaxServers = 16
	// MaxRelays is how many relays; more fail the test.
	MaxRelays = 16
)

const (
	// maxTimeline is how many lines of a timeline are kept, the newest; how many
	// are missing stands in its first line.
	maxTimeline = 4000
	// maxProblems is how many problems of the traffic are reported; further ones
	// are only counted.
	maxProblems = 10
	// maxKept is how many envelopes a muddled server keeps of each connection, to
	// repeat them; older ones are not repeated.
	maxKept = 8
	// envelopeSize is by how much a message is larger than its payload, at most, when an
	// account asks whether it fits a window.
	envelopeSize = 1 << 10
	// settleTime is how long Settle waits, in virtual time, for everything to
	// arrive once everybody runs and reaches everybody. The longest wait of a
	// recovery is half of it.
	settleTime = 20 * time.Minute
	// lookupTime is after how long the name of a signaling server is given up, as the
	// resolver of an operating system does.
	lookupTime = 30 * time.Second
	// lingerTime is how long a universe goes on after its agents have left.
	lingerTime = time.Minute
	// listenTime bounds how long a process waits for its first server; then it
	// gives up, as one that a supervisor starts does.
	listenTime = 10 * time.Second
)
