// Package promexport connects the mesh's instruments to Prometheus: a meter
// provider to put into configurations and an http.Handler to scrape.
//
// It is a package of its own so that only programs that import it carry the
// OpenTelemetry SDK and the Prometheus client.
package promexport
