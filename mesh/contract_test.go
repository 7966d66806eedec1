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
