package turn

import (
	"net/netip"
	"time"
)

// Status is what a [Pool] thinks of one endpoint. Its JSON form holds no secret,
// and times that are unknown are left out.
type Status struct {
	// URL is the endpoint's, as it was given.
	URL string `json:"url"`
	// Address is where the last probe that passed reached the server.
	Address netip.Addr `json:"address,omitzero"`
	// Health is the verdict, Since when it was reached.
	Health Health    `json:"health"`
	Since  time.Time `json:"since,omitzero"`
	// Latency is the smoothed time of an echo through the relay; zero while it is
	// unknown.
	Latency time.Duration `json:"latency_ns,omitzero"`
	// Failures is how many probes failed in a row.
	Failures int `json:"failures,omitzero"`
	// Error is the last probe's or fetch's, empty if the last went well.
	Error string `json:"error,omitempty"`
	// Err is the same for errors.Is.
	Err error `json:"-"`
	// NextProbe is when the next one begins, not later; zero while one is under
	// way, and without a valid credential.
	NextProbe time.Time `json:"next_probe,omitzero"`
	// Expires is the end of the credential in use.
	Expires time.Time `json:"credential_expires,omitzero"`
}
