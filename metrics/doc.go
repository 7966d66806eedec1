// Package metrics holds the OpenTelemetry instruments of the mesh, one field
// each, under the Prometheus names that dashboards and alert rules rely on.
//
// It needs the OpenTelemetry API only. Pass [New] the meter provider of your
// program; package metrics/promexport makes one that serves Prometheus. The
// instruments' names already carry their unit and `_total`, so every common
// translation from OpenTelemetry to Prometheus leaves them as they are.
package metrics
