package promexport

import (
	"context"
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/otlptranslator"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdk "go.opentelemetry.io/otel/sdk/metric"
)

// Config says what an [Exporter] serves. The zero value is complete.
type Config struct {
	// Registry is where the metrics are registered, so that a program's own
	// Prometheus metrics can be served together with them. Nil means a new
	// registry with the standard Go and process collectors (goroutines, memory,
	// CPU seconds, file descriptors); a registry of the caller's gets no
	// collectors added.
	Registry *prometheus.Registry
	// CardinalityLimit is how many attribute sets each instrument may have;
	// further ones are counted under otel_metric_overflow="true". Zero means
	// 2000; negative is an error.
	CardinalityLimit int
}

// Exporter is a meter provider whose state Prometheus can scrape. All methods
// may be called concurrently.
type Exporter struct {
	provider *sdk.MeterProvider
	handler  http.Handler
}

// New returns an exporter. It starts no goroutine; Shutdown ends it.
func New(cfg Config) (*Exporter, error) {
	if cfg.CardinalityLimit < 0 {
		return nil, fmt.Errorf("promexport: Config.CardinalityLimit is %d, must not be negative", cfg.CardinalityLimit)
	}
	if cfg.CardinalityLimit == 0 {
		cfg.CardinalityLimit = 2000
	}
	if cfg.Registry == nil {
		cfg.Registry = prometheus.NewRegistry()
		for _, c := range []prometheus.Collector{
			collectors.NewGoCollector(),
			collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		} {
			if err := cfg.Registry.Register(c); err != nil {
				return nil, fmt.Errorf("promexport: %w", err)
			}
		}
	}
	reader, err := otelprom.New(
		otelprom.WithRegisterer(cfg.Registry),
		// The names are Prometheus names already: nothing is to be added.
		otelprom.WithTranslationStrategy(otlptranslator.NoTranslation),
		// One scope and no resource: their labels would only be noise.
		otelprom.WithoutScopeInfo(),
		otelprom.WithoutTargetInfo(),
	)
	if err != nil {
		return nil, fmt.Errorf("promexport: %w", err)
	}
	return &Exporter{
		provider: sdk.NewMeterProvider(sdk.WithReader(reader), sdk.WithCardinalityLimit(cfg.CardinalityLimit)),
		handler:  promhttp.HandlerFor(cfg.Registry, promhttp.HandlerOpts{}),
	}, nil
}

// MeterProvider returns the provider to create instruments with.
func (e *Exporter) MeterProvider() metric.MeterProvider { return e.provider }

// Handler serves the metrics in the Prometheus text format. It checks no
// credentials: mount it where only the scraper gets.
func (e *Exporter) Handler() http.Handler { return e.handler }

// Shutdown ends the provider: its instruments record nothing any more. A
// second call is an error of the OpenTelemetry SDK.
func (e *Exporter) Shutdown(ctx context.Context) error {
	if err := e.provider.Shutdown(ctx); err != nil {
		return fmt.Errorf("promexport: shutdown: %w", err)
	}
	return nil
}
