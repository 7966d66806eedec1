package turn

import (
	"errors"
	"fmt"
)

// What a probe finds. A [*ProbeError] matches exactly one of them.
var (
	// ErrUnreachable means that the server could not be dialled or did not
	// answer in time: no route, no such name, connection refused, TLS failure,
	// silence, or answers that are no STUN.
	ErrUnreachable = errors.New("TURN server out of reach")
	// ErrCredentials means that the server refuses the credential (401 or 441
	// after authentication, RFC 8489 §9.2.5) though it has not expired.
	ErrCredentials = errors.New("TURN server refuses the credential")
	// ErrExpired means that the credential's end has passed. A server says
	// 401 to it as to a wrong one, so it is told from Credential.Expires and,
	// without it, from the timestamp in the user name.
	ErrExpired = errors.New("credential has expired")
	// ErrNoCredential means that Credentials returned an error, or nothing
	// usable, and there is no older credential.
	ErrNoCredential = errors.New("no credential for the TURN server")
	// ErrQuota means that the user may have no further allocation (486).
	ErrQuota = errors.New("allocation quota reached")
	// ErrNoAllocation means that the server refuses to allocate for another
	// reason: 508 without capacity, 437, 440, 442, 403, 300 and others.
	ErrNoAllocation = errors.New("TURN server allocates nothing")
	// ErrForbidden means that the server refuses a permission for its own
	// relayed address (403, RFC 8656 §10.2). Two agents that both need this relay
	// cannot reach each other.
	ErrForbidden = errors.New("TURN server forbids its own relayed address as a peer")
	// ErrNoEcho means that the server allocated and permitted, and what was sent
	// through the relay did not come back.
	ErrNoEcho = errors.New("nothing comes back through the relay")
)

// What a [Pool] refuses.
var (
	// ErrDuplicate means that the Pool has an endpoint of this URL.
	ErrDuplicate = errors.New("endpoint exists")
	// ErrTooMany means that the Pool has MaxEndpoints.
	ErrTooMany = errors.New("too many endpoints")
	// ErrUnknown means that the Pool has no endpoint of this URL.
	ErrUnknown = errors.New("no such endpoint")
)

// ProbeError says what is wrong with a way to a TURN server. It holds no secret.
type ProbeError struct {
	// URL is the way.
	URL string
	// Kind is one of the sentinels.
	Kind error
	// Err is the cause, if there is one to add: an error of the network, or a
	// *stun.TurnError with the server's code.
	Err error
}

func (e *ProbeError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("%s: %v", e.URL, e.Kind)
	}
	return fmt.Sprintf("%s: %v: %v", e.URL, e.Kind, e.Err)
}

// Unwrap returns the kind and the cause.
func (e *ProbeError) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Err}
}

// ConfigError names a field with an invalid value, of a [PoolConfig], an [Endpoint]
// or a [ServerConfig]. It never shows a secret.
type ConfigError struct {
	Field, Reason string
}

func (e *ConfigError) Error() string { return e.Field + ": " + e.Reason }

// isSilence reports whether err may be the fault of this agent's own network.
func isSilence(err error) bool { return errors.Is(err, ErrUnreachable) || errors.Is(err, ErrNoEcho) }
