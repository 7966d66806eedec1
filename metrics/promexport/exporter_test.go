package promexport_test

import (
	"bufio"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.uber.org/goleak"

	"github.com/infrafabric/agentmesh/metrics"
	"github.com/infrafabric/agentmesh/metrics/promexport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// names are the families that dashboards rely on, with their Prometheus type.
var names = map[string]string{
	"webrtc_connections_attempted_total":           "counter",
	"webrtc_connections_established_total":         "counter",
	"webrtc_connections_failed_total":              "counter",
	"webrtc_connections_dropped_total":             "counter",
	"webrtc_turn_fallback_total":                   "counter",
	"webrtc_connections":                           "gauge",
	"webrtc_agent_connected":                       "gauge",
	"webrtc_connection_establishment_seconds":      "histogram",
	"webrtc_rtt_milliseconds":                      "histogram",
	"webrtc_message_delivery_milliseconds":         "histogram",
	"webrtc_messages_sent_total":                   "counter",
	"webrtc_messages_received_total":               "counter",
	"webrtc_message_errors_total":                  "counter",
	"webrtc_messages_lost_total":                   "counter",
	"webrtc_send_queue_messages":                   "gauge",
	"webrtc_dtls_validation_success_total":         "counter",
	"webrtc_dtls_validation_failures_total":        "counter",
	"webrtc_signature_verification_success_total":  "counter",
	"webrtc_signature_verification_failures_total": "counter",
	"webrtc_security_events_total":                 "counter",
	"webrtc_srtp_key_rotations_total":              "counter",
	"webrtc_signaling_connected":                   "gauge",
	"webrtc_signaling_errors_total":                "counter",
	"webrtc_signaling_agents":                      "gauge",
	"webrtc_signaling_relayed_total":               "counter",
	"webrtc_turn_server_healthy":                   "gauge",
	"webrtc_turn_probe_milliseconds":               "histogram",
}

// touchAll records one value with every instrument.
func touchAll(t *testing.T, mp metric.MeterProvider) {
	t.Helper()
	ins, err := metrics.New(mp)
	if err != nil {
		t.Fatal(err)
	}
	v := reflect.ValueOf(*ins)
	for i := range v.NumField() {
		switch in := v.Field(i).Interface().(type) {
		case metric.Float64Histogram:
			in.Record(t.Context(), 1, metric.WithAttributes(metrics.ConnectionType.String("p2p")))
		case metric.Int64Counter:
			in.Add(t.Context(), 1, metric.WithAttributes(metrics.State.String("x")))
		case metric.Int64UpDownCounter:
			in.Add(t.Context(), 1, metric.WithAttributes(metrics.Server.String("x")))
		default:
			t.Fatalf("unknown instrument %T", in)
		}
	}
}

// families reads name and type of every webrtc_ family, and all names.
func families(t *testing.T, text string) (webrtc map[string]string, all []string) {
	t.Helper()
	webrtc = make(map[string]string)
	for s := bufio.NewScanner(strings.NewReader(text)); s.Scan(); {
		f := strings.Fields(s.Text())
		if len(f) == 4 && f[1] == "TYPE" {
			all = append(all, f[2])
			if strings.HasPrefix(f[2], "webrtc_") {
				webrtc[f[2]] = f[3]
			}
		}
	}
	return webrtc, all
}

func TestExactNames(t *testing.T) {
	exp, err := promexport.New(promexport.Config{})
	if err != nil {
		t.Fatal(err)
	}
	touchAll(t, exp.MeterProvider())
	rec := httptest.NewRecorder()
	exp.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	text := rec.Body.String()
	got, all := families(t, text)
	if !reflect.DeepEqual(got, names) {
		t.Errorf("got %v\nwant %v", got, names)
	}
	for _, want := range []string{"go_goroutines", "process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"} {
		if !slices.Contains(all, want) {
			t.Errorf("%s is missing", want)
		}
	}
	for _, noise := range []string{"otel_scope", "target_info"} {
		if strings.Contains(text, noise) {
			t.Errorf("the text contains %s", noise)
		}
	}
	if want := `webrtc_rtt_milliseconds_bucket{connection_type="p2p",le="1.0"} 1`; !strings.Contains(strings.ReplaceAll(text, `le="1"`, `le="1.0"`), want) {
		t.Errorf("no line %s", want)
	}
	if err := exp.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// A program may bring an exporter of its own, with its default settings.
func TestNamesWithDefaultTranslation(t *testing.T) {
	reg := prometheus.NewRegistry()
	reader, err := otelprom.New(otelprom.WithRegisterer(reg))
	if err != nil {
		t.Fatal(err)
	}
	touchAll(t, sdk.NewMeterProvider(sdk.WithReader(reader)))
	rec := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	if got, _ := families(t, rec.Body.String()); !reflect.DeepEqual(got, names) {
		t.Errorf("got %v\nwant %v", got, names)
	}
}

func TestConfig(t *testing.T) {
	if _, err := promexport.New(promexport.Config{CardinalityLimit: -1}); err == nil {
		t.Error("a negative limit was accepted")
	}
	reg := prometheus.NewRegistry()
	if _, err := promexport.New(promexport.Config{Registry: reg}); err != nil {
		t.Fatal(err)
	}
	if got, _ := reg.Gather(); len(got) != 0 {
		t.Errorf("the caller's registry got %d families", len(got))
	}
}
