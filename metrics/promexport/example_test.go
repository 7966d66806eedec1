package promexport_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/infrafabric/agentmesh/metrics"
	"github.com/infrafabric/agentmesh/metrics/promexport"
)

func ExampleNew() {
	exp, err := promexport.New(promexport.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer exp.Shutdown(context.Background())

	// The same provider goes into the configuration of nodes and servers.
	ins, err := metrics.New(exp.MeterProvider())
	if err != nil {
		fmt.Println(err)
		return
	}
	ins.MessagesSent.Add(context.Background(), 3)

	mux := http.NewServeMux()
	mux.Handle("GET /metrics", exp.Handler())
	rec := httptest.NewRecorder()
	mux.ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	for line := range strings.Lines(rec.Body.String()) {
		if strings.HasPrefix(line, "webrtc_") {
			fmt.Print(line)
		}
	}
	// Output: webrtc_messages_sent_total 3
}
