package signalingtest_test

import (
	"testing"

	"github.com/infrafabric/agentmesh/signaling"
	"github.com/infrafabric/agentmesh/signaling/signalingtest"
)

// A test of a broker of one's own; NewBroker stands for it here.
func ExampleTestBroker() {
	_ = func(t *testing.T) { // func TestMyBroker
		signalingtest.TestBroker(t, func(t *testing.T) (a, b signaling.Broker) {
			shared := signaling.NewBroker()
			return shared, shared
		})
	}
}
