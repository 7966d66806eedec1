package signaling

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/keys"
)

// TestPassing: what a trust policy could not look at is asked again, what it saw is not.
func TestPassing(t *testing.T) {
	for err, want := range map[error]bool{
		nil:                                false,
		errors.New("no"):                   false,
		fs.ErrNotExist:                     false,
		fs.ErrPermission:                   false,
		context.DeadlineExceeded:           true,
		context.Canceled:                   true,
		os.ErrDeadlineExceeded:             true,
		syscall.EMFILE:                     true,
		syscall.EIO:                        true,
		syscall.ENOENT:                     false,
		syscall.EACCES:                     false,
		&net.DNSError{Err: "no such host"}: true,
		&net.OpError{Op: "dial", Err: fs.ErrClosed}: true,
	} {
		if got := passing(err); got != want {
			t.Errorf("%v: %v", err, got)
		}
		if err == nil {
			continue
		}
		if got := passing(fmt.Errorf("trust: %w", err)); got != want {
			t.Errorf("wrapped %v: %v", err, got)
		}
	}
}

// TestRemoteRegistrations: what other servers announce is counted once and has a limit,
// which does not keep anything from being withdrawn.
func TestRemoteRegistrations(t *testing.T) {
	g := newRegistry()
	r := Registration{Mesh: "m", Agent: "agent-a", Key: testKey(t, 1)}
	other := Registration{Mesh: "m", Agent: "agent-b", Key: testKey(t, 2)}
	for _, step := range []struct {
		r       Registration
		present bool
		remote  int
	}{{r, false, 0}, {r, true, 1}, {r, true, 1}, {other, true, 2}, {r, false, 1}, {r, false, 1}} {
		if !g.setRemote(step.r, step.present) || g.remote != step.remote {
			t.Fatalf("after %v %v there are %d", step.r.Agent, step.present, g.remote)
		}
	}
	if len(g.find("m", "agent-a", r.Key)) != 0 || len(g.find("m", "agent-b", keys.PublicKey{})) != 1 || g.find("n", "agent-b", other.Key) != nil {
		t.Error("the registry finds others than there are")
	}
	if g.isLocal(other) || g.isLocal(r) {
		t.Error("a remote registration counts as local")
	}
	g.remote = MaxRemote
	if g.setRemote(r, true) {
		t.Error("there is no limit")
	}
	if !g.setRemote(other, false) || g.remote != MaxRemote-1 {
		t.Error("at the limit nothing is withdrawn")
	}
	if !g.setRemote(r, true) || g.remote != MaxRemote {
		t.Error("below the limit there is no room")
	}
	if !g.setRemote(r, false) || len(g.realms) != 0 {
		t.Errorf("%d meshes are kept for nobody", len(g.realms))
	}
}

// TestShortArrays: an array that says it is shorter than what must stand in it is refused,
// though all of that is there.
func TestShortArrays(t *testing.T) {
	for name, b := range vectors(t) {
		for less := byte(1); less < 3; less++ {
			short := append([]byte(nil), b...)
			if short[0]&0x1f > 23 || short[0]&0x1f < less {
				t.Fatalf("%s begins with %#x", name, short[0])
			}
			short[0] -= less
			if parseAny(name, short) == nil {
				t.Errorf("%s with %d elements less in its header is taken", name, less)
			}
		}
	}
	for _, b := range [][]byte{{0x80}, {0x81, 0x01}} {
		_, err := decodeMessage(b)
		var fe *FormatError
		if !errors.As(err, &fe) || fe.Reason != "array is too short" {
			t.Errorf("%x: %v", b, err)
		}
	}
}

// TestClockTexts: which way the clocks are apart, by how much, and that nothing is known.
func TestClockTexts(t *testing.T) {
	at := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	for want, c := range map[string]Clock{
		"the server's clock is not known":      {Here: at},
		"it is 1m30s ahead of the server's":    {Here: at.Add(90 * time.Second), Server: at},
		"it is 1m0s behind the server's":       {Here: at, Server: at.Add(time.Minute)},
		"the clock here shows 2026-11-25T12:0": {Here: at, Server: at.Add(time.Minute)},
	} {
		if !strings.Contains(c.String(), want) {
			t.Errorf("%q does not say %q", c.String(), want)
		}
	}
	minute := Clock{Here: at, Server: at.Add(ClockTolerance)}
	if minute.Apart() || !(Clock{Here: at, Server: at.Add(ClockTolerance + 1)}).Apart() {
		t.Error("ClockTolerance is not the limit")
	}
	if (Clock{}).Known() || (Clock{}).Ahead() != 0 || readClocks(time.Time{}, at, at).Known() {
		t.Error("an unknown clock says something")
	}
	for _, c := range []struct{ server, here time.Time }{
		{at.Add(-time.Second), at}, {at.Add(time.Second), at.Add(time.Second)}, {at.Add(3 * time.Second), at.Add(2 * time.Second)},
	} {
		if got := readClocks(c.server, at, at.Add(2*time.Second)); !got.Here.Equal(c.here) || !got.Server.Equal(c.server) {
			t.Errorf("%v: read as %+v", c.server, got)
		}
	}
}

// TestTimesOnTheWire: times before 1970, beyond the limit, and none are none.
func TestTimesOnTheWire(t *testing.T) {
	for in, want := range map[time.Time]uint64{
		{}:                          0,
		time.UnixMilli(0):           0,
		time.UnixMilli(-1):          0,
		time.UnixMilli(1):           1,
		time.UnixMilli(maxTime):     maxTime,
		time.UnixMilli(maxTime + 1): 0,
	} {
		if got := wireTime(in); got != want {
			t.Errorf("%v: %d", in, got)
		}
	}
	if !timeOf(0).IsZero() || timeOf(1).UnixMilli() != 1 {
		t.Error("timeOf is not the reverse")
	}
}

// TestSameChain: certificates are the same when every certificate of their chains is.
func TestSameChain(t *testing.T) {
	chain := func(certs ...string) *tls.Certificate {
		c := new(tls.Certificate)
		for _, b := range certs {
			c.Certificate = append(c.Certificate, []byte(b))
		}
		return c
	}
	for _, c := range []struct {
		a, b *tls.Certificate
		same bool
	}{
		{nil, nil, false}, {nil, chain("x"), false}, {chain("x"), nil, false}, {chain("x"), chain("x"), true},
		{chain("x"), chain("y"), false}, {chain("x", "y"), chain("x"), false}, {chain("x"), chain("x", "y"), false},
		{chain("x", "y"), chain("x", "z"), false}, {chain("x", "y"), chain("x", "y"), true},
	} {
		if sameChain(c.a, c.b) != c.same {
			t.Errorf("%v and %v: not %v", c.a, c.b, c.same)
		}
	}
}

// TestServerNameLimit: a server's name may be as long as a registration's.
func TestServerNameLimit(t *testing.T) {
	name := strings.Repeat("a.", MaxServerName/2-1) + "bc"
	if _, err := (ServerConfig{Names: []string{name}}).withDefaults(); err != nil {
		t.Errorf("%d bytes: %v", len(name), err)
	}
	var ce *ConfigError
	if _, err := (ServerConfig{Names: []string{"ok", name + "d"}}).withDefaults(); !errors.As(err, &ce) || ce.Field != "Names[1]" || !strings.Contains(ce.Reason, "261 bytes, more than 260") {
		t.Errorf("%d bytes: %v", len(name)+1, err)
	}
	if got := redact(nil); got != "" {
		t.Errorf("no URL is %q", got)
	}
	inner := errors.New("inner")
	if err := error(&ConfigError{Config: "ServerConfig", Field: "Names", Err: inner}); !errors.Is(err, inner) {
		t.Error("a ConfigError hides its cause")
	}
}
