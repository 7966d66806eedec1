package signaling

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// stillClient is a Client whose links do not run.
func stillClient(servers int) *Client {
	c := &Client{closing: make(chan struct{}), changed: make(chan struct{}), renewed: make(chan struct{}), doubted: make(chan struct{})}
	c.cfg.MaxServers, c.cfg.Logger = 2, slog.New(slog.DiscardHandler)
	for i := range servers {
		l := &link{c: c, index: i}
		l.label = "ws://s" + string(rune('0'+i)) + "/"
		c.links = append(c.links, l)
	}
	return c
}

// TestWhichServersAreWanted: a server is to be used while fewer than MaxServers before it are, or may soon be.
func TestWhichServersAreWanted(t *testing.T) {
	for down, want := range map[string]string{
		"----": "++--", "x---": "+++-", "-x--": "+++-", "xx--": "++++", "--x-": "++--", "x-x-": "++++", "xxxx": "++++", "-xx-": "++++",
	} {
		c := stillClient(len(down))
		for i, l := range c.links {
			l.down = down[i] == 'x'
		}
		got := ""
		for _, l := range c.links {
			yes, changed := l.wanted()
			if changed != c.changed {
				t.Error("another channel")
			}
			if got += "-"; yes {
				got = got[:len(got)-1] + "+"
			}
		}
		if got != want {
			t.Errorf("down %s: wanted %s, want %s", down, got, want)
		}
	}
}

// TestStatesOfALink: each state is told, and says whether the server counts as down.
func TestStatesOfALink(t *testing.T) {
	for s, want := range map[State]struct{ up, down bool }{ // what was up before, and what was down
		StateConnecting: {false, true}, StateOpen: {false, false}, StateSpare: {false, false}, StateWaiting: {true, true},
		StateRefused: {true, true}, StateReplaced: {true, true}, StateDuplicate: {true, true},
	} {
		for _, was := range []bool{false, true} {
			c := stillClient(1)
			l := c.links[0]
			l.down = was
			changed, cause := c.changed, errors.New("why")
			l.set(s, nil, cause)
			select {
			case <-changed:
			default:
				t.Errorf("%v is not told", s)
			}
			if down := map[bool]bool{false: want.up, true: want.down}[was]; l.down != down || l.state != s || !errors.Is(l.status().Err, cause) || c.changed == changed {
				t.Errorf("%v, down %v before: %v now", s, was, l.down)
			}
		}
	}
}

// TestSleepOfALink: what ends a wait, and that only Refresh makes the next attempt the first.
func TestSleepOfALink(t *testing.T) {
	for name, c := range map[string]struct {
		do    func(c *Client)
		took  time.Duration
		fresh bool
	}{
		"nothing": {func(*Client) {}, time.Minute, false},
		"Refresh": {func(c *Client) { c.Refresh() }, time.Second, true},
		"Probe":   {func(c *Client) { c.Probe() }, time.Second, false},
		"Close":   {func(c *Client) { close(c.closing) }, time.Second, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			cl := stillClient(1)
			start := time.Now()
			time.AfterFunc(time.Second, func() { c.do(cl) })
			fresh := cl.links[0].sleep(time.Minute, cl.refreshed(), cl.probed())
			if d := time.Since(start); d != c.took || fresh != c.fresh {
				t.Errorf("%s: after %v, fresh %v", name, d, fresh)
			}
		})
	}
	least, most := time.Hour, time.Duration(0)
	for range 1000 {
		d := spread(10 * time.Second)
		least, most = min(least, d), max(most, d)
	}
	if least < 8*time.Second || most > 12*time.Second || least > 9*time.Second || most < 11*time.Second {
		t.Errorf("10 s are %v to %v", least, most)
	}
}

// TestClocksAreTold: clocks that are apart are told once, and again when they are apart by more, or anew.
func TestClocksAreTold(t *testing.T) {
	var b strings.Builder
	c := stillClient(1)
	c.cfg.Logger = slog.New(slog.NewTextHandler(&b, nil))
	l := c.links[0]
	at := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	for i, step := range []struct {
		ahead time.Duration
		told  bool
	}{
		{0, false}, {ClockTolerance, false}, {ClockTolerance + 1, true}, {ClockTolerance + 1, false}, {2*ClockTolerance + 1, false}, {2*ClockTolerance + 2, true},
		{-ClockTolerance - 1, true}, {-ClockTolerance - 1, false}, {0, false}, {-ClockTolerance - 1, true},
	} {
		b.Reset()
		clock := Clock{Server: at, Here: at.Add(step.ahead)}
		if got := l.compare(clock); got != clock || l.status().Clock != clock {
			t.Errorf("%d: %v", i, got)
		}
		if told := b.Len() > 0; told != step.told {
			t.Errorf("%d: %v ahead: told %v", i, step.ahead, told)
		}
	}
	if got := l.compare(Clock{Here: at}); got.Known() || l.status().Clock.Server != at {
		t.Error("what is not known takes the place of what is")
	}
}

// TestRoutes: a route is one of the open connections, whatever its number.
func TestRoutes(t *testing.T) {
	c := stillClient(4)
	if _, err := c.pick(0); !errors.Is(err, ErrNoServer) {
		t.Errorf("none is open: %v", err)
	}
	for _, i := range []int{0, 2, 3} {
		c.links[i].state, c.links[i].conn = StateOpen, &clientConn{link: c.links[i], done: make(chan struct{}), out: make(chan []byte, 1), maxEnvelope: 10}
	}
	for route, want := range map[int]int{0: 0, 1: 2, 2: 3, 3: 0, 7: 2, -1: 3, -3: 0} {
		if conn, err := c.pick(route); err != nil || conn != c.links[want].conn {
			t.Errorf("%d: %v", route, err)
		}
	}
	close(c.links[2].conn.done) // it is ending
	for route, want := range map[int]int{0: 0, 1: 3, 2: 0} {
		if conn, err := c.pick(route); err != nil || conn != c.links[want].conn {
			t.Errorf("%d without one: %v", route, err)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	if server, err := c.Send(ctx, make([]byte, 10), 1); err != nil || server != "ws://s3/" {
		t.Errorf("%q, %v", server, err)
	}
	if _, err := c.Send(ctx, make([]byte, 11), 1); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	why := errors.New("why")
	cancel(why)
	if _, err := c.Send(ctx, make([]byte, 10), 1); !errors.Is(err, why) { // the queue is full
		t.Errorf("%v", err)
	}
	if err := c.SendTo(ctx, make([]byte, 10), "ws://s3/"); !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
	for server, want := range map[string]error{"ws://s0/": nil, "ws://s1/": ErrNoServer, "ws://s2/": ErrNoServer, "ws://s9/": ErrNoServer} {
		if err := c.SendTo(t.Context(), make([]byte, 10), server); !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("to %s: %v", server, err)
		}
	}
}
