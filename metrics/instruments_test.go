package metrics_test

import (
	"errors"
	"reflect"
	"testing"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"go.uber.org/goleak"

	"github.com/infrafabric/agentmesh/metrics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestNewFillsEveryField(t *testing.T) {
	ins, err := metrics.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	v := reflect.ValueOf(*ins)
	for i := range v.NumField() {
		if v.Field(i).IsNil() {
			t.Errorf("%s is nil", v.Type().Field(i).Name)
		}
	}
	ins.MessagesSent.Add(t.Context(), 1) // measures nothing and does not panic
}

var errNoInstruments = errors.New("no instruments today")

type brokenProvider struct{ noop.MeterProvider }
type brokenMeter struct{ noop.Meter }

func (brokenProvider) Meter(string, ...metric.MeterOption) metric.Meter { return brokenMeter{} }
func (brokenMeter) Int64Counter(string, ...metric.Int64CounterOption) (metric.Int64Counter, error) {
	return noop.Int64Counter{}, errNoInstruments
}

func TestNewReportsTheProvidersError(t *testing.T) {
	if _, err := metrics.New(brokenProvider{}); !errors.Is(err, errNoInstruments) {
		t.Errorf("err = %v", err)
	}
}
