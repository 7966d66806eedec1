package turn

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

// TestRenewalDue: how long before its end a credential is renewed.
func TestRenewalDue(t *testing.T) {
	now := instant{time.Unix(1000, 0), time.Unix(5000, 0)}
	for life, ahead := range map[time.Duration]time.Duration{
		24 * time.Hour:    288 * time.Minute,
		10 * time.Minute:  2 * time.Minute,
		5 * time.Minute:   time.Minute,
		3 * time.Minute:   time.Minute,
		100 * time.Second: 50 * time.Second,
		10 * time.Second:  5 * time.Second,
	} {
		for _, spread := range []float64{-1, 0, 1} {
			var r renewal
			r.got(now, Credential{Username: "u", Password: "p", Expires: now.wall.Add(life)}, spread)
			least, most := ahead, ahead
			if spread > 0 {
				most = 2 * ahead
			}
			for clock, got := range map[string]time.Duration{"monotonic": now.mono.Add(life).Sub(r.due), "wall": now.wall.Add(life).Sub(r.dueWall)} {
				if got < least || got > most || got > life {
					t.Errorf("a life of %v, spread %v, %s clock: %v ahead, want %v", life, spread, clock, got, ahead)
				}
			}
		}
	}
	var r renewal
	r.due = now.mono
	if r.got(now, Credential{Username: "u", Password: "p"}, 0); !r.due.IsZero() || !r.dueWall.IsZero() {
		t.Errorf("one that never ends is due at %v", r.due)
	}
}

// TestRenewalSteps: failures and refusals back off, each by itself.
func TestRenewalSteps(t *testing.T) {
	now := instant{time.Unix(1000, 0), time.Unix(5000, 0)}
	first := Credential{Username: "u", Password: "p"}
	var r renewal
	if r.usable(now) || r.asked {
		t.Error("usable before there is one")
	}
	for _, want := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		if r.failed(now, 0); r.due.Sub(now.mono) != want*time.Second || !r.asked {
			t.Errorf("failed: due after %v, want %d s", r.due.Sub(now.mono), want)
		}
	}
	if !r.got(now, first, 0) || !r.usable(now) || r.version != 1 {
		t.Errorf("%+v", r)
	}
	for _, want := range []time.Duration{1, 2, 4} {
		r.due = time.Time{} // or it would remain the earlier one
		r.refused(now, 0)
		if r.due.Sub(now.mono) != want*time.Second {
			t.Errorf("refused: due after %v, want %d s", r.due.Sub(now.mono), want)
		}
		if r.got(now, first, 0) || r.version != 1 || r.due.Sub(now.mono) != want*time.Second {
			t.Errorf("the same again: %+v", r)
		}
	}
	r.accepted()
	if r.got(now, first, 0); !r.due.IsZero() {
		t.Errorf("after success: due after %v", r.due.Sub(now.mono))
	}
	if r.refused(now, 0); r.due.Sub(now.mono) != time.Second {
		t.Errorf("after success: due after %v", r.due.Sub(now.mono))
	}
	if r.failed(now, 0); r.due.Sub(now.mono) != time.Second {
		t.Errorf("the first failure: due after %v", r.due.Sub(now.mono))
	}
}

// TestRenewalClocks: whichever clock says first that a credential ends, or is to be
// renewed, is right.
func TestRenewalClocks(t *testing.T) {
	start := instant{time.Unix(1000, 0), time.Unix(5000, 0)}
	for _, c := range []struct {
		name       string
		mono, wall time.Duration // that pass
		due, ended bool
	}{
		{"at first", 0, 0, false, false},
		{"before it is due", 47 * time.Minute, 47 * time.Minute, false, false},
		{"due", 48 * time.Minute, 48 * time.Minute, true, false},
		{"over", time.Hour, time.Hour, true, true},
		{"slept until it is due", time.Minute, 48 * time.Minute, true, false},
		{"slept past its end", time.Minute, 8 * time.Hour, true, true},
		{"set back, and due", 48 * time.Minute, -8 * time.Hour, true, false},
		{"set back, and over", time.Hour, -8 * time.Hour, true, true},
		{"set back, and early", time.Minute, -8 * time.Hour, false, false},
	} {
		var r renewal
		r.got(start, Credential{Username: "u", Password: "p", Expires: start.wall.Add(time.Hour)}, 0)
		now := instant{start.mono.Add(c.mono), start.wall.Add(c.wall)}
		due, in := r.isDue(now)
		if left := r.left(now); due != c.due || (in == 0) != due || r.usable(now) == c.ended || (left == 0) != c.ended {
			t.Errorf("%s: due %v in %v, usable %v for %v", c.name, due, in, r.usable(now), left)
		}
	}
	r := renewal{version: 1}
	if due, in := r.isDue(start); due || in >= 0 || r.left(start) >= 0 {
		t.Errorf("one that never ends: due %v in %v, %v left", due, in, r.left(start))
	}
}

// source makes credentials as a service would.
type source struct {
	mu      sync.Mutex
	life    time.Duration
	fail    bool
	asked   int
	serving int // calls at a time
	most    int
	slow    time.Duration
	last    time.Time // one was handed out
}

// fetch is a Credentials.
//
// bubble: it sleeps.
func (s *source) fetch(ctx context.Context) (Credential, error) {
	s.mu.Lock()
	s.asked++
	s.serving++
	s.most = max(s.most, s.serving)
	slow, fail, life := s.slow, s.fail, s.life
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.serving--
		s.mu.Unlock()
	}()
	select {
	case <-time.After(slow):
	case <-ctx.Done():
		return Credential{}, context.Cause(ctx)
	}
	if fail {
		return Credential{}, errors.New("the service is down")
	}
	s.set(func(s *source) { s.last = time.Now() })
	return Credential{Username: testUser, Password: testPassword, Expires: time.Now().Add(life)}, nil
}

func (s *source) set(f func(*source)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

// TestPoolRenewsInTime: the credential in use never ends while its service works,
// and while that fails it serves to its end.
func TestPoolRenewsInTime(t *testing.T) {
	inWorld(t, []time.Duration{0, 20 * time.Millisecond}, func(t *testing.T, w *world) {
		s := &source{life: 10 * time.Minute, slow: 3 * time.Second}
		e := w.endpoint(0)
		e.Credentials = s.fetch
		w.open(e, w.endpoint(1))
		w.want("before the first credential", 1)
		w.sleep(5 * time.Second)
		w.want("with it", 0, 1)
		w.took()
		for range 600 {
			w.sleep(10 * time.Second)
			if r := w.pool.Rank(t.Context())[0]; r.Expires.IsZero() || time.Until(r.Expires) < 50*time.Second {
				t.Fatalf("%v left", time.Until(r.Expires))
			}
		}
		w.wantEvents()
		s.set(func(s *source) {
			if s.asked < 12 || s.asked > 20 || s.most != 1 {
				t.Errorf("asked %d times in 100 minutes, %d at a time", s.asked, s.most)
			}
			s.fail, s.slow, s.asked = true, time.Hour, 0
		})
		w.sleep(4 * time.Second) // one may have been under way
		end := w.pool.Rank(t.Context())[0].Expires
		w.sleep(time.Until(end) - time.Second)
		w.want("a second before the end", 0, 1)
		w.sleep(time.Second)
		w.want("at the end", 1)
		if st := w.pool.Status()[0]; !errors.Is(st.Err, ErrExpired) || st.Health != Unhealthy {
			t.Errorf("%+v", st)
		}
		w.wantEvents("turn_server_marked_unhealthy 0", "turn_server_failover 0 1")
		w.sleep(10 * time.Minute)
		w.want("long after", 1)
		w.wantEvents() // each failure is no news
		s.set(func(s *source) {
			if s.asked > 60 {
				t.Errorf("asked %d times while it hangs", s.asked)
			}
			s.fail, s.slow = false, 0
		})
		t.Logf("back after %v", w.until(45*time.Second, 0, 1))
		w.wantEvents("turn_server_health_check_success 0")
		s.set(func(s *source) {
			if took := w.pool.Status()[0].Since.Sub(s.last); took > 300*time.Millisecond {
				t.Errorf("healthy %v after it had a credential again", took)
			}
		})
	})
}

// TestPoolWaitsForTheFirstCredential: Rank blocks for it and for nothing else.
func TestPoolWaitsForTheFirstCredential(t *testing.T) {
	inWorld(t, []time.Duration{0}, func(t *testing.T, w *world) {
		s := &source{life: time.Hour, slow: 700 * time.Millisecond}
		e := w.endpoint(0)
		e.Credentials = s.fetch
		w.open(e)
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if r := w.pool.Rank(ctx); r != nil || time.Since(began) != 100*time.Millisecond {
			t.Errorf("%v after %v", r, time.Since(began))
		}
		if w.want("in time", 0); time.Since(began) != 700*time.Millisecond {
			t.Errorf("after %v", time.Since(began))
		}
	})
	inWorld(t, []time.Duration{0}, func(t *testing.T, w *world) {
		s := &source{fail: true, slow: time.Second}
		e := w.endpoint(0)
		e.Credentials = s.fetch
		w.open(e)
		w.want("without any")
		if st := w.pool.Status()[0]; !errors.Is(st.Err, ErrNoCredential) || st.Health != Unhealthy {
			t.Errorf("%+v", st)
		}
		w.wantEvents("turn_server_marked_unhealthy 0", "all_turn_servers_unhealthy")
	})
}

// TestPoolSharedSecret: a server that checks the time takes what the Pool renews.
func TestPoolSharedSecret(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world) {
		url, n := w.server(restServer)
		w.open(Endpoint{URL: url, Credentials: SharedSecret("north", "alice", 2*time.Minute)})
		w.ready(-1)
		w.sleep(time.Hour)
		w.want("an hour later", -1)
		w.wantEvents()
		if alive := n.alive.Load(); alive != 0 {
			t.Errorf("%d allocations left", alive)
		}
	})
	inWorld(t, nil, func(t *testing.T, w *world) { // another clock: the server says 401 to what is good here
		url, _ := w.server(restServer)
		c := Static(fmt.Sprint(time.Now().Add(-time.Minute).Unix(), ":alice"), "x")
		w.open(Endpoint{URL: url, Credentials: c})
		w.sleep(time.Second)
		if st := w.pool.Status()[0]; !errors.Is(st.Err, ErrExpired) {
			t.Errorf("%+v", st)
		}
	})
}

// TestPoolEndWhileProbing: a credential that ends while a probe with it passes, or
// in that very moment, makes no endpoint healthy.
func TestPoolEndWhileProbing(t *testing.T) {
	for i := range 40 {
		inWorld(t, []time.Duration{0}, func(t *testing.T, w *world) {
			life := 275*time.Millisecond + time.Duration(i/4-5)*time.Millisecond // a probe takes 275 ms
			s := &source{life: life}
			e := w.endpoint(0)
			e.Credentials = s.fetch
			w.open(e)
			w.sleep(time.Millisecond)
			s.set(func(s *source) { s.fail = true })
			w.sleep(time.Second)
			if st := w.pool.Status()[0]; st.Health != Unhealthy || w.pool.Rank(t.Context()) != nil {
				t.Errorf("a life of %v: %+v", life, st)
			}
		})
	}
}
