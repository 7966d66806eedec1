package mesh

import (
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/keys"
)

// TestContract: the limits of the protocol, by which both sides must count alike, and
// the defaults that the documentation names are what they were.
func TestContract(t *testing.T) {
	c, err := Config{Identity: newIdentity(t, "agent-a"), Trust: keys.TrustAny, Signaling: []string{"ws://s1/"}}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []struct {
		name      string
		got, want int64
	}{
		{"MaxMessage", MaxMessage, 1_048_576},
		{"MaxMessageJSON", MaxMessageJSON, 4_194_304},
		{"MaxNesting", MaxNesting, 64},
		{"maxIDLen", maxIDLen, 128},
		{"maxPerformative", maxPerformative, 64},
		{"maxConversation", maxConversation, 255},
		{"maxTraceID", maxTraceID, 64},
		{"maxCitations", maxCitations, 64},
		{"maxCitationLen", maxCitationLen, 255},
		{"maxExtra", maxExtra, 64},
		{"maxExtraName", maxExtraName, 128},
		{"maxTree", maxTree, 1024},
		{"maxPath", maxPath, 10},
		{"maxFrame", maxFrame, 16_384},
		{"helloLeast", helloLeast, 1160},
		{"pieceLeast", pieceLeast, 576},
		{"pieceMost", pieceMost, 940},
		{"maxJoined", maxJoined, 1_049_600},
		{"recordOverhead", recordOverhead, 64},
		{"maxPositions", maxPositions, 64},
		{"maxOffset", maxOffset, 4_611_686_018_427_387_904},
		{"maxAbilities", maxAbilities, 32},
		{"maxAbility", maxAbility, 64},
		{"maxRelayName", maxRelayName, 255},
		{"maxSDP", maxSDP, 16_384},
		{"maxRemoteCandidates", maxRemoteCandidates, 32},
		{"maxCandidateLen", maxCandidateLen, 512},
		{"maxListed", maxListed, 1024},
		{"maxReason", maxReason, 200},
		{"maxMillis", maxMillis, 253_402_300_799_999},
		{"maxCarriedEnvelope", maxCarriedEnvelope, 16_368},
		{"minWindow", minWindow, 65_536},
		{"Window", int64(c.Window), 4_194_304},
		{"Recovery.Attempts", int64(c.Recovery.Attempts), 10},
	} {
		if n.got != n.want {
			t.Errorf("%s is %d, and %d is documented", n.name, n.got, n.want)
		}
	}
	for _, d := range []struct {
		name      string
		got, want time.Duration
	}{
		{"freshness", freshness, 5 * time.Minute},
		{"attemptTimeout", attemptTimeout, 10 * time.Second},
		{"echoInterval", echoInterval, time.Second},
		{"trustInterval", trustInterval, 2 * time.Second},
		{"dialTold", dialTold, 2 * time.Second},
		{"youngSession", youngSession, 10 * time.Second},
		{"youngPauseMost", youngPauseMost, 2 * time.Minute},
		{"shunFor", shunFor, 30 * time.Second},
		{"certificateAhead", certificateAhead, 7 * 24 * time.Hour},
		{"Recovery.SuspectAfter", c.Recovery.SuspectAfter, 3 * time.Second},
		{"Recovery.AckTimeout", c.Recovery.AckTimeout, 500 * time.Millisecond},
		{"Recovery.PartitionAfter", c.Recovery.PartitionAfter, 30 * time.Second},
		{"Recovery.Backoff", c.Recovery.Backoff, time.Second},
		{"Paths.RelayAfter", c.Paths.RelayAfter, 5 * time.Second},
		{"Paths.DirectEvery", c.Paths.DirectEvery, 30 * time.Second},
		{"Paths.DirectMost", c.Paths.DirectMost, 10 * time.Minute},
		{"Paths.StandbyAfter", c.Paths.StandbyAfter, time.Second},
	} {
		if d.got != d.want {
			t.Errorf("%s is %v, and %v is documented", d.name, d.got, d.want)
		}
	}
}

// TestFigures: what was chosen by measuring, or against one another, is what it was. Whoever
// changes one changes it here as well, and says why.
func TestFigures(t *testing.T) {
	for _, n := range []struct {
		name      string
		got, want int64
	}{
		{"helloRoundTrips", helloRoundTrips, 5},
		{"pieceSize", pieceSize, 920},
		{"batchSize", batchSize, 32_768},
		{"partSize", partSize, 16_320},
		{"maxHelloText", maxHelloText, 64},
		{"maxHostAddresses", maxHostAddresses, 12},
		{"maxTCPCandidates", maxTCPCandidates, 6},
		{"maxReflexiveCandidates", maxReflexiveCandidates, 10},
		{"maxRelayCandidates", maxRelayCandidates, 4},
		{"maxNonces", maxNonces, 4096},
		{"maxNonceKeys", maxNonceKeys, 4096},
		{"maxPeers", maxPeers, 4096},
		{"maxProbes", maxProbes, 256},
		{"maxNegotiating", maxNegotiating, 256},
		{"maxAnswering", int64(maxAnswering), 512},
		{"maxAttempts", maxAttempts, 4},
		{"minCwnd", minCwnd, 65_536},
		{"sctpReceive", sctpReceive, 4_194_304},
		{"a generation's slack", int64(furthest(time.UnixMilli(5), 0)), 5 + 600_000},
		{"a generation's slack after an agreement", int64(furthest(time.UnixMilli(5), 7)), 7 + 600_000},
		{"maxIncoming", maxIncoming, 256},
		{"attemptInbox", attemptInbox, 34},
		{"maxTasks", maxTasks, 16},
		{"maxTried", maxTried, 12},
		{"negotiationsPerSecond", negotiationsPerSecond, 1},
		{"maxNegotiationsBurst", maxNegotiationsBurst, 128},
		{"maxSessions", maxSessions, 3},
		{"maxLedgers", maxLedgers, 4096},
		{"maxRefusedInstances", maxRefusedInstances, 64},
		{"maxEvents", maxEvents, 4096},
		{"acceptBacklog", acceptBacklog, 128},
		{"maxEarly", maxEarly, 16},
		{"rejectsPerSecond", rejectsPerSecond, 20},
		{"maxRefusals", maxRefusals, 64},
		{"maxJudging", maxJudging, 64},
		{"maxStrangers", maxStrangers, 256},
		{"maxAuthorItems", maxAuthorItems, 38},
		{"maxJudgingBytes", maxJudgingBytes, 8_388_608},
		{"newKeysPerSecond", newKeysPerSecond, 1000},
		{"stalesPerSecond", stalesPerSecond, 10},
		{"maxVerdicts", maxVerdicts, 4096},
		{"keyFailuresPerSecond", keyFailuresPerSecond, 500},
		{"wayFailuresPerSecond", wayFailuresPerSecond, 1000},
		{"maxFailureKeys", maxFailureKeys, 4096},
		{"maxNudges", maxNudges, 8},
		{"maxLadder", maxLadder, 20},
		{"maxChanges", maxChanges, 64},
		{"adriftBurst", adriftBurst, 5},
		{"maxShunned", maxShunned, 64},
		{"maxSTUN", maxSTUN, 16},
		{"maxSTUNAddresses", maxSTUNAddresses, 2},
		{"maxCarriers", maxCarriers, 8},
		{"carriedPerSecond", carriedPerSecond, 20},
		{"maxCarriedBurst", maxCarriedBurst, 100},
		{"maxCarried", maxCarried, 64},
		{"maxCarriedQueue", maxCarriedQueue, 65_536},
		{"maxRechecks", maxRechecks, 8},
		{"maxPortTries", maxPortTries, 256},
		{"maxTCPConns", maxTCPConns, 4096},
		{"tcpReadQueue", tcpReadQueue, 64},
		{"tcpWriteBuffer", tcpWriteBuffer, 4_194_304},
		{"bufferHigh", bufferHigh, 524_288},
		{"bufferLow", bufferLow, 262_144},
		{"socketBuffer", socketBuffer, 4_194_304},
		{"DefaultWindow", DefaultWindow, 4_194_304},
	} {
		if n.got != n.want {
			t.Errorf("%s is %d, and was %d", n.name, n.got, n.want)
		}
	}
	for _, d := range []struct {
		name      string
		got, want time.Duration
	}{
		{"helloWait", helloWait, 3 * time.Second},
		{"helloAgain", helloAgain, 500 * time.Millisecond},
		{"recorderWait", recorderWait, time.Second},
		{"clockTold", clockTold, time.Minute},
		{"offerGatherWait", offerGatherWait, 10 * time.Millisecond},
		{"resendFirst", resendFirst, 500 * time.Millisecond},
		{"resendMax", resendMax, 2 * time.Second},
		{"sendWait", sendWait, 200 * time.Millisecond},
		{"glareWait", glareWait, 2 * time.Second},
		{"redialPause", redialPause, 250 * time.Millisecond},
		{"redialMost", redialMost, 4 * time.Second},
		{"absentMost", absentMost, 30 * time.Second},
		{"absentAfter", absentAfter, time.Second},
		{"yieldAfter", yieldAfter, 2 * time.Second},
		{"dialToldAgain", dialToldAgain, 30 * time.Second},
		{"storyWait", storyWait, time.Second},
		{"hintPause", hintPause, 5 * time.Second},
		{"unreachablePause", unreachablePause, 10 * time.Minute},
		{"probePause", probePause, 2 * time.Second},
		{"replaceRelayWait", replaceRelayWait, 300 * time.Millisecond},
		{"networkPause", networkPause, 200 * time.Millisecond},
		{"networkPauseMost", networkPauseMost, 5 * time.Second},
		{"networkRetry", networkRetry, 500 * time.Millisecond},
		{"networkRetryMost", networkRetryMost, time.Minute},
		{"networkPoll", networkPoll, 2 * time.Second},
		{"networkLook", networkLook, 10 * time.Second},
		{"networkFollows", networkFollows, time.Second},
		{"clockLook", clockLook, time.Second},
		{"interfacesFresh", interfacesFresh, time.Second},
		{"standbyPause", standbyPause, 2 * time.Second},
		{"standbyPauseMost", standbyPauseMost, 2 * time.Minute},
		{"promotionLeast", promotionLeast, 750 * time.Millisecond},
		{"promotionMost", promotionMost, 3 * time.Second},
		{"allocationWait", allocationWait, time.Second},
		{"leaveWithin", leaveWithin, 3 * time.Second},
		{"renewPause", renewPause, 30 * time.Second},
		{"renewMost", renewMost, time.Hour},
		{"nameWait", nameWait, time.Second},
		{"nameGrace", nameGrace, 200 * time.Millisecond},
		{"familyWait", familyWait, 300 * time.Millisecond},
		{"familyLast", familyLast, 3 * time.Second},
		{"rankWait", rankWait, time.Second},
		{"trustTimeout", trustTimeout, 5 * time.Second},
		{"reflexiveWait", reflexiveWait, 20 * time.Millisecond},
		{"rtoLeast", rtoLeast, 300 * time.Millisecond},
		{"rtoMost", rtoMost, 10 * time.Second},
		{"sackDelay", sackDelay, 200 * time.Millisecond},
		{"disconnectedAfter", disconnectedAfter, 5 * time.Second},
		{"keepAlive", keepAlive, 2 * time.Second},
		{"checkInterval", checkInterval, 200 * time.Millisecond},
		{"ackDelay", ackDelay, 2 * time.Millisecond},
		{"defaultSuspectAfter", defaultSuspectAfter, 3 * time.Second},
		{"echoSlack", echoSlack, 100 * time.Millisecond},
		{"firstRTT", firstRTT, 250 * time.Millisecond},
		{"maxRTT", maxRTT, 30 * time.Second},
		{"relayWriteWait", relayWriteWait, 2 * time.Second},
		{"linger", linger, 500 * time.Millisecond},
		{"closeSpread", closeSpread, time.Millisecond},
		{"oldSessionGrace", oldSessionGrace, 100 * time.Millisecond},
		{"oldSessionMost", oldSessionMost, 2 * time.Second},
	} {
		if d.got != d.want {
			t.Errorf("%s is %v, and was %v", d.name, d.got, d.want)
		}
	}
	if recoveryJitter != 0.2 {
		t.Errorf("recoveryJitter is %v, and was 0.2", recoveryJitter)
	}
}
