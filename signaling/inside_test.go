package signaling

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

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

// TestMessageLimits: each message may be as large as its limits say, and no larger.
func TestMessageLimits(t *testing.T) {
	id := fixedIdentity(t, "agent-a", 1)
	agent := presentAgent{Agent: "agent-a", Key: id.PublicKey().Bytes()}
	agents := func(n int) []presentAgent {
		list := make([]presentAgent, n)
		for i := range list {
			list[i] = agent
		}
		return list
	}
	register := func(change func(m *registerMsg)) *registerMsg {
		m := &registerMsg{Version: version, Type: typeRegister, Mesh: "m", Agent: "agent-a", Key: agent.Key, Instance: Instance{1},
			Server: "s1", Signature: make([]byte, 64)}
		change(m)
		return m
	}
	welcome := func(change func(m *welcomeMsg)) *welcomeMsg {
		m := &welcomeMsg{Version: version, Type: typeWelcome, MaxEnvelope: 1, Idle: 1, Rate: 1, Burst: 1, Time: 1}
		change(m)
		return m
	}
	type checked interface{ check() error }
	for name, c := range map[string]struct {
		m  checked
		ok bool
	}{
		"register":                     {register(func(*registerMsg) {}), true},
		"register yields":              {register(func(m *registerMsg) { m.Yield = 1 }), true},
		"register yields twice":        {register(func(m *registerMsg) { m.Yield = 2 }), false},
		"register, short key":          {register(func(m *registerMsg) { m.Key = m.Key[1:] }), false},
		"register, short signature":    {register(func(m *registerMsg) { m.Signature = m.Signature[1:] }), false},
		"register, no instance":        {register(func(m *registerMsg) { m.Instance = Instance{} }), false},
		"register, no server":          {register(func(m *registerMsg) { m.Server = "" }), false},
		"register, server in capitals": {register(func(m *registerMsg) { m.Server = "S1" }), false},
		"register, server not ASCII":   {register(func(m *registerMsg) { m.Server = "s\u00e9" }), false},
		"register, longest server":     {register(func(m *registerMsg) { m.Server = strings.Repeat("a", MaxServerName) }), true},
		"register, longer server":      {register(func(m *registerMsg) { m.Server = strings.Repeat("a", MaxServerName+1) }), false},
		"register, no mesh":            {register(func(m *registerMsg) { m.Mesh = "" }), false},
		"register, no agent":           {register(func(m *registerMsg) { m.Agent = "" }), false},
		"welcome":                      {welcome(func(*welcomeMsg) {}), true},
		"welcome, most": {welcome(func(m *welcomeMsg) {
			m.MaxEnvelope, m.Idle, m.Rate, m.Burst, m.Time = MaxEnvelope, 86_400_000, maxRate, maxRate, maxTime
		}), true},
		"welcome, no envelope":      {welcome(func(m *welcomeMsg) { m.MaxEnvelope = 0 }), false},
		"welcome, larger envelope":  {welcome(func(m *welcomeMsg) { m.MaxEnvelope = MaxEnvelope + 1 }), false},
		"welcome, no idle time":     {welcome(func(m *welcomeMsg) { m.Idle = 0 }), false},
		"welcome, longer idle time": {welcome(func(m *welcomeMsg) { m.Idle = 86_400_001 }), false},
		"welcome, no rate":          {welcome(func(m *welcomeMsg) { m.Rate = 0 }), false},
		"welcome, more rate":        {welcome(func(m *welcomeMsg) { m.Rate = maxRate + 1 }), false},
		"welcome, no burst":         {welcome(func(m *welcomeMsg) { m.Burst = 0 }), false},
		"welcome, more burst":       {welcome(func(m *welcomeMsg) { m.Burst = maxRate + 1 }), false},
		"welcome, no time":          {welcome(func(m *welcomeMsg) { m.Time = 0 }), false},
		"welcome, later time":       {welcome(func(m *welcomeMsg) { m.Time = maxTime + 1 }), false},
		"envelope":                  {&envelopeMsg{Envelope: []byte{1}}, true},
		"envelope, empty":           {&envelopeMsg{}, false},
		"presence":                  {&presenceMsg{Change: joined, Agents: agents(1)}, true},
		"presence, most":            {&presenceMsg{Change: left, Agents: agents(MaxPresenceBatch)}, true},
		"presence, more":            {&presenceMsg{Change: left, Agents: agents(MaxPresenceBatch + 1)}, false},
		"presence of nobody":        {&presenceMsg{Change: joined}, false},
		"presence, no change":       {&presenceMsg{Change: 0, Agents: agents(1)}, joined == 0 || left == 0},
		"presence, another change":  {&presenceMsg{Change: 7, Agents: agents(1)}, false},
		"presence, bad agent":       {&presenceMsg{Change: joined, Agents: []presentAgent{{Agent: "", Key: agent.Key}}}, false},
		"presence, short key":       {&presenceMsg{Change: joined, Agents: []presentAgent{{Agent: "a", Key: agent.Key[1:]}}}, false},
		"notice":                    {&noticeMsg{Code: 1}, true},
		"notice, most":              {&noticeMsg{Code: 255, Text: strings.Repeat("x", MaxNoticeText)}, true},
		"notice, no code":           {&noticeMsg{}, false},
		"notice, larger code":       {&noticeMsg{Code: 256}, false},
		"notice, longer text":       {&noticeMsg{Code: 1, Text: strings.Repeat("x", MaxNoticeText+1)}, false},
	} {
		if err := c.m.check(); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestServerLimitsAtBothEnds: each limit may be as low and as high as it is documented.
func TestServerLimitsAtBothEnds(t *testing.T) {
	for name, c := range map[string]struct {
		set       func(l *ServerLimits, v int)
		low, high int
	}{
		"Connections": {func(l *ServerLimits, v int) { l.Connections = v }, 1, 10_000_000},
		"Envelope":    {func(l *ServerLimits, v int) { l.Envelope = v }, 1024, MaxEnvelope},
		"Rate":        {func(l *ServerLimits, v int) { l.Rate = v }, 1, maxRate},
		"Burst":       {func(l *ServerLimits, v int) { l.Burst = v }, 1, maxRate},
		"Queue":       {func(l *ServerLimits, v int) { l.Queue = v }, 16, 1_000_000},
	} {
		for v, ok := range map[int]bool{c.low: true, c.high: true, c.high + 1: false, -1: false, c.low - 1: c.low == 1} {
			var l ServerLimits
			c.set(&l, v)
			_, err := l.withDefaults()
			var ce *ConfigError
			if (err == nil) != ok || err != nil && (!errors.As(err, &ce) || ce.Field != "Limits."+name) {
				t.Errorf("%s %d: %v", name, v, err)
			}
		}
	}
	for name, set := range map[string]func(l *ServerLimits){
		"Handshake": func(l *ServerLimits) { l.Handshake = -1 },
		"Idle":      func(l *ServerLimits) { l.Idle = -1 },
		"Write":     func(l *ServerLimits) { l.Write = -1 },
	} {
		var l ServerLimits
		set(&l)
		var ce *ConfigError
		if _, err := l.withDefaults(); !errors.As(err, &ce) || ce.Field != "Limits."+name {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestOutboxIsFull: so many items, and so many bytes, and not one more.
func TestOutboxIsFull(t *testing.T) {
	for _, c := range []struct{ items, size, fits int }{{3, 1, 3}, {100, outboxBytes / 4, 4}, {100, outboxBytes/4 + 1, 3}} {
		o := newOutbox(c.items)
		n := 0
		for n <= c.items && o.push(make([]byte, c.size)) {
			n++
		}
		if n != c.fits {
			t.Errorf("%d items of %d bytes in an outbox for %d", n, c.size, c.items)
		}
	}
}

// TestPlacesOfConnections: connections that are being opened count like those that are.
func TestPlacesOfConnections(t *testing.T) {
	s, err := NewServer(ServerConfig{Limits: ServerLimits{Connections: 3}})
	if err != nil {
		t.Fatal(err)
	}
	a, b := new(conn), new(conn)
	for _, c := range []*conn{a, b} {
		if err := errors.Join(s.open(), s.opened(c)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.open(); err != nil {
		t.Errorf("the third: %v", err)
	}
	if err := s.open(); err != errFull {
		t.Errorf("the fourth: %v", err)
	}
	s.forget(a)
	if err := s.open(); err != nil {
		t.Errorf("in place of one that ended: %v", err)
	}
	if err := s.opened(nil); err != nil {
		t.Error(err)
	}
	s.mu.Lock()
	s.draining = true
	s.mu.Unlock()
	if err := s.opened(new(conn)); err != errDrainingNow || len(s.conns) != 1 {
		t.Errorf("while the server drains: %v, %d connections", err, len(s.conns))
	}
	if err := s.open(); err != errDrainingNow {
		t.Errorf("while the server drains: %v", err)
	}
	s.mu.Lock()
	s.conns = map[*conn]struct{}{}
	s.draining = false
	s.mu.Unlock()
	s.wg.Add(-4)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestCut: a text is cut between characters, to no more than its limit.
func TestCut(t *testing.T) {
	for _, c := range []struct {
		in   string
		n    int
		want string
	}{
		{"", 0, ""}, {"abc", 3, "abc"}, {"abc", 4, "abc"}, {"abc", 2, "ab"}, {"abc", 0, ""},
		{"aé", 2, "a"}, {"aé", 3, "aé"}, {"é", 1, ""}, {"a€", 3, "a"}, {"a€b", 4, "a€"},
	} {
		if got := cut(c.in, c.n); got != c.want {
			t.Errorf("%q to %d bytes: %q", c.in, c.n, got)
		}
	}
	n := Notice{Code: CodeProtocol, Text: strings.Repeat("x", MaxNoticeText)}
	for _, text := range []string{n.Text, n.Text + "y"} {
		n.Text = text
		m, err := decodeMessage(n.encode())
		if err != nil || m.(*noticeMsg).Text != strings.Repeat("x", MaxNoticeText) {
			t.Errorf("%d bytes: %v", len(text), err)
		}
	}
}

// TestReadErrors: what ended a connection can be told by its error.
func TestReadErrors(t *testing.T) {
	other := errors.New("other")
	for name, c := range map[string]struct{ err, want error }{
		"too large for the other side": {websocket.CloseError{Code: websocket.StatusMessageTooBig}, ErrTooLarge},
		"too large for this side":      {fmt.Errorf("read: %w", websocket.ErrMessageTooBig), ErrTooLarge},
		"closed in order":              {websocket.CloseError{Code: websocket.StatusNormalClosure}, io.EOF},
		"closed otherwise":             {websocket.CloseError{Code: websocket.StatusPolicyViolation}, nil},
		"something else":               {other, other},
	} {
		err := readError(c.err)
		if c.want != nil && !errors.Is(err, c.want) || c.want == nil && (errors.Is(err, ErrTooLarge) || errors.Is(err, io.EOF)) {
			t.Errorf("%s: %v", name, err)
		}
		var ce websocket.CloseError
		if errors.As(c.err, &ce) && !errors.As(err, &ce) {
			t.Errorf("%s: the cause is hidden: %v", name, err)
		}
	}
}

// TestLateAttempts: an attempt whose time is over names the proxy with which it was busy, if any.
func TestLateAttempts(t *testing.T) {
	a, free := newAttempt(t.Context())
	defer free()
	for _, proxy := range []string{"", "http://proxy/"} {
		a.at(proxy)
		err := a.late("connect", 3*time.Second)
		var pe *ProxyError
		if errors.As(err, &pe) != (proxy != "") || pe != nil && pe.Proxy != proxy || !errors.Is(err, context.DeadlineExceeded) ||
			!strings.Contains(err.Error(), "connect: no answer within 3s") {
			t.Errorf("%q: %v", proxy, err)
		}
	}
}

// TestNamesOfALoopbackServer: a server without names goes by the loopback address at
// which it was asked, and by nothing that the request says.
func TestNamesOfALoopbackServer(t *testing.T) {
	told := &Server{cfg: ServerConfig{Names: []string{"s1.example"}}}
	for _, c := range []struct {
		s    *Server
		at   net.Addr
		want []string
	}{
		{told, tcpAddr("127.0.0.1:8443"), []string{"s1.example"}},
		{new(Server), tcpAddr("127.0.0.1:8443"), []string{"127.0.0.1:8443", "localhost:8443"}},
		{new(Server), tcpAddr("[::ffff:127.0.0.2]:80"), []string{"127.0.0.2", "localhost"}},
		{new(Server), tcpAddr("[::1]:443"), []string{"[::1]", "localhost"}},
		{new(Server), tcpAddr("192.0.2.1:8443"), nil},
		{new(Server), tcpAddr("[2001:db8::1]:8443"), nil},
		{new(Server), &net.UnixAddr{Name: "/run/s1", Net: "unix"}, nil},
		{new(Server), nil, nil},
	} {
		r := httptest.NewRequest("GET", "http://localhost:8443/", nil)
		if c.at != nil {
			r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, c.at))
		}
		if got := c.s.namesFor(r); !slices.Equal(got, c.want) {
			t.Errorf("asked at %v: %q, want %q", c.at, got, c.want)
		}
	}
}

func tcpAddr(s string) net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(s)) }
