package mesh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/transport/v5"
	"github.com/pion/transport/v5/netchange"

	"github.com/infrafabric/agentmesh/internal/virtual"
)

// machineNet is the network of a machine whose interfaces a test changes.
type machineNet struct {
	transport.Net
	own bool // the interfaces of Net are there as well

	mu     sync.Mutex
	ifs    []hardware
	route  []netip.Addr
	broken error // of listing
	deaf   error // of opening notices
	died   error // of notices that are open
	told   chan struct{}
	opened int
	listed int
	open   int
}

func newMachineNet(ifs ...hardware) *machineNet {
	return &machineNet{ifs: ifs, told: make(chan struct{}, 1)}
}

func (m *machineNet) Interfaces() ([]*transport.Interface, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.listed++
	if m.broken != nil {
		return nil, m.broken
	}
	list := interfaces(m.ifs...)
	if m.own {
		more, err := m.Net.Interfaces()
		if err != nil {
			return nil, err
		}
		list = append(list, more...)
	}
	return list, nil
}

func (m *machineNet) refresh()       {}
func (m *machineNet) shortOf() error { return nil }

func (m *machineNet) routes() []netip.Addr {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.route
}

func (m *machineNet) notices() (notices, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.deaf != nil {
		return nil, m.deaf
	}
	m.opened++
	m.open++
	return machineNotices{m}, nil
}

// change changes the machine, and tells it.
func (m *machineNet) change(f func()) {
	m.quietly(f)
	select {
	case m.told <- struct{}{}:
	default:
	}
}

// quietly changes it without a notice.
func (m *machineNet) quietly(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

type machineNotices struct{ m *machineNet }

func (n machineNotices) Check(ctx context.Context) ([]netchange.Change, error) {
	select {
	case <-n.m.told:
		n.m.mu.Lock()
		defer n.m.mu.Unlock()
		if err := errors.Join(n.m.died, n.m.broken); err != nil {
			return nil, err
		}
		return []netchange.Change{{Type: netchange.Changed}}, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (n machineNotices) Close() error {
	n.m.mu.Lock()
	defer n.m.mu.Unlock()
	n.m.open--
	return nil
}

// logged counts the lines of a log.
type logged struct {
	mu    sync.Mutex
	lines []string
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(b))
	return len(b), nil
}

func (l *logged) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// count is how many lines have a text.
func (l *logged) count(text string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// onMachine runs a watch of a machine with one network in a bubble; told returns what
// it told since it was called last, and when.
func onMachine(t *testing.T, f func(m *machineNet, log *logged, told func() []string), prepare ...func(*machineNet)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := newMachineNet(loopbackHardware, lanHardware)
		for _, f := range prepare {
			f(m)
		}
		var log logged
		w := newHostWatch(m, log.logger())
		ctx, cancel := context.WithCancel(t.Context())
		var list []string
		var work sync.WaitGroup
		began := time.Now()
		work.Go(func() {
			for {
				c, err := w.next(ctx)
				if err != nil {
					return
				}
				list = append(list, fmt.Sprintf("%v +%v -%v", time.Since(began), addressList(c.fresh), addressList(c.gone)))
			}
		})
		f(m, &log, func() []string {
			synctest.Wait()
			l := list
			list = nil
			return l
		})
		cancel()
		work.Wait()
		if err := w.close(); err != nil {
			t.Error(err)
		}
		if m.open != 0 {
			t.Errorf("%d sockets for notices are open", m.open)
		}
	})
}

var (
	lanHardware = hardware{"eth0", isUp, []string{"10.0.0.2/24"}}
	errShort    = &errnoError{syscall.EMFILE}
)

type errnoError struct{ syscall.Errno }

func expectTold(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, "; ") != strings.Join(want, "; ") {
		t.Errorf("%s: told %q, want %q", what, got, want)
	}
}

// TestWatchOutlivesErrors: whatever is missing for a while, changes are noticed before
// and after, and those of meanwhile when they can be.
func TestWatchOutlivesErrors(t *testing.T) {
	onMachine(t, func(m *machineNet, log *logged, told func() []string) {
		at := func(addr string) func() {
			return func() { m.ifs = []hardware{loopbackHardware, {"eth0", isUp, []string{addr}}} }
		}
		time.Sleep(time.Second)
		m.change(at("10.0.0.3/24"))
		expectTold(t, "in peace", told(), "1s +[10.0.0.3] -[10.0.0.2]")

		// No descriptor is left at the moment of a change, for a minute.
		m.change(func() { m.broken, m.deaf = errShort, errShort; at("10.0.0.4/24")() })
		time.Sleep(time.Minute)
		expectTold(t, "without descriptors", told())
		m.quietly(func() { m.broken, m.deaf = nil, nil })
		time.Sleep(networkPoll)
		if got := told(); len(got) != 1 || !strings.HasSuffix(got[0], "+[10.0.0.4] -[10.0.0.3]") {
			t.Errorf("with descriptors again: told %q", got)
		}
		time.Sleep(networkRetryMost + networkPoll)
		m.change(at("10.0.0.5/24"))
		time.Sleep(networkPause)
		if got := told(); len(got) != 1 || !strings.HasSuffix(got[0], "+[10.0.0.5] -[10.0.0.4]") {
			t.Errorf("later: told %q", got)
		}
		if m.opened != 2 {
			t.Errorf("notices were opened %d times", m.opened)
		}

		// The socket dies.
		time.Sleep(time.Second)
		m.change(func() { m.died = syscall.EBADF })
		time.Sleep(networkRetry / 2)
		m.quietly(func() { m.died = nil })
		time.Sleep(networkPoll + time.Second)
		m.change(at("10.0.0.6/24"))
		time.Sleep(networkPause)
		if got := told(); len(got) != 1 {
			t.Errorf("after the socket died: told %q", got)
		}

		// The notice of a change is lost, as when the socket overflows.
		m.quietly(at("10.0.0.7/24"))
		time.Sleep(networkLook)
		if got := told(); len(got) != 1 {
			t.Errorf("after a lost notice: told %q", got)
		}
		if n := log.count("the system does not tell of changes"); n != 2 {
			t.Errorf("said %d times that the system does not tell, want once each time", n)
		}
	})
}

// TestWatchWithoutNotices: a sandbox without netlink is said once, and looked at.
func TestWatchWithoutNotices(t *testing.T) {
	onMachine(t, func(m *machineNet, log *logged, told func() []string) {
		time.Sleep(time.Hour)
		expectTold(t, "in peace", told())
		m.quietly(func() { m.ifs = append(m.ifs, hardware{"wlan0", isUp, []string{"192.168.1.5/24"}}) })
		time.Sleep(networkPoll)
		if got := told(); len(got) != 1 || !strings.HasSuffix(got[0], "+[192.168.1.5] -[]") {
			t.Errorf("told %q", got)
		}
		if n := log.count("the system does not tell of changes"); n != 1 {
			t.Errorf("said %d times that the system does not tell", n)
		}
	}, func(m *machineNet) { m.deaf = syscall.EAFNOSUPPORT })
}

// TestWatchIsIdle: notices of what does not matter, and many of them, do not list the
// interfaces all the time.
func TestWatchIsIdle(t *testing.T) {
	onMachine(t, func(m *machineNet, _ *logged, told func() []string) {
		listed := m.listed
		for i := range 1000 {
			m.change(func() {
				m.ifs = []hardware{loopbackHardware, lanHardware, {fmt.Sprintf("veth%d", i), isUp, []string{"fe80::9/64"}}}
			})
			time.Sleep(10 * time.Millisecond)
		}
		expectTold(t, "for cables of containers", told())
		if n := m.listed - listed; n > int(10*time.Second/networkPause) {
			t.Errorf("the interfaces were listed %d times in ten seconds", n)
		}
	})
}

// TestWatchFollows: the route comes after its address, and nothing tells of it.
func TestWatchFollows(t *testing.T) {
	onMachine(t, func(m *machineNet, _ *logged, told func() []string) {
		m.change(func() { m.ifs = append(m.ifs, lanHardware) })
		time.Sleep(networkPause)
		expectTold(t, "the address", told(), "200ms +[10.0.0.2] -[127.0.0.1 ::1]")
		m.quietly(func() { m.route = []netip.Addr{netip.MustParseAddr("10.0.0.2")} })
		time.Sleep(networkFollows)
		expectTold(t, "the route", told(), "1.2s +[] -[]")
	}, func(m *machineNet) { m.ifs = m.ifs[:1] })
}

// TestContainersComeAndGo: what a machine full of containers does to its interfaces
// makes no session, on a direct path and on a relay, and hides nothing: the address in
// use goes, and the next session is made at once.
func TestContainersComeAndGo(t *testing.T) {
	inWorld(t, virtual.Config{RTT: 50 * time.Millisecond, STUN: true}, func(w *world) {
		var m *machineNet
		containers := func(c *Config) {
			m = newMachineNet(loopbackHardware)
			m.Net, m.own = c.Net, true
			ifs, err := m.Interfaces()
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range mustUsable(ifs) {
				m.route = []netip.Addr{l.addr}
			}
			c.Net = m
		}
		a, b := w.agent("agent-a", virtual.Open, containers), w.agent("agent-b", virtual.Open)
		p, q := w.pair(a, b)
		changes := changesOf(p)
		<-changes // it is connected
		for i := range 29 {
			m.change(func() {
				m.ifs = []hardware{loopbackHardware, {fmt.Sprintf("veth%d", i), isUp, []string{"fe80::9/64"}},
					{fmt.Sprintf("br-%d", i), isUp, []string{fmt.Sprintf("172.%d.0.1/16", 18+i)}}}
			})
			time.Sleep(3 * time.Second)
			m.change(func() { m.ifs = []hardware{loopbackHardware} })
			time.Sleep(3 * time.Second)
		}
		synctest.Wait()
		if n := len(changes); n > 0 {
			t.Errorf("containers that come and go made %d changes, the first %+v", n, <-changes)
		}
		w.say(p, q, "undisturbed")

		moved := time.Now()
		m.change(func() {
			m.own, m.ifs = false, []hardware{loopbackHardware, {"wlan0", isUp, []string{"192.168.1.5/24"}}}
		})
		c := <-changes
		if took := time.Since(moved); c.Reason != ReasonNetwork || took > networkPause {
			t.Errorf("the address in use is gone: %v for %v after %v", c.State, c.Reason, took)
		}
		m.change(func() { m.own = true })
	})
}

// TestNewAddressDuringAttempt: an address comes after the one in use has gone, when the
// attempt is under way that began without it. Others come first, and the machine has no
// default route.
func TestNewAddressDuringAttempt(t *testing.T) {
	for _, name := range []string{"agent-a", "agent-z"} {
		for _, before := range [][]hardware{nil, {{"wlan0", isUp, []string{"fe80::9/64"}}}, {{"br-1", isUp, []string{"172.18.0.1/16"}}}} {
			inWorld(t, virtual.Config{RTT: 50 * time.Millisecond}, func(w *world) {
				var m *machineNet
				moves := func(c *Config) {
					m = newMachineNet(loopbackHardware)
					m.Net, m.own = c.Net, true
					c.Net = m
				}
				a, b := w.agent(name, virtual.Open, moves), w.agent("agent-b", virtual.Open)
				p, _ := w.pair(a, b)
				changes := changesOf(p)
				<-changes // it is connected
				m.change(func() { m.own, m.ifs = false, []hardware{loopbackHardware} })
				time.Sleep(300 * time.Millisecond)
				m.change(func() { m.ifs = append(m.ifs, before...) })
				time.Sleep(300 * time.Millisecond)
				m.change(func() { m.own = true })
				came := time.Now()
				for over := time.After(time.Minute); ; {
					select {
					case c := <-changes:
						if c.State != StateConnected || c.Reason != ReasonNetwork {
							continue
						}
					case <-over:
					}
					break
				}
				if took := time.Since(came); took > time.Second {
					t.Errorf("%s, after %v: a session %v after the address came", name, before, took)
				}
			})
		}
	}
}

func mustUsable(ifs []*transport.Interface) []located {
	list, _ := usableAddresses(ifs)
	return list
}

// changesOf collects a Peer's changes until it is closed.
func changesOf(p *Peer) chan Change {
	changes := make(chan Change, 1000)
	go func() {
		for c := range p.Changes(context.Background()) {
			changes <- c
		}
	}()
	return changes
}

// TestNetworkChangedFails: an error of the application's watch is no end of it.
func TestNetworkChangedFails(t *testing.T) {
	var errs chan error
	inHub(t, func(t *testing.T, _ *hub, a, b *Node) {
		p, q := meet(t, a, b)
		changes := changesOf(p)
		<-changes
		for range 5 {
			errs <- errShort
		}
		began := time.Now()
		errs <- nil
		if c := <-changes; c.Reason != ReasonNetwork {
			t.Errorf("a change after errors: %v for %v", c.State, c.Reason)
		}
		if took := time.Since(began); took > 32*networkRetry {
			t.Errorf("after %v", took)
		}
		time.Sleep(networkPauseMost)
		tell(t, p, "all the same")
		hear(t, q, "all the same")
	}, func(c *Config) {
		if c.Identity.ID() == "agent-a" {
			errs = make(chan error)
			c.NetworkChanged = func(ctx context.Context) error {
				select {
				case err := <-errs:
					return err
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			}
		}
	})
}
