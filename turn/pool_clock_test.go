package turn

import (
	"context"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/transport/v5"

	"github.com/infrafabric/agentmesh/internal/wallclock"
	"github.com/infrafabric/agentmesh/witness"
)

// service makes credentials by a clock of its own, which need not be that of the Pool.
type service struct {
	clock *wallclock.Clock
	life  time.Duration
	asked atomic.Int64
	down  atomic.Bool
}

func (s *service) fetch(context.Context) (Credential, error) {
	s.asked.Add(1)
	if s.down.Load() {
		return Credential{}, errors.New("the service is down")
	}
	return Credential{Username: testUser, Password: testPassword, Expires: s.clock.Now().Add(s.life)}, nil
}

// openTimed starts a Pool that goes by a clock.
func (w *world) openTimed(s *service, clock *wallclock.Clock) {
	w.t.Helper()
	p, err := NewPool(PoolConfig{Net: w.me, Time: clock.Now, AgentID: "agent", Recorder: w.recorder(),
		Endpoints: []Endpoint{{URL: w.relays[0].URL(), Credentials: s.fetch}}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.pool = p
}

// TestPoolSlept: a machine that slept past its credential has a new one at once, and
// knows anew which relays work.
func TestPoolSlept(t *testing.T) {
	var clock wallclock.Clock
	s := &service{clock: &clock, life: time.Hour}
	inWorld(t, []time.Duration{0}, func(t *testing.T, w *world) {
		w.openTimed(s, &clock)
		w.sleep(5 * time.Second)
		w.want("before", 0)
		w.took()
		for range 3 {
			asked := s.asked.Load()
			clock.Step(8 * time.Hour)
			w.sleep(1100 * time.Millisecond)
			r := w.pool.Rank(t.Context())
			if len(r) != 1 || r[0].Down || r[0].Expires.Sub(clock.Now()) < 59*time.Minute || s.asked.Load() != asked+1 {
				t.Errorf("a second after waking: %+v; asked %d times", r, s.asked.Load()-asked)
			}
			w.sleep(time.Minute)
			if st := w.pool.Status()[0]; st.Health != Healthy {
				t.Errorf("%+v", st)
			}
		}
		w.wantEvents()     // it was never unhealthy
		w.relays[0].Kill() // while it sleeps
		clock.Step(5 * time.Minute)
		w.sleep(8 * time.Second)
		if st := w.pool.Status()[0]; st.Health != Unhealthy {
			t.Errorf("%+v", st)
		}
	})
}

// TestPoolSleptWhileAsking: what could not be had before is asked for again at once.
func TestPoolSleptWhileAsking(t *testing.T) {
	var clock wallclock.Clock
	s := &service{clock: &clock, life: time.Hour}
	s.down.Store(true)
	inWorld(t, []time.Duration{0}, func(t *testing.T, w *world) {
		w.openTimed(s, &clock)
		w.sleep(10 * time.Minute) // half a minute between two attempts
		s.down.Store(false)
		clock.Step(time.Hour)
		w.sleep(1100 * time.Millisecond)
		w.want("a second after waking", 0)
	})
}

// TestPoolClockSetBack: a credential ends after the time that it had, and is renewed
// before, whatever the clock says.
func TestPoolClockSetBack(t *testing.T) {
	var clock, right wallclock.Clock
	s := &service{clock: &right, life: time.Hour}
	inWorld(t, []time.Duration{0}, func(t *testing.T, w *world) {
		w.openTimed(s, &clock)
		w.sleep(time.Minute)
		clock.Step(-24 * time.Hour)
		right.Step(-24 * time.Hour) // by which the service goes as well
		for range 10 {
			w.sleep(time.Hour)
			w.want("set back", 0)
		}
		if n := s.asked.Load(); n < 10 || n > 20 {
			t.Errorf("asked %d times in ten hours", n)
		}
		s.down.Store(true)
		clock.Step(-24 * time.Hour)
		w.sleep(61 * time.Minute)
		w.want("after its life")
		if st := w.pool.Status()[0]; st.Health != Unhealthy {
			t.Errorf("%+v", st)
		}
		s.down.Store(false)
		w.sleep(37 * time.Second)
		w.want("renewed", 0)
	})
}

// TestPoolClockAhead: while the clock is an hour ahead, credentials seem to have
// ended, and the error says by which clock; when it is set right, all is well at once.
func TestPoolClockAhead(t *testing.T) {
	var clock, right wallclock.Clock
	clock.Step(time.Hour)
	s := &service{clock: &right, life: 30 * time.Minute}
	inWorld(t, []time.Duration{0}, func(t *testing.T, w *world) {
		w.openTimed(s, &clock)
		w.sleep(20 * time.Minute)
		if st := w.pool.Status()[0]; !errors.Is(st.Err, ErrExpired) || st.Health != Unhealthy {
			t.Errorf("%+v", st)
		}
		clock.Step(-time.Hour)
		w.sleep(1100 * time.Millisecond)
		w.want("a second after it was set right", 0)
	})
}

// TestPoolShortage: that this machine has no descriptors says nothing about relays,
// and the probes go on when it has.
func TestPoolShortage(t *testing.T) {
	for _, first := range []bool{true, false} {
		inWorld(t, []time.Duration{0}, func(t *testing.T, w *world) {
			n := &short{Net: w.me}
			n.out.Store(first)
			p, err := NewPool(PoolConfig{Net: n, Endpoints: []Endpoint{w.endpoint(0)}})
			if err != nil {
				t.Fatal(err)
			}
			w.pool = p
			w.sleep(5 * time.Second)
			n.out.Store(true)
			w.sleep(5 * time.Minute)
			w.doubt(0)
			w.sleep(10 * time.Second)
			want := Healthy
			if first {
				want = Unprobed
			}
			if st := p.Status()[0]; st.Health != want || !errors.Is(st.Err, syscall.EMFILE) {
				t.Errorf("%+v", st)
			}
			if dialled := n.dialled.Load(); dialled > 330 {
				t.Errorf("tried %d times in 5 min", dialled)
			}
			n.out.Store(false)
			w.sleep(1500 * time.Millisecond)
			if st := p.Status()[0]; st.Health != Healthy || st.Err != nil {
				t.Errorf("%+v", st)
			}
		})
	}
}

// short is a network that runs out of descriptors.
type short struct {
	transport.Net
	out     atomic.Bool
	dialled atomic.Int64
}

func (s *short) CreateDialer(d *net.Dialer) transport.Dialer {
	s.dialled.Add(1)
	if s.out.Load() {
		return s
	}
	return s.Net.CreateDialer(d)
}

func (s *short) Dial(network, _ string) (net.Conn, error) {
	return nil, &net.OpError{Op: "dial", Net: network, Err: os.NewSyscallError("socket", syscall.EMFILE)}
}

// TestPoolSlowRecorder: one that blocks holds up nothing but itself.
func TestPoolSlowRecorder(t *testing.T) {
	inWorld(t, []time.Duration{0, 0}, func(t *testing.T, w *world) {
		open := make(chan struct{})
		var told atomic.Int64
		p, err := NewPool(PoolConfig{Net: w.me, Endpoints: []Endpoint{w.endpoint(0), w.endpoint(1)},
			Recorder: witness.RecorderFunc(func(context.Context, witness.Event) {
				<-open
				told.Add(1)
			})})
		if err != nil {
			t.Fatal(err)
		}
		w.pool = p
		w.sleep(5 * time.Second)
		for range maxEvents { // two events each, and a third that all are down
			w.relays[0].Kill()
			w.doubt(0)
			w.until(2*time.Second, 1)
			if err := w.relays[0].Start(); err != nil {
				t.Fatal(err)
			}
			w.sleep(5 * time.Second)
		}
		if err := p.Remove(w.relays[0].URL()); err != nil {
			t.Error(err)
		}
		close(open)
		w.sleep(time.Second)
		if n := told.Load(); n != maxEvents+1 {
			t.Errorf("%d events came through", n)
		}
	})
}

// TestServerTime: the server goes by the clock it is given.
func TestServerTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var clock wallclock.Clock
		w := newServerWorld(t, func(c *ServerConfig) { c.Secrets, c.Time = []string{testSecret}, clock.Now })
		name, password := rest(t, testSecret, "alice", time.Hour)
		callOn(t, w.socket(), w.server.addr(), name, password).mustAllocate()
		clock.Step(2 * time.Hour)
		if _, code := callOn(t, w.socket(), w.server.addr(), name, password).allocate(); code != 401 {
			t.Errorf("after its end: %d", code)
		}
		clock.Step(-2 * time.Hour)
		callOn(t, w.socket(), w.server.addr(), name, password).mustAllocate()
	})
}
