package witness_test

import (
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/infrafabric/agentmesh/witness"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// full has a value in every field.
var full = witness.Event{
	Name: witness.SDPOfferRelayed, Time: time.Date(2026, 11, 23, 10, 0, 0, 120e6, time.UTC),
	AgentID: "agent-a", PeerID: "agent-b", TraceID: "4bf92f3577b34da6a3ce929d0e0e4736",
	Severity: witness.Critical, SDPHash: "ab12", ICECandidate: "srflx udp", IncidentID: "SEC-1",
	DeploymentID: "d-7", FailoverID: "f-1", Metadata: map[string]any{"state": "connected"},
}

func TestEventGolden(t *testing.T) {
	want, err := os.ReadFile("testdata/event.json")
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.MarshalIndent(full, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if string(got)+"\n" != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	var back witness.Event
	if err := json.Unmarshal(want, &back); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(back, full) {
		t.Errorf("read back %+v", back)
	}
}

func TestEventEveryFieldIsFilled(t *testing.T) {
	v := reflect.ValueOf(full)
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Errorf("the golden event lacks %s", v.Type().Field(i).Name)
		}
	}
}

func TestEventTimesSortAsText(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600))
	a, _ := json.Marshal(witness.Event{Name: "x", Time: at})
	if want := `"timestamp":"2026-01-02T02:04:05.000Z"`; !strings.Contains(string(a), want) {
		t.Errorf("%s lacks %s", a, want)
	}
	if want := `"severity":"info"`; !strings.Contains(string(a), want) {
		t.Errorf("%s lacks %s", a, want)
	}
}

func TestEventRejectsBadTimestamps(t *testing.T) {
	for _, s := range []string{`{"event":"x"}`, `{"event":"x","timestamp":"yesterday"}`, `{"event":1}`} {
		if err := json.Unmarshal([]byte(s), new(witness.Event)); err == nil {
			t.Errorf("%s was accepted", s)
		}
	}
}

func TestDiscard(t *testing.T) { witness.Discard.Record(t.Context(), full) }
