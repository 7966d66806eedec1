package turn

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pion/transport/v5"
	"github.com/pion/transport/v5/stdnet"
)

// TestServerLimits: each limit may be as low and as high as its comment says, and has the
// default that it says.
func TestServerLimits(t *testing.T) {
	conn := udp(t, loopback4)
	with := func(change func(*ServerConfig)) (ServerConfig, error) {
		c := ServerConfig{PacketConns: []net.PacketConn{conn}, RelayIPs: []RelayIP{{Public: loopback4}}, Secrets: []string{testSecret}}
		change(&c)
		return c.withDefaults()
	}
	c, err := with(func(*ServerConfig) {})
	if err != nil || c.MaxAllocations != 4096 || c.MaxAllocationsPerUser != 256 || c.BytesPerSecond != 16<<20 || c.MaxConnections != 4096 ||
		c.AnswersPerSecond != 100 || c.Lifetime != 10*time.Minute || c.PortMin != 49152 || c.PortMax != 65535 {
		t.Errorf("%+v, %v", c, err)
	}
	for field, l := range map[string]struct {
		set       func(*ServerConfig, int64)
		low, high int64
	}{
		"MaxAllocations":        {func(c *ServerConfig, v int64) { c.MaxAllocations = int(v) }, 1, 1_000_000},
		"MaxAllocationsPerUser": {func(c *ServerConfig, v int64) { c.MaxAllocationsPerUser = int(v) }, 1, 1_000_000},
		"BytesPerSecond":        {func(c *ServerConfig, v int64) { c.BytesPerSecond = int(v) }, 1024, 1<<31 - 1},
		"MaxConnections":        {func(c *ServerConfig, v int64) { c.MaxConnections = int(v) }, 1, 1_000_000},
		"AnswersPerSecond":      {func(c *ServerConfig, v int64) { c.AnswersPerSecond = int(v) }, 1, 1_000_000},
		"Lifetime":              {func(c *ServerConfig, v int64) { c.Lifetime = time.Duration(v) }, int64(time.Second), int64(time.Hour)},
	} {
		for v, ok := range map[int64]bool{l.low: true, l.high: true, l.low - 1: l.low == 1, l.high + 1: false, -1: false} {
			if field == "BytesPerSecond" && v > 1<<31-1 {
				continue // the limit is beyond an int of 32 bits
			}
			_, err := with(func(c *ServerConfig) { l.set(c, v) })
			var ce *ConfigError
			if ok != (err == nil) || err != nil && (!errors.As(err, &ce) || ce.Field != "ServerConfig."+field) {
				t.Errorf("%s %d: %v", field, v, err)
			}
		}
	}
	var ce *ConfigError
	if _, err := with(func(c *ServerConfig) { c.PacketConns = append(c.PacketConns, nil) }); !errors.As(err, &ce) || ce.Field != "ServerConfig.PacketConns" {
		t.Errorf("a nil socket: %v", err)
	}
	if _, err := with(func(c *ServerConfig) { c.PortMin, c.PortMax = 7, 7 }); err != nil {
		t.Errorf("one port: %v", err)
	}
	l := tcp(t, loopback4)
	defer l.Close()
	shown, err := with(func(c *ServerConfig) { c.Listeners = []net.Listener{l} })
	if err != nil || !strings.Contains(shown.String(), "udp "+conn.LocalAddr().String()+", tcp "+l.Addr().String()) {
		t.Errorf("%v, %v", shown, err)
	}
}

// unlisted is a network whose interfaces cannot be listed.
type unlisted struct{ *stdnet.Net }

var errUnlisted = errors.New("no descriptors for that")

func (unlisted) Interfaces() ([]*transport.Interface, error) { return nil, errUnlisted }

// TestServerWithoutInterfaces: a relay that cannot tell which addresses are its host's
// does not serve: it could not refuse them as peers. The sockets remain the caller's.
func TestServerWithoutInterfaces(t *testing.T) {
	conn := udp(t, loopback4)
	s, err := NewServer(ServerConfig{PacketConns: []net.PacketConn{conn}, RelayIPs: []RelayIP{{Public: loopback4}},
		Secrets: []string{testSecret}, Net: unlisted{new(stdnet.Net)}})
	if !errors.Is(err, errUnlisted) || s != nil {
		t.Errorf("%v, %v", s, err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
}

// TestAccountsAreForgotten: accounts with something to make up for stay, and are forgotten when
// there are too many, but for those that have an allocation.
func TestAccountsAreForgotten(t *testing.T) {
	s := serve(t, func(c *ServerConfig) { c.MaxAllocations, c.BytesPerSecond = 5, 1024 })
	busy := s.reserve("busy")
	for i := range 9 {
		a := s.reserve(fmt.Sprint("guest ", i))
		if !a.take(minBurst) {
			t.Fatal("no bytes for a guest")
		}
		s.release(a)
		if again := s.reserve(fmt.Sprint("guest ", i)); again != a {
			t.Fatal("an account is forgotten at once")
		}
		s.release(a)
	}
	if len(s.accounts) != 10 || busy.allocations != 1 {
		t.Fatalf("%d accounts", len(s.accounts))
	}
	more := s.reserve("one more")
	more.take(minBurst)
	s.release(more)
	if len(s.accounts) != 2 || s.accounts["busy"] != busy || s.accounts["one more"] == nil {
		t.Errorf("%d accounts are kept", len(s.accounts))
	}
	s.release(busy)
}

// TestWorstOfSeveral: of several addresses the error that says most is told, and the others
// by their texts, with or without a cause.
func TestWorstOfSeveral(t *testing.T) {
	at := func(last byte) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, last}) }
	cause := errors.New("no route")
	silent, refused := &ProbeError{URL: "turn:r", Kind: ErrUnreachable}, &ProbeError{URL: "turn:r", Kind: ErrCredentials, Err: cause}
	for i, c := range []struct {
		failed []verdict
		want   string
	}{
		{[]verdict{{at: at(1), err: silent}}, "turn:r: " + ErrUnreachable.Error()},
		{[]verdict{{at: at(1), err: silent}, {at: at(2), err: refused}},
			"turn:r: " + ErrCredentials.Error() + ": 192.0.2.2: no route; 192.0.2.1: " + ErrUnreachable.Error()},
		{[]verdict{{at: at(1), err: silent}, {at: at(2), err: silent}},
			"turn:r: " + ErrUnreachable.Error() + ": 192.0.2.1; 192.0.2.2: " + ErrUnreachable.Error()},
		{[]verdict{{at: at(1), err: refused}, {at: at(2), err: cause}}, "turn:r: " + ErrCredentials.Error() + ": 192.0.2.1: no route; 192.0.2.2: no route"},
	} {
		if err := worst(c.failed); err.Error() != c.want {
			t.Errorf("%d: %v", i, err)
		}
	}
	if err := worst([]verdict{{at: at(1), err: silent}, {at: at(2), err: refused}}); !errors.Is(err, cause) || !errors.Is(err, ErrCredentials) || refused.Err != cause {
		t.Errorf("%v does not match its cause, or has changed it", err)
	}
}
