package signalingtest_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/infrafabric/agentmesh/signaling"
	"github.com/infrafabric/agentmesh/signaling/signalingtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The suite itself is tested on the broker that is part of the SDK.
func TestBroker(t *testing.T) {
	signalingtest.TestBroker(t, func(*testing.T) (a, b signaling.Broker) {
		broker := signaling.NewBroker()
		return broker, broker
	})
}
