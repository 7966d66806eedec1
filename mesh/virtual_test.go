package mesh

import (
	"context"
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/infrafabric/agentmesh/internal/virtual"
)

// TestDialTime: RTT 50 ms, each envelope takes 25 ms; from Dial to the first
// verified message at the other side.
func TestDialTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := virtual.New(t, virtual.Config{RTT: 50 * time.Millisecond})
		defer world.Close()
		h := newHub(25 * time.Millisecond)
		a, b := newIdentity(t, "agent-a"), newIdentity(t, "agent-b")
		trust := newBook(a, b)
		hostA, err := world.Host(virtual.Open)
		if err != nil {
			t.Fatal(err)
		}
		hostB, err := world.Host(virtual.Open)
		if err != nil {
			t.Fatal(err)
		}
		nodeA := startNode(t, h, nil, Config{Identity: a, Trust: trust, Net: hostA})
		nodeB := startNode(t, h, nil, Config{Identity: b, Trust: trust, Net: hostB})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()

		start := time.Now()
		p, err := nodeA.Dial(ctx, "agent-b")
		if err != nil {
			t.Fatal(err)
		}
		dialled := time.Since(start)
		if err := p.Send(ctx, Message{Payload: json.RawMessage(`{"hello":1}`)}); err != nil {
			t.Fatal(err)
		}
		q, err := nodeB.Accept(ctx)
		if err != nil {
			t.Fatal(err)
		}
		m, err := q.Receive(ctx)
		if err != nil {
			t.Fatal(err)
		}
		took := time.Since(start)
		t.Logf("dialled in %v, first verified message after %v", dialled, took)
		if err := m.Verify(ctx, "default", trust); err != nil {
			t.Error(err)
		}
		if took > 300*time.Millisecond {
			t.Errorf("first verified message after %v", took)
		}
		if err := p.Flush(ctx); err != nil {
			t.Error(err)
		}
		if err := nodeA.Close(); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if err := nodeB.Close(); err != nil {
			t.Error(err)
		}
	})
}
