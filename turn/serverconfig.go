package turn

import (
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/pion/transport/v5"
	"github.com/pion/transport/v5/stdnet"
)

// ServerConfig configures a [Server]. PacketConns or Listeners, RelayIPs, and
// Secrets or Users are required: there are no default credentials. NewServer
// copies it. It prints without its secrets.
type ServerConfig struct {
	// PacketConns are the UDP sockets on which clients are served. The port of
	// TURN is 3478. One socket is served by one goroutine; a busy one wants a
	// large receive buffer.
	PacketConns []net.PacketConn
	// Listeners are those for TCP, and for TLS (port 5349) when they come from
	// [tls.NewListener]. Their connections need addresses of type *net.TCPAddr.
	Listeners []net.Listener
	// RelayIPs are the addresses at which allocations are made: one, or one of
	// IPv4 and one of IPv6. A request for the other family gets error 440. Where there
	// are both, a client that asks for none gets IPv4, whatever its own is (RFC 8656
	// §7.2).
	RelayIPs []RelayIP
	// PortMin and PortMax are the first and the last port of allocations. Zero
	// means 49152 and 65535 (RFC 8656 §7.2).
	PortMin, PortMax uint16
	// Net makes the sockets of allocations. Nil means the system's network.
	Net transport.Net

	// Realm is that of the credentials, of at most 20 bytes and without quotes.
	// Empty means "agentmesh".
	Realm string
	// Secrets are those shared with whoever hands out credentials as the TURN
	// REST API does (draft-uberti-behave-turn-rest-00 §2.2): the user name is
	// "EXPIRES:USER" with EXPIRES in seconds since 1970, the password the Base64
	// of HMAC-SHA1(secret, user name). Each has at least 16 bytes, and each is
	// accepted, so that one can take the place of another.
	Secrets []string `json:"-"`
	// Time returns the time of the world, by which credentials end; it must be safe
	// for concurrent use. Nil means time.Now.
	Time func() time.Time `json:"-"`
	// Users maps names, without a colon, to passwords of at least 8 bytes that
	// never expire.
	Users map[string]string `json:"-"`

	// AllowPeers opens addresses that are refused as peers by default; see
	// [Server]. What embeds an IPv4 address needs that one allowed as well.
	AllowPeers []netip.Prefix
	// DenyPeers closes addresses, whatever AllowPeers says.
	DenyPeers []netip.Prefix

	// MaxAllocations is how many allocations there may be, at most 1,000,000.
	// Further ones get error 508. Zero means 4096.
	MaxAllocations int
	// MaxAllocationsPerUser is how many one user may have, at most
	// 1,000,000. Further ones get error 486. Zero means 256.
	MaxAllocationsPerUser int
	// BytesPerSecond is how much one user may relay, payloads of both directions
	// and of all allocations together, from 1024 to 1<<40, with a tenth of that or
	// 16 KiB at once. What exceeds it is dropped. Zero means 16 MiB.
	BytesPerSecond int
	// MaxConnections is how many TCP connections may be open, at most
	// 1,000,000. At the limit, a new one takes the place of the oldest without an
	// allocation; if each has one, the new one is closed. Zero means 4096.
	MaxConnections int
	// AnswersPerSecond is how many answers one address (of IPv6: one /64) gets
	// over UDP to requests that are not authenticated, from 1 to 1,000,000, and
	// how many at once. A client needs one per allocation. Who forges requests of an
	// address can use up its answers, which leaves TCP. Zero means 100.
	AnswersPerSecond int
	// Lifetime is that of allocations whose client asks for none, from 1 s to
	// 1 h. Clients may ask for less than an hour. Zero means 10 min (RFC 8656
	// §7.2).
	Lifetime time.Duration

	// Logger gets what the server does, and at level debug what clients do. Nil
	// means silence.
	Logger *slog.Logger
}

// RelayIP is an address at which allocations are made.
type RelayIP struct {
	// Public is what clients and peers see.
	Public netip.Addr
	// Bind is the local address of the sockets. The zero Addr means Public; behind
	// a one-to-one NAT it is the private address of the host.
	Bind netip.Addr
}

// String shows where and how the server serves, and no secret.
func (c ServerConfig) String() string {
	var at []string
	for _, p := range c.PacketConns {
		at = append(at, "udp "+p.LocalAddr().String())
	}
	for _, l := range c.Listeners {
		at = append(at, "tcp "+l.Addr().String())
	}
	return fmt.Sprintf("TURN server on %s, relaying at %v, realm %q, %d secrets, %d users",
		strings.Join(at, ", "), c.RelayIPs, c.Realm, len(c.Secrets), len(c.Users))
}

// GoString is String: %#v shows no secret either.
func (c ServerConfig) GoString() string { return c.String() }

// LogValue is String.
func (c ServerConfig) LogValue() slog.Value { return slog.StringValue(c.String()) }

// withDefaults validates c and returns a copy in which nothing is zero that
// has a default.
func (c ServerConfig) withDefaults() (ServerConfig, error) {
	c.PacketConns, c.Listeners = slices.Clone(c.PacketConns), slices.Clone(c.Listeners)
	if len(c.PacketConns)+len(c.Listeners) == 0 {
		return c, &ConfigError{"ServerConfig.PacketConns", "and Listeners are both empty"}
	}
	if slices.Contains(c.PacketConns, nil) {
		return c, &ConfigError{"ServerConfig.PacketConns", "has a nil"}
	}
	if slices.Contains(c.Listeners, nil) {
		return c, &ConfigError{"ServerConfig.Listeners", "has a nil"}
	}
	for _, check := range []func(*ServerConfig) error{
		(*ServerConfig).checkRelays, (*ServerConfig).checkCredentials, (*ServerConfig).checkPeers, (*ServerConfig).checkLimits,
	} {
		if err := check(&c); err != nil {
			return c, err
		}
	}
	if c.Net == nil {
		var err error
		if c.Net, err = stdnet.NewNet(); err != nil {
			return c, &ConfigError{"ServerConfig.Net", "is nil and the system's does not work: " + err.Error()}
		}
	}
	if c.Time == nil {
		c.Time = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

func (c *ServerConfig) checkRelays() error {
	c.RelayIPs = slices.Clone(c.RelayIPs)
	if len(c.RelayIPs) == 0 {
		return &ConfigError{"ServerConfig.RelayIPs", "is empty"}
	}
	seen := map[bool]bool{}
	for i := range c.RelayIPs {
		r := &c.RelayIPs[i]
		if !r.Bind.IsValid() {
			r.Bind = r.Public
		}
		switch {
		case !usable(r.Public) || r.Public.IsUnspecified():
			return &ConfigError{fmt.Sprintf("ServerConfig.RelayIPs[%d].Public", i), "is no address of a host"}
		case !usable(r.Bind) || r.Bind.Is4() != r.Public.Is4():
			return &ConfigError{fmt.Sprintf("ServerConfig.RelayIPs[%d].Bind", i), "is no address of Public's family"}
		case seen[r.Public.Is4()]:
			return &ConfigError{fmt.Sprintf("ServerConfig.RelayIPs[%d]", i), "is the second of its family"}
		}
		seen[r.Public.Is4()] = true
	}
	if c.PortMin == 0 {
		c.PortMin = 49152
	}
	if c.PortMax == 0 {
		c.PortMax = 65535
	}
	if c.PortMin > c.PortMax {
		return &ConfigError{"ServerConfig.PortMax", "is less than PortMin"}
	}
	return nil
}

// usable reports whether a is a plain unicast or unspecified address.
func usable(a netip.Addr) bool {
	return a.IsValid() && !a.Is4In6() && a.Zone() == "" && !a.IsMulticast()
}

func (c *ServerConfig) checkCredentials() error {
	if c.Realm == "" {
		c.Realm = "agentmesh"
	}
	if len(c.Realm) > maxRealm || strings.ContainsAny(c.Realm, "\"\\\x00\r\n") {
		return &ConfigError{"ServerConfig.Realm", fmt.Sprintf("is longer than %d bytes or has a quote or a control character", maxRealm)}
	}
	c.Secrets, c.Users = slices.Clone(c.Secrets), maps.Clone(c.Users)
	if len(c.Secrets)+len(c.Users) == 0 {
		return &ConfigError{"ServerConfig.Secrets", "and Users are both empty"}
	}
	for i, s := range c.Secrets { // never the secret itself in an error
		if len(s) < minSecret {
			return &ConfigError{fmt.Sprintf("ServerConfig.Secrets[%d]", i), fmt.Sprintf("is shorter than %d bytes", minSecret)}
		}
	}
	for name, password := range c.Users {
		switch {
		case name == "" || len(name) > maxUsername || strings.Contains(name, ":"):
			return &ConfigError{"ServerConfig.Users", fmt.Sprintf("has a name that is empty, longer than %d bytes or has a colon", maxUsername)}
		case len(password) < minPassword:
			return &ConfigError{"ServerConfig.Users", fmt.Sprintf("has a password for %q shorter than %d bytes", name, minPassword)}
		}
	}
	return nil
}

func (c *ServerConfig) checkPeers() error {
	c.AllowPeers, c.DenyPeers = slices.Clone(c.AllowPeers), slices.Clone(c.DenyPeers)
	for _, f := range []struct {
		name     string
		prefixes []netip.Prefix
	}{{"AllowPeers", c.AllowPeers}, {"DenyPeers", c.DenyPeers}} {
		for i, p := range f.prefixes {
			if !p.IsValid() || p.Addr().Is4In6() {
				return &ConfigError{fmt.Sprintf("ServerConfig.%s[%d]", f.name, i), "is no prefix of IPv4 or IPv6 addresses"}
			}
			f.prefixes[i] = p.Masked()
		}
	}
	return nil
}

func (c *ServerConfig) checkLimits() error {
	for _, f := range []struct {
		name              string
		value             *int
		otherwise, lowest int
		highest           int64 // more than an int has where that has 32 bits
	}{
		{"MaxAllocations", &c.MaxAllocations, 4096, 1, 1_000_000},
		{"MaxAllocationsPerUser", &c.MaxAllocationsPerUser, 256, 1, 1_000_000},
		{"BytesPerSecond", &c.BytesPerSecond, 16 << 20, 1024, 1 << 40},
		{"MaxConnections", &c.MaxConnections, 4096, 1, 1_000_000},
		{"AnswersPerSecond", &c.AnswersPerSecond, 100, 1, 1_000_000},
	} {
		if *f.value == 0 {
			*f.value = f.otherwise
		}
		if *f.value < f.lowest || int64(*f.value) > f.highest {
			return &ConfigError{"ServerConfig." + f.name, fmt.Sprintf("is %d, not from %d to %d", *f.value, f.lowest, f.highest)}
		}
	}
	if c.Lifetime == 0 {
		c.Lifetime = 10 * time.Minute
	}
	if c.Lifetime < time.Second || c.Lifetime > time.Hour {
		return &ConfigError{"ServerConfig.Lifetime", fmt.Sprintf("is %v, not from 1s to 1h", c.Lifetime)}
	}
	return nil
}
