package meshtest_test

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/infrafabric/agentmesh/mesh"
	"github.com/infrafabric/agentmesh/mesh/meshtest"
	"github.com/infrafabric/agentmesh/witness"
)

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// sums reads the counters of a reader: name, and name with an attribute's value.
func sums(t *testing.T, r *sdk.ManualReader) map[string]int64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := r.Collect(context.Background(), &all); err != nil {
		t.Fatal(err)
	}
	got := map[string]int64{}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			data, ok := m.Data.(metricdata.Sum[int64])
			if !ok {
				continue
			}
			for _, p := range data.DataPoints {
				got[m.Name] += p.Value
				for _, kv := range p.Attributes.ToSlice() {
					if kv.Key == attribute.Key("state") || kv.Key == attribute.Key("reason") {
						got[m.Name+" "+kv.Value.AsString()] += p.Value
					}
				}
			}
		}
	}
	return got
}

// TestChangesAreTold: states, reasons and paths reach the application, the log, the
// recorder and the instruments, and none of the four says another thing.
func TestChangesAreTold(t *testing.T) {
	t.Parallel()
	reader := sdk.NewManualReader()
	provider := sdk.NewMeterProvider(sdk.WithReader(reader))
	events, text := new(log), new(lockedBuffer)
	cfg := meshtest.Config{RTT: rtt, Configure: func(name string, c *mesh.Config) {
		if name == "a" {
			c.Recorder, c.MeterProvider = events, provider
			c.Logger = slog.New(slog.NewTextHandler(text, nil))
			c.Recovery.Attempts = 2
		}
	}}
	meshtest.Run(t, cfg, func(u *meshtest.Universe) {
		a := u.Agent("a", meshtest.Open)
		u.Agent("b", meshtest.Open)
		p := a.Dial("b")
		var told []string
		over := make(chan struct{})
		go func() {
			defer close(over)
			for c := range p.Changes(context.Background()) {
				told = append(told, c.State.String()+" "+c.Reason.String()+" "+c.Path.String())
			}
		}()
		gauge := func(when string, want map[string]int64) {
			t.Helper()
			got := sums(t, reader)
			for name, n := range want {
				if got[name] != n {
					t.Errorf("%s: %s is %d, want %d", when, name, got[name], n)
				}
			}
		}
		time.Sleep(time.Second)
		gauge("connected", map[string]int64{"webrtc_connections connected": 1, "webrtc_connections pending": 0, "webrtc_agent_connected": 1})
		if err := p.Replace(context.Background()); err != nil {
			t.Error(err)
		}
		gauge("replaced", map[string]int64{"webrtc_connections connected": 1, "webrtc_srtp_key_rotations_total requested": 1, "webrtc_srtp_key_rotations_total": 1,
			"webrtc_connections_attempted_total": 2, "webrtc_connections_established_total": 2, "webrtc_connections_failed_total": 0})
		time.Sleep(time.Second)
		u.Partition([]string{"a"}, []string{"b"})
		time.Sleep(10 * time.Second)
		gauge("suspect", map[string]int64{"webrtc_connections connected": 1, "webrtc_agent_connected": 1})
		time.Sleep(25 * time.Second)
		gauge("recovering", map[string]int64{"webrtc_connections connected": 0, "webrtc_connections pending": 1, "webrtc_agent_connected": 0})
		time.Sleep(time.Minute)
		gauge("unreachable", map[string]int64{"webrtc_connections pending": 0, "webrtc_connections failed": 1})
		u.Heal()
		await(p, mesh.StateConnected)
		gauge("back", map[string]int64{"webrtc_connections failed": 0, "webrtc_connections connected": 1, "webrtc_agent_connected": 1})
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		<-over
		gauge("closed", map[string]int64{"webrtc_connections connected": 0, "webrtc_connections pending": 0, "webrtc_agent_connected": 0})

		want := []string{"connected dial host to ", "replacing requested host to ", "connected requested host to ",
			"suspect silence host to ", "recovering partition none"}
		want = append(want, slices.Repeat([]string{"recovering partition none"}, 6)...) // detected, and two attempts each scheduled, begun
		want = append(want, "unreachable attempts exhausted none")
		for i, w := range want {
			if i >= len(told) || !strings.HasPrefix(told[i], w) {
				t.Fatalf("the application was told %q, want %q", told, want)
			}
		}
		if last := told[len(told)-1]; last != "closed ended none" {
			t.Errorf("last it was told %q", last)
		}
		// What the recorder got are the same states, and the log has them.
		var recorded []string
		for _, e := range events.events {
			if e.Name == witness.ConnectionStateChanged {
				recorded = append(recorded, e.Metadata["state"].(string)+" "+e.Metadata["reason"].(string)+" "+e.Metadata["path"].(string))
			}
		}
		once := slices.Compact(slices.Clone(told))
		if !slices.Equal(slices.Compact(recorded), once) {
			t.Errorf("recorded %q, told %q", recorded, once)
		}
		for _, s := range []string{"peer connected", "peer replacing", "peer suspect", "peer recovering", "peer unreachable", "peer closed",
			"reason=silence", `reason="attempts exhausted"`, "mesh_partition_detected", "mesh_partition_healed"} {
			if !strings.Contains(text.String(), s) {
				t.Errorf("the log does not say %s:\n%s", s, text)
			}
		}
	})
}

// TestPairHealsThroughNeighbour: no server is left, and the session of a pair is
// dead for good, with the relay that carried it; there is no standby session. The pair shares a neighbour, and
// makes its next session through that.
func TestPairHealsThroughNeighbour(t *testing.T) {
	t.Parallel()
	meshtest.Run(t, meshtest.Config{RTT: rtt, Servers: 2, Relays: 2, Configure: without}, func(u *meshtest.Universe) {
		a := u.Agent("a", meshtest.Symmetric)
		b := u.Agent("b", meshtest.Symmetric)
		u.Agent("c", meshtest.Open)
		a.Dial("c")
		b.Dial("c")
		u.Traffic("a", "b", 20*time.Millisecond, 1)
		u.Traffic("b", "a", 20*time.Millisecond, 1)
		u.AwaitTraffic("a", "b")
		u.AwaitTraffic("b", "a")
		if path := a.Dial("b").Status().Path; !path.Relayed() {
			t.Fatalf("a and b are connected %v", path)
		}
		u.Kill("s1")
		u.Kill("s2")
		time.Sleep(5 * time.Second)
		u.LongestGap("a", "b")
		u.LongestGap("b", "a")
		u.Kill(u.Carrier(a.Dial("b")))
		time.Sleep(10 * time.Second)
		gaps(t, u, "a dead relay and no server", 3*time.Second)
		u.Settle()
	})
}
