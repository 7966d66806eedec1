package mesh

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/pion/transport/v5"
	"go.opentelemetry.io/otel/metric"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/witness"
)

// Config describes a Node. Identity, Trust and Signaling are required; every
// other zero field means the default it documents. Listen copies the value
// and never changes the caller's.
type Config struct {
	// Identity is who this agent is. One Node per identity and process.
	Identity *keys.Identity
	// Trust decides which key may speak for which agent. There is no default:
	// an open door must be asked for by name, keys.TrustAny.
	Trust keys.Trust
	// Mesh is the realm; agents of different meshes never meet, and what is
	// signed in one is not valid in another. Default: "default".
	Mesh string
	// Signaling lists the URLs of signaling servers (ws or wss) in order of
	// preference. The Node registers with up to three at once.
	Signaling []string
	// STUN lists STUN servers as "stun:host:port" (RFC 7064; port 3478 if there is
	// none), by which an agent behind a NAT learns its public address: at most 16. A
	// session waits for their names for a second at most. Default: none.
	STUN []string

	// TURN chooses the relay (RFC 8656) that each session may fall back to, for
	// agents between which no direct path exists. Default: none.
	TURN Relays
	// Recovery is how a Peer notices that the other side is out of reach, and
	// how it gets back.
	Recovery Recovery
	// Paths is when a Peer uses direct paths and when a relay.
	Paths Paths

	// Handler, when set, takes every incoming message instead of Receive. It
	// is called from one goroutine per Peer, in order, and a message counts as
	// delivered when it returns, so a slow handler holds its sender back. ctx
	// ends when the Peer closes; Send with it when answering. Close, of a Peer or of
	// the Node, does not wait when a Handler calls it. A panic is not recovered: it ends
	// the process. A Handler that ends its goroutine instead of returning
	// (runtime.Goexit) closes its Peer with ErrHandlerExit.
	Handler func(ctx context.Context, p *Peer, m Message)

	// Window is how many bytes of messages are kept for one peer at most, in
	// each direction: sent and not yet delivered there, received and not yet
	// taken here. Default: DefaultWindow; at least 64 KiB. A message larger
	// than either side's window cannot be sent.
	Window uint64

	// Net is the network: a virtual one, or one that filters interfaces,
	// addresses and ports. Default: the operating system's, with larger socket
	// buffers where it grants them. Names of STUN servers and relays are looked up by
	// its method LookupNetIP, if it has one like that of *net.Resolver, and otherwise by
	// net.DefaultResolver. When a Net has loopback interfaces only,
	// loopback addresses are offered to peers, otherwise never.
	Net transport.Net
	// TCP uses TCP candidates as well (RFC 6544), for networks that block UDP: what
	// the other agent announces is dialled, by the operating system's network
	// whatever Net is. Default: UDP only, and TCP only to relays.
	TCP bool
	// TCPListener is where other agents reach this one by TCP; it implies TCP. The
	// Node closes it, as does a Listen that fails. Its address must be one that Net has, or unspecified.
	// Default: none.
	TCPListener net.Listener
	// NetworkChanged blocks until the machine's network has changed, or ctx
	// ends, and is called again and again. Every Peer then makes a new session
	// at once. An error is logged, and it is called again after half a second, or
	// twice the time after each further one, up to a minute; only the end of ctx,
	// when the Node closes, ends the watch.
	//
	// Default: the operating system's network, or what FilterNet leaves of it, is
	// watched; nothing is where Net is another. Then a Peer makes a new session
	// when its address has gone, when its interface has come into another network,
	// or when the default route leaves by another one. Other addresses, such as
	// those of containers, are a reason to try a direct path beside a relay, and
	// every path for a Peer that is in doubt or out of reach. Where the system tells
	// of no changes (a sandbox without netlink) they are looked for every two
	// seconds.
	NetworkChanged func(ctx context.Context) error
	// Time is the clock of the world: what envelopes, certificates, credentials and
	// messages are dated by. It may be wrong, and may be set. How long something
	// takes is never measured by it. Default: time.Now.
	Time func() time.Time
	// HTTPClient dials the signaling servers; its transport is the place for
	// proxies and private certificate authorities. Default: signaling's own, which
	// takes proxies from the environment.
	HTTPClient *http.Client

	// TraceID returns the W3C trace ID that belongs to a context, or "". With
	// OpenTelemetry it is one line around trace.SpanContextFromContext; the
	// tracing API is not linked into agents that do not trace. Default: none.
	TraceID func(ctx context.Context) string
	// Logger gets structured logs. Default: none.
	Logger *slog.Logger
	// MeterProvider makes the instruments of package metrics. Default: none;
	// the global provider is not consulted.
	MeterProvider metric.MeterProvider
	// Recorder gets the events of package witness, one at a time, in order, and a moment
	// after what they tell of: up to 4096 wait for it. One that is slow slows Send and
	// Receive down; what does not fit otherwise is lost to it, and the log says how much.
	// Close waits up to a second for it. Default: witness.Discard.
	Recorder witness.Recorder
}

// ConfigError names the field of a Config that is invalid.
type ConfigError struct {
	Field  string
	Reason string
}

func (e *ConfigError) Error() string { return fmt.Sprintf("config: %s %s", e.Field, e.Reason) }

// withDefaults returns a copy with every default filled in.
func (c Config) withDefaults() (Config, error) {
	if c.Identity == nil {
		return c, &ConfigError{"Identity", "is missing"}
	}
	if c.Trust == nil {
		return c, &ConfigError{"Trust", "is missing (keys.TrustAny trusts everybody)"}
	}
	if c.Mesh == "" {
		c.Mesh = "default"
	}
	if err := keys.CheckMesh(c.Mesh); err != nil {
		return c, &ConfigError{"Mesh", err.Error()}
	}
	if len(c.Signaling) == 0 {
		return c, &ConfigError{"Signaling", "names no server"}
	}
	if _, err := parseSTUN(c.STUN); err != nil {
		return c, err
	}
	if c.Window == 0 {
		c.Window = DefaultWindow
	}
	if c.Window < minWindow || c.Window > 1<<40 {
		return c, &ConfigError{"Window", "must be between 64 KiB and 1 TiB"}
	}
	var err error
	if c.Recovery, err = c.Recovery.withDefaults(); err != nil {
		return c, err
	}
	if c.Paths, err = c.Paths.withDefaults(); err != nil {
		return c, err
	}
	if c.Paths.RelayOnly && c.TURN == nil {
		return c, &ConfigError{"Paths.RelayOnly", "needs a TURN"}
	}
	if c.Time == nil {
		c.Time = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, nil
}
