package metrics_test

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/infrafabric/agentmesh/metrics"
)

// Any meter provider will do; mesh.Config and signaling take it from there.
func ExampleNew() {
	ctx := context.Background()
	reader := metric.NewManualReader()
	ins, err := metrics.New(metric.NewMeterProvider(metric.WithReader(reader)))
	if err != nil {
		fmt.Println(err)
		return
	}
	ins.MessagesSent.Add(ctx, 3)

	var got metricdata.ResourceMetrics
	if err := reader.Collect(ctx, &got); err != nil {
		fmt.Println(err)
		return
	}
	m := got.ScopeMetrics[0].Metrics[0]
	fmt.Println(m.Name, m.Data.(metricdata.Sum[int64]).DataPoints[0].Value)
	// Output: webrtc_messages_sent_total 3
}
