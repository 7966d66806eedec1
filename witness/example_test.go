package witness_test

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/infrafabric/agentmesh/witness"
)

// A recorder that prints each event as one line of JSON.
func ExampleRecorderFunc() {
	var rec witness.Recorder = witness.RecorderFunc(func(_ context.Context, e witness.Event) {
		b, err := json.Marshal(e)
		if err != nil {
			return
		}
		fmt.Println(string(b))
	})
	rec.Record(context.Background(), witness.Event{
		Name:    witness.AgentRegistered,
		Time:    time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC),
		AgentID: "agent-a",
	})
	// Output: {"event":"agent_registered","timestamp":"2026-11-23T10:00:00.000Z","agent_id":"agent-a","severity":"info"}
}
