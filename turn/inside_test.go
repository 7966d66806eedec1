package turn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/stun/v4"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/infrafabric/agentmesh/internal/resolve"
	"github.com/infrafabric/agentmesh/metrics"
	"github.com/infrafabric/agentmesh/witness"
)

// stillPool is a Pool whose loop does not run: the test is its loop.
func stillPool(t *testing.T, members ...*member) *Pool {
	t.Helper()
	ins, err := metrics.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := PoolConfig{Endpoints: []Endpoint{{URL: "turn:192.0.2.1", Credentials: Static("u", "password")}}}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	p := &Pool{cfg: cfg, ins: ins, events: make(chan witness.Event, 16), doubts: map[string]struct{}{},
		view: view{changed: make(chan struct{})}, loop: loopState{members: members, results: make(chan func(instant))}}
	p.ctx, p.cancel = context.WithCancel(t.Context())
	t.Cleanup(func() { p.cancel(); p.wg.Wait() })
	return p
}

// stillNow is when the tests of a stillPool take place.
var stillNow = instant{mono: time.Now(), wall: time.Now().Round(0)}

// withCredential is a member that has a credential for another hour.
func withCredential(health Health, change func(m *member)) *member {
	a, err := parseAddress("turn:192.0.2.1")
	if err != nil {
		panic(err)
	}
	m := &member{Endpoint: Endpoint{URL: "turn:192.0.2.1"}, address: a}
	m.breaker.health = health
	m.renewal.got(stillNow, Credential{Username: "u", Password: "p", Expires: stillNow.wall.Add(time.Hour)}, 0)
	m.probed = m.renewal.version
	if change != nil {
		change(m)
	}
	return m
}

// events are the names of what a Pool has for its Recorder.
func (p *Pool) recorded() (names []witness.Name) {
	for len(p.events) > 0 {
		names = append(names, (<-p.events).Name)
	}
	return names
}

// TestVerdicts: what the end of a probe changes.
func TestVerdicts(t *testing.T) {
	silent := &ProbeError{URL: "turn:192.0.2.1", Kind: ErrUnreachable}
	quota := &ProbeError{URL: "turn:192.0.2.1", Kind: ErrQuota}
	wrong := &ProbeError{URL: "turn:192.0.2.1", Kind: ErrCredentials}
	full := fmt.Errorf("dial: %w", syscall.EMFILE)
	for name, c := range map[string]struct {
		was    Health
		user   string
		err    error
		urgent bool
		ended  bool // the credential has
		want   Health
		// failures that count, refusals of the credential, and whether the member is held back.
		failures, refusals int
		held               bool
	}{
		"passed":                        {was: Unhealthy, user: "u", want: Healthy},
		"passed, but the credential":    {was: Unhealthy, user: "u", ended: true, want: Unhealthy, refusals: 3},
		"failed, but the credential":    {was: Healthy, user: "u", err: silent, ended: true, want: Healthy, refusals: 3},
		"silent":                        {was: Healthy, user: "u", err: silent, want: Healthy, failures: 1, refusals: 3},
		"silent, in doubt":              {was: Healthy, user: "u", err: silent, urgent: true, want: Unhealthy, failures: 1, refusals: 3},
		"silent, never before":          {was: Unprobed, user: "u", err: silent, want: Unhealthy, failures: 1, refusals: 3},
		"no room":                       {was: Healthy, user: "u", err: quota, want: Healthy, failures: 1, refusals: 3},
		"no room, in doubt":             {was: Healthy, user: "u", err: quota, urgent: true, want: Healthy, failures: 1, refusals: 3},
		"no descriptor":                 {was: Healthy, user: "u", err: full, want: Healthy, refusals: 3, held: true},
		"no descriptor, in doubt":       {was: Healthy, user: "u", err: full, urgent: true, want: Healthy, refusals: 3, held: true},
		"refused":                       {was: Healthy, user: "u", err: wrong, want: Healthy, failures: 1, refusals: 4},
		"refused, in doubt":             {was: Healthy, user: "u", err: wrong, urgent: true, want: Unhealthy, failures: 1, refusals: 4},
		"refused, but there is another": {was: Healthy, user: "before", err: wrong, urgent: true, want: Healthy, refusals: 3},
		"silent, and there is another":  {was: Healthy, user: "before", err: silent, urgent: true, want: Unhealthy, failures: 1, refusals: 3},
	} {
		m := withCredential(c.was, func(m *member) { m.renewal.refusals = 3 })
		p := stillPool(t, m)
		if c.was == Healthy {
			p.loop.order = []*member{m}
		}
		now := stillNow
		if c.ended {
			now.wall = now.wall.Add(2 * time.Hour)
		}
		p.judge(now, m, Relay{URL: m.URL, Username: c.user, Password: "p", Address: netip.MustParseAddr("192.0.2.1")}, 20*time.Millisecond, c.err, c.urgent)
		if m.breaker.health != c.want || m.breaker.failures != c.failures || m.renewal.refusals != c.refusals {
			t.Errorf("%s: %v, %d failures, %d refusals", name, m.breaker.health, m.breaker.failures, m.renewal.refusals)
		}
		if held := m.hold.Equal(now.mono.Add(retryPause)); held != c.held || !held && !m.hold.IsZero() || m.doubted != (c.held && c.urgent) {
			t.Errorf("%s: held until %v, doubted %v", name, m.hold, m.doubted)
		}
		if first := len(p.loop.order) == 1; first != (c.want == Healthy) {
			t.Errorf("%s: %d are healthy", name, len(p.loop.order))
		}
		if c.err == nil && c.want == Healthy && (m.latency != 20*time.Millisecond || m.at.String() != "192.0.2.1" || m.err != nil) {
			t.Errorf("%s: %v, %v, %v", name, m.latency, m.at, m.err)
		}
		if (m.err != nil) != (c.failures > 0 || c.held) || m.err != nil && !errors.Is(m.err, c.err) {
			t.Errorf("%s: the error is %v", name, m.err)
		}
	}
}

// TestPassedAgain: the time of a way is smoothed, and that of another address is new.
func TestPassedAgain(t *testing.T) {
	one, two := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	m := withCredential(Unprobed, nil)
	p := stillPool(t, m)
	for _, step := range []struct {
		at       netip.Addr
		took, is time.Duration
	}{
		{one, 80 * time.Millisecond, 80 * time.Millisecond},
		{one, 160 * time.Millisecond, smooth(80*time.Millisecond, 160*time.Millisecond)},
		{two, 16 * time.Millisecond, 16 * time.Millisecond},
	} {
		p.passed(stillNow, m, step.at, step.took)
		if m.latency != step.is || m.at != step.at || len(p.loop.order) != 1 {
			t.Errorf("%+v: %v at %v, %d healthy", step, m.latency, m.at, len(p.loop.order))
		}
	}
	if got := p.recorded(); !slices.Equal(got, []witness.Name{witness.TURNServerHealthCheckSuccess}) {
		t.Errorf("recorded %v", got)
	}
	if is := smooth(80*time.Millisecond, 160*time.Millisecond); is <= 80*time.Millisecond || is >= 160*time.Millisecond {
		t.Errorf("smoothed to %v", is)
	}
}

// TestWhatIsDue: what the loop begins for a member, and when it looks again.
func TestWhatIsDue(t *testing.T) {
	at := func(d time.Duration) time.Time { return stillNow.mono.Add(d) }
	var cause error
	busy := func(health Health, change func(m *member)) *member {
		return withCredential(health, func(m *member) {
			m.began = stillNow.mono
			m.renewal.due, m.renewal.dueWall = time.Time{}, time.Time{}
			m.cancel = func(err error) { cause = err }
			change(m)
		})
	}
	for name, c := range map[string]struct {
		m       *member
		next    time.Time
		doubted bool
		ended   bool // the probe that was under way
	}{
		"a probe is under way": {busy(Healthy, func(*member) {}), at(time.Hour), false, false},
		"a fetch is due before": {busy(Healthy, func(m *member) { m.renewal.due = at(time.Minute) }),
			at(time.Minute), false, false},
		"a fetch is under way": {busy(Healthy, func(m *member) { m.fetching, m.renewal.due = true, at(time.Minute) }),
			at(time.Hour), false, false},
		"a doubt": {busy(Healthy, func(m *member) { m.doubted = true }), at(time.Hour), true, true},
		"a doubt, and that is why it is under way": {busy(Healthy, func(m *member) { m.doubted, m.urgent = true, true }),
			at(time.Hour), true, false},
		"a doubt of what has no credit": {busy(Unhealthy, func(m *member) { m.doubted = true }), at(time.Hour), false, false},
		"a doubt soon after another": {busy(Healthy, func(m *member) { m.doubted, m.asked = true, at(-doubtPause/4) }),
			at(doubtPause * 3 / 4), true, false},
		"a doubt while it is held back": {busy(Healthy, func(m *member) { m.doubted, m.asked, m.hold = true, at(-time.Hour), at(3*time.Second) }),
			at(3 * time.Second), true, false},
		"a doubt without a credential": {busy(Healthy, func(m *member) {
			m.doubted, m.renewal.cred.Expires, m.renewal.due = true, stillNow.wall, at(time.Minute)
		}), at(time.Minute), false, false},
		"nothing is under way": {busy(Healthy, func(m *member) { m.cancel = nil }), at(30 * time.Second), false, false},
		"held back":            {busy(Unprobed, func(m *member) { m.cancel, m.hold = nil, at(time.Second) }), at(time.Second), false, false},
	} {
		cause = nil
		c.m.spread = 0
		p := stillPool(t, c.m)
		next := p.start(stillNow, c.m, false)
		if !next.Equal(c.next) || c.m.doubted != c.doubted || errors.Is(cause, errDoubted) != c.ended || (cause != nil) != c.ended {
			t.Errorf("%s: again after %v, doubted %v, ended with %v", name, next.Sub(stillNow.mono), c.m.doubted, cause)
		}
		if c.m.fetching != (name == "a fetch is under way") {
			t.Errorf("%s: fetching %v", name, c.m.fetching)
		}
	}
}

// TestEndOfACredential: it is told once, and not while another may be on its way.
func TestEndOfACredential(t *testing.T) {
	for name, c := range map[string]struct {
		change func(m *member)
		told   bool
	}{
		"there is time":                         {func(m *member) { m.renewal.cred.Expires = stillNow.wall.Add(time.Second) }, false},
		"it is over":                            {func(*member) {}, true},
		"told before":                           {func(m *member) { m.ended = m.renewal.version }, false},
		"a fetch is under way":                  {func(m *member) { m.fetching = true }, false},
		"a fetch is due":                        {func(m *member) { m.renewal.due = stillNow.mono }, false},
		"a fetch is due, the last one failed":   {func(m *member) { m.renewal.due, m.renewal.failures = stillNow.mono, 1 }, true},
		"one is under way, the last one failed": {func(m *member) { m.fetching, m.renewal.failures = true, 1 }, true},
	} {
		var cause error
		m := withCredential(Healthy, func(m *member) {
			m.renewal.cred.Expires = stillNow.wall
			m.renewal.due, m.renewal.dueWall = time.Time{}, time.Time{}
			m.cancel = func(err error) { cause = err }
			c.change(m)
		})
		p := stillPool(t, m)
		p.loop.order = []*member{m}
		for range 2 {
			p.expire(stillNow, m)
		}
		got := p.recorded()
		if told := len(got) > 0 && got[0] == witness.TURNServerMarkedUnhealthy; told != c.told || (m.breaker.health == Unhealthy) != c.told ||
			errors.Is(cause, ErrExpired) != c.told || errors.Is(m.err, ErrExpired) != c.told || m.breaker.failures > 1 {
			t.Errorf("%s: recorded %v, %v, ended with %v, %d failures", name, got, m.breaker.health, cause, m.breaker.failures)
		}
	}
}

// TestStatusOfAMember: the time of the next probe is told where there will be one.
func TestStatusOfAMember(t *testing.T) {
	due := stillNow.mono.Add(30 * time.Second)
	for name, c := range map[string]struct {
		change func(m *member)
		next   time.Time
	}{
		"due":           {func(*member) {}, due},
		"under way":     {func(m *member) { m.cancel = func(error) {} }, time.Time{}},
		"no credential": {func(m *member) { m.renewal.version = 0 }, time.Time{}},
	} {
		m := withCredential(Healthy, func(m *member) { m.began = stillNow.mono; m.latency, m.err = 7, ErrQuota; c.change(m) })
		s := stillPool(t, m).status(stillNow, m, false)
		if !s.NextProbe.Equal(c.next) || s.Health != Healthy || s.Latency != 7 || s.Error != ErrQuota.Error() || !errors.Is(s.Err, ErrQuota) || s.URL != m.URL ||
			!s.Expires.Equal(m.renewal.cred.Expires) {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

// TestFirstChoice: that none is usable is told once, until one is again; a failover is told when the first choice
// failed and only then.
func TestFirstChoice(t *testing.T) {
	a, b := withCredential(Healthy, nil), withCredential(Healthy, func(m *member) { m.URL = "turn:192.0.2.2" })
	p := stillPool(t, a, b)
	p.loop.order = []*member{a, b}
	for i, step := range []struct {
		do   func()
		told []witness.Name
	}{
		{func() {}, nil},
		{func() { p.loop.order = []*member{b, a} }, nil}, // it is faster
		{func() { p.failed(stillNow, b, ErrNoEcho, true) }, []witness.Name{witness.TURNServerMarkedUnhealthy, witness.TURNServerFailover}},
		{func() {}, nil},
		{func() { p.failed(stillNow, a, ErrNoEcho, true) }, []witness.Name{witness.TURNServerMarkedUnhealthy, witness.AllTURNServersUnhealthy}},
		{func() { p.failed(stillNow, a, ErrNoEcho, true) }, nil},
		{func() { p.passed(stillNow, b, netip.Addr{}, 1) }, []witness.Name{witness.TURNServerHealthCheckSuccess, witness.TURNServerFailover}},
		{func() { p.failed(stillNow, b, ErrNoEcho, true) }, []witness.Name{witness.TURNServerMarkedUnhealthy, witness.AllTURNServersUnhealthy}},
		{func() { p.loop.members, p.loop.order, p.loop.dark = nil, nil, false }, nil}, // none are configured
	} {
		step.do()
		p.chosen()
		if got := p.recorded(); !slices.Equal(got, step.told) {
			t.Errorf("step %d: recorded %v", i, got)
		}
		if i == 8 && p.loop.dark {
			t.Error("none is configured, and that counts as none usable")
		}
	}
}

// TestLeave: after the end there is nothing to use, and nothing to wait for.
func TestLeave(t *testing.T) {
	m := withCredential(Healthy, nil)
	p := stillPool(t, m)
	p.loop.order = []*member{m}
	changed := p.view.changed
	p.publish(stillNow)
	select {
	case <-changed:
	default:
		t.Error("a first relay is no change")
	}
	changed = p.view.changed
	p.publish(stillNow)
	select {
	case <-changed:
		t.Error("nothing new is a change")
	default:
	}
	if len(p.view.relays) != 1 || !p.view.urls[m.address.url] || !p.view.settled || len(p.view.status) != 1 {
		t.Errorf("published %+v", p.view)
	}
	p.Doubt(Relay{URL: "turn:192.0.2.9"})
	p.Doubt(Relay{URL: "turn:192.0.2.1"})
	p.hear()
	if !m.doubted || len(p.doubts) != 0 {
		t.Errorf("doubted %v, %d doubts", m.doubted, len(p.doubts))
	}
	p.leave()
	select {
	case <-changed:
	default:
		t.Error("the end is no change")
	}
	if p.view.relays != nil || p.view.urls != nil || p.view.changed != nil {
		t.Errorf("after the end %+v", p.view)
	}
	p.Doubt(Relay{URL: "turn:192.0.2.1"})
	if len(p.doubts) != 0 {
		t.Error("after the end something is doubted")
	}
}

// TestMessagesByTheirBytes: what is told from the bytes of a message alone.
func TestMessagesByTheirBytes(t *testing.T) {
	request := build(t, stun.TransactionID, stun.NewType(stun.MethodBinding, stun.ClassRequest))
	signed := build(t, stun.TransactionID, stun.NewType(stun.MethodAllocate, stun.ClassRequest), stun.NewShortTermIntegrity("p"))
	indication := build(t, stun.TransactionID, stun.NewType(stun.MethodSend, stun.ClassIndication))
	data := build(t, stun.TransactionID, stun.NewType(stun.MethodData, stun.ClassIndication), attr(stun.AttrData, 1, 2, 3, 4, 5))
	other := build(t, stun.TransactionID, stun.NewType(stun.MethodData, stun.ClassIndication), attr(stun.AttrSoftware, 1))
	for name, c := range map[string]struct {
		p           []byte
		right, bare bool
		payload     int // -1 is none
	}{
		"request":               {request, true, true, -1},
		"signed":                {signed, true, false, -1},
		"indication":            {indication, true, false, -1},
		"data":                  {data, true, false, 5},
		"data of nothing":       {other, true, false, 0},
		"channel":               {[]byte{0x40, 0, 0, 2, 9, 9, 0, 0}, true, false, 2},
		"last channel":          {[]byte{0x4f, 0xff, 0, 4, 9, 9, 9, 9}, true, false, 4},
		"channel, cut":          {[]byte{0x40, 0, 0, 9, 9}, true, false, 1},
		"channel, empty":        {[]byte{0x40, 0, 0, 0}, true, false, 0},
		"channel, no size":      {[]byte{0x40, 0, 0}, false, false, -1},
		"no channel":            {[]byte{0x50, 0, 0, 2, 9, 9}, false, false, -1},
		"below":                 {[]byte{0x3f, 0, 0, 2, 9, 9}, false, false, -1},
		"request with two bits": {append([]byte{request[0] | 0x80}, request[1:]...), false, false, -1},
	} {
		if got := looksRight(c.p); got != c.right {
			t.Errorf("%s: looks right %v", name, got)
		}
		if len(c.p) >= 4 {
			if got := bare(c.p); got != c.bare {
				t.Errorf("%s: bare %v", name, got)
			}
		}
		n, ok := payload(c.p)
		if ok != (c.payload >= 0) || ok && n != c.payload {
			t.Errorf("%s: payload %d, %v", name, n, ok)
		}
	}
	if v, ok := attribute(data, uint16(stun.AttrData)); !ok || !slices.Equal(v, []byte{1, 2, 3, 4, 5}) {
		t.Errorf("attribute %v, %v", v, ok)
	}
	if v, ok := attribute(data[:len(data)-5], uint16(stun.AttrData)); !ok || !slices.Equal(v, []byte{1, 2, 3}) {
		t.Errorf("attribute of a message that is cut: %v, %v", v, ok)
	}
	if _, ok := attribute(data[:10], uint16(stun.AttrData)); ok {
		t.Error("an attribute of half a header")
	}
}

// TestChannelOf: only a ChannelBind has a channel, and only where all of the number is there.
func TestChannelOf(t *testing.T) {
	raw := func(value ...byte) []byte {
		return build(t, stun.TransactionID, stun.NewType(stun.MethodChannelBind, stun.ClassRequest), attr(stun.AttrChannelNumber, value...))
	}
	for want, e := range map[uint16]serving{
		0x4001: {method: stun.MethodChannelBind, raw: raw(0x40, 0x01, 0, 0)},
		0x4002: {method: stun.MethodChannelBind, raw: raw(0x40, 0x02)},
	} {
		if got := channelOf(e); got != want {
			t.Errorf("%#x, want %#x", got, want)
		}
	}
	for name, e := range map[string]serving{
		"another method": {method: stun.MethodCreatePermission, raw: raw(0x40, 0x01, 0, 0)},
		"one byte":       {method: stun.MethodChannelBind, raw: raw(0x40)},
		"no attribute":   {method: stun.MethodChannelBind, raw: build(t, stun.TransactionID, stun.NewType(stun.MethodChannelBind, stun.ClassRequest))},
	} {
		if got := channelOf(e); got != 0 {
			t.Errorf("%s: %#x", name, got)
		}
	}
}

// TestAnswers: which answers leave an inlet, and as what.
func TestAnswers(t *testing.T) {
	s := serve(t, nil)
	client := netip.MustParseAddrPort("192.0.2.7:1234")
	request := build(t, stun.TransactionID, stun.NewType(stun.MethodAllocate, stun.ClassRequest))
	answer := build(t, stun.TransactionID, stun.NewType(stun.MethodAllocate, stun.ClassSuccessResponse))
	there := map[netip.AddrPort]*allocation{client: {client: client, grants: newGrants()}}
	for name, c := range map[string]struct {
		now         serving
		stream      bool
		early       int
		allocations map[netip.AddrPort]*allocation
		p           []byte
		ok          bool
		code        int // of the refusal that it becomes
		counted     int
	}{
		"authenticated":               {now: serving{authenticated: true}, p: answer, ok: true},
		"authenticated and forbidden": {now: serving{authenticated: true, code: stun.CodeForbidden}, p: answer, ok: true, code: 403},
		"authenticated, junk":         {now: serving{authenticated: true, code: stun.CodeForbidden}, p: []byte("junk")},
		"small":                       {now: serving{raw: request}, p: answer, ok: true},
		"three times the size":        {now: serving{raw: answer[:7]}, p: answer[:20], ok: true},
		"more than three times":       {now: serving{raw: answer[:6]}, p: answer[:20]},
		"over TCP":                    {stream: true, p: answer, ok: true, counted: 1},
		"over TCP, the last":          {stream: true, early: maxEarlyAnswers - 1, p: answer, ok: true, counted: maxEarlyAnswers},
		"over TCP, one too many":      {stream: true, early: maxEarlyAnswers, p: answer, counted: maxEarlyAnswers + 1},
		"over TCP, with allocation":   {stream: true, early: maxEarlyAnswers, allocations: there, p: answer, ok: true},
	} {
		i := &inlet{server: s, allocations: c.allocations, early: c.early, now: c.now}
		i.now.client = client
		i.now.key = stun.NewShortTermIntegrity("p")
		one, two := net.Pipe()
		if c.stream {
			i.stream = &stream{Conn: one}
		}
		out, ok := i.answer(c.p)
		if ok != c.ok || i.early != c.counted || !i.now.answered {
			t.Errorf("%s: %v, %d early", name, ok, i.early)
		}
		if ok && c.code == 0 && !slices.Equal(out, c.p) {
			t.Errorf("%s: another answer", name)
		}
		if c.code != 0 {
			m := &stun.Message{Raw: out}
			var code stun.ErrorCodeAttribute
			if err := m.Decode(); err != nil || code.GetFrom(m) != nil || int(code.Code) != c.code || m.Type != stun.NewType(stun.MethodAllocate, stun.ClassErrorResponse) ||
				i.now.key.Check(m) != nil {
				t.Errorf("%s: %v, %v", name, m, err)
			}
		}
		check(t, errors.Join(one.Close(), two.Close()))
	}
	i := &inlet{server: s, allocations: there}
	if g := i.grants(&net.UDPAddr{IP: net.IPv4(192, 0, 2, 8), Port: 1}); g == nil || len(g.permissions) != 0 {
		t.Error("whoever has no allocation has no empty grants")
	}
	if i.grants(&net.UDPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 1234}) != there[client].grants {
		t.Error("an allocation's grants are others")
	}
	if i.remove(&allocation{client: client}) || len(i.allocations) != 1 {
		t.Error("the next allocation of a client was removed")
	}
	if !i.remove(there[client]) || len(i.allocations) != 0 {
		t.Error("an allocation was not removed")
	}
	if n, err := i.relay([]byte{0x40, 0, 0, 1, 9}, 1, &net.UDPAddr{}); n != 5 || err != nil {
		t.Errorf("to nobody: %d, %v", n, err)
	}
	for _, c := range []struct {
		a    net.Addr
		want string
	}{
		{&net.UDPAddr{IP: net.ParseIP("::ffff:192.0.2.1"), Port: 5}, "192.0.2.1:5"},
		{&net.TCPAddr{IP: net.ParseIP("2001:db8::1"), Port: 6}, "[2001:db8::1]:6"},
		{&net.UnixAddr{Name: "x"}, "invalid AddrPort"},
	} {
		if got := addrPort(c.a); got.String() != c.want {
			t.Errorf("%v is %v", c.a, got)
		}
	}
}

// slowRecorder takes its time.
type slowRecorder struct {
	took int
	time time.Duration
}

// Record takes a while.
//
// bubble: it sleeps in virtual time.
func (r *slowRecorder) Record(context.Context, witness.Event) {
	time.Sleep(r.time)
	r.took++
}

// TestTellAfterTheEnd: what waits for the Recorder at the end is told for a moment only.
func TestTellAfterTheEnd(t *testing.T) {
	for each, want := range map[time.Duration]int{
		time.Millisecond:       16,
		300 * time.Millisecond: 4, // the last begins within eventsWait
		2 * time.Second:        1,
	} {
		synctest.Test(t, func(t *testing.T) {
			p := stillPool(t)
			r := &slowRecorder{time: each}
			p.cfg.Recorder = r
			for range 16 {
				p.record(witness.TURNServerMarkedUnhealthy, witness.Warning, nil, "")
			}
			p.record(witness.TURNServerMarkedUnhealthy, witness.Warning, nil, "") // there is no room for it
			close(p.events)
			p.cancel()
			start := time.Now()
			p.tell()
			if d := time.Since(start); r.took != want || d != time.Duration(want)*each {
				t.Errorf("%v each: %d events in %v, want %d", each, r.took, d, want)
			}
		})
	}
}

// TestReasonIsCut: of a server's text there is as much in an error as fits into a line.
func TestReasonIsCut(t *testing.T) {
	x := &exchange{username: "u", now: time.Now}
	for n, want := range map[int]int{0: 0, 64: 64, 65: 64, 500: 64} {
		reason := bytes.Repeat([]byte("x"), n)
		e := x.refusal(stun.NewType(stun.MethodAllocate, stun.ClassErrorResponse), stun.ErrorCodeAttribute{Code: 508, Reason: reason})
		var refused *stun.TurnError
		if !errors.As(e, &refused) || len(refused.ErrorCodeAttr.Reason) != want || !errors.Is(e, ErrNoAllocation) {
			t.Errorf("%d bytes: %v", n, e)
		}
		if n > 0 {
			if reason[0] = 'y'; refused.ErrorCodeAttr.Reason[0] != 'x' {
				t.Error("it is not a copy")
			}
		}
	}
}

// TestProbeOfAName: a name that is not known is the way's fault, and a probe that was given up nobody's.
func TestProbeOfAName(t *testing.T) {
	unknown, overtaken := errors.New("no such name"), errors.New("given up")
	a, err := parseAddress("turn:relay.example")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		cause, want error
	}{{nil, ErrUnreachable}, {overtaken, overtaken}} {
		ctx, cancel := context.WithCancelCause(t.Context())
		names := resolve.New(resolve.Config{Lookup: func(ctx context.Context, _, _ string) ([]netip.Addr, error) {
			if c.cause != nil {
				cancel(c.cause)
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return nil, unknown
		}})
		p := &prober{names: names, now: time.Now}
		at, latency, err := p.run(ctx, a, Relay{URL: "turn:relay.example"}, pace{})
		if !errors.Is(err, c.want) || at.IsValid() || latency != 0 {
			t.Errorf("%v, %v, %v", at, latency, err)
		}
		var pe *ProbeError
		if errors.As(err, &pe) != (c.cause == nil) || pe != nil && (pe.URL != "turn:relay.example" || !errors.Is(err, ErrUnreachable)) {
			t.Errorf("%v", err)
		}
		cancel(nil)
		names.Close()
	}
}

// TestSameCredentialAgain: a credential that comes again is none that is new.
func TestSameCredentialAgain(t *testing.T) {
	var r renewal
	c := Credential{Username: "u", Password: "p", Expires: stillNow.wall.Add(time.Hour)}
	for i, want := range []bool{true, false, false} {
		if got := r.got(stillNow, c, 0); got != want || r.version != 1 {
			t.Errorf("%d: changed %v, version %d", i, got, r.version)
		}
	}
	c.Password = "q"
	if !r.got(stillNow, c, 0) || r.version != 2 {
		t.Errorf("another: version %d", r.version)
	}
	var first renewal
	if !first.got(stillNow, Credential{}, 0) || first.version != 1 {
		t.Errorf("the first, of nothing: version %d", first.version)
	}
}

// TestResultsOfTheRemoved: what a fetch or a probe finds of an endpoint that was removed meanwhile changes
// nothing and is not told.
func TestResultsOfTheRemoved(t *testing.T) {
	for _, removed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			m := withCredential(Healthy, func(m *member) {
				m.renewal.version = 0
				m.Credentials = func(context.Context) (Credential, error) { return Credential{}, errors.New("no") }
			})
			p := stillPool(t, m)
			p.loop.order = []*member{m}
			p.fetch(m)
			f := <-p.loop.results
			m.removed = removed
			f(stillNow)
			if told := len(p.recorded()) > 0; told == removed || m.fetching || (m.err == nil) != removed {
				t.Errorf("removed %v: told %v, fetching %v, %v", removed, told, m.fetching, m.err)
			}
		})
	}
	for name, c := range map[string]struct{ removed, given, judged bool }{
		"there": {judged: true}, "removed": {removed: true}, "given up": {given: true},
	} {
		m := withCredential(Unprobed, nil)
		p := stillPool(t, m)
		p.prober = prober{names: resolve.New(resolve.Config{Lookup: func(context.Context, string, string) ([]netip.Addr, error) {
			return nil, errors.New("no such name")
		}}), now: time.Now}
		m.address.host = "relay.example"
		p.probe(stillNow.mono, m, false, true)
		if m.cancel == nil || !m.urgent || !m.began.Equal(stillNow.mono) || m.probed != m.renewal.version {
			t.Errorf("%s: %+v", name, m)
		}
		if c.given {
			m.cancel(errDoubted)
		}
		f := <-p.loop.results
		m.removed = c.removed
		f(stillNow)
		if judged := m.breaker.failures == 1; m.cancel != nil || judged != c.judged {
			t.Errorf("%s: judged %v", name, judged)
		}
		p.prober.names.Close()
	}
}

// TestGaugeOfHealth: an endpoint counts as healthy while it is, and none does after the end.
func TestGaugeOfHealth(t *testing.T) {
	reader := sdk.NewManualReader()
	ins, err := metrics.New(sdk.NewMeterProvider(sdk.WithReader(reader)))
	if err != nil {
		t.Fatal(err)
	}
	a, b := withCredential(Unprobed, nil), withCredential(Unprobed, nil)
	b.address.url = "turn:192.0.2.2:3478?transport=udp"
	p := stillPool(t, a, b)
	p.ins = ins
	sums := func() (both [2]int64) {
		var all metricdata.ResourceMetrics
		if err := reader.Collect(t.Context(), &all); err != nil {
			t.Fatal(err)
		}
		for _, scope := range all.ScopeMetrics {
			for _, m := range scope.Metrics {
				data, ok := m.Data.(metricdata.Sum[int64])
				if !ok || m.Name != "webrtc_turn_server_healthy" {
					continue
				}
				for _, point := range data.DataPoints {
					i := 0
					if v, _ := point.Attributes.Value(metrics.Server); v.AsString() == b.address.url {
						i = 1
					}
					both[i] += point.Value
				}
			}
		}
		return both
	}
	p.appeared(a)
	p.appeared(b)
	for i, step := range []struct {
		do   func()
		want [2]int64
	}{
		{func() {}, [2]int64{0, 0}},
		{func() { p.passed(stillNow, a, netip.Addr{}, 1) }, [2]int64{1, 0}},
		{func() { p.passed(stillNow, a, netip.Addr{}, 1) }, [2]int64{1, 0}},
		{func() { p.passed(stillNow, b, netip.Addr{}, 1) }, [2]int64{1, 1}},
		{func() { p.failed(stillNow, b, ErrNoEcho, true) }, [2]int64{1, 0}},
		{func() { p.failed(stillNow, b, ErrNoEcho, true) }, [2]int64{1, 0}},
		{func() { p.leave() }, [2]int64{0, 0}},
	} {
		step.do()
		if got := sums(); got != step.want {
			t.Errorf("step %d: %v, want %v", i, got, step.want)
		}
	}
}
