package turn

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/turn/v5"

	"github.com/infrafabric/agentmesh/internal/virtual"
)

// TestPoolRanks: as configured until probed, then by latency.
func TestPoolRanks(t *testing.T) {
	inWorld(t, []time.Duration{40 * time.Millisecond, 0, 20 * time.Millisecond}, func(t *testing.T, w *world) {
		w.open()
		w.want("at first", 0, 1, 2)
		w.sleep(time.Second)
		w.want("probed", 1, 2, 0)
		w.sleep(10 * time.Second) // no probe is under way
		w.want("later", 1, 2, 0)
		w.wantEvents("turn_server_health_check_success 1", "turn_server_health_check_success 2", "turn_server_health_check_success 0")
		s := w.pool.Status()[2]
		if s.Health != Healthy || s.Latency != 115*time.Millisecond || s.Error != "" || s.NextProbe.IsZero() {
			t.Errorf("%+v", s)
		}
	})
}

// TestPoolDoubt: a dead or hanging relay is known within 1.5 s of a doubt, and
// without one after three probes.
func TestPoolDoubt(t *testing.T) {
	for name, fault := range map[string]func(*virtual.Relay){"killed": (*virtual.Relay).Kill, "hanging": (*virtual.Relay).Hang} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, []time.Duration{0, 20 * time.Millisecond}, func(t *testing.T, w *world) {
				w.open()
				w.ready(0, 1)
				w.sleep(7 * time.Second)
				w.took()
				fault(w.relays[0])
				w.doubt(0)
				if took := w.until(1500*time.Millisecond, 1); took < time.Second {
					t.Errorf("gave up on it after %v", took)
				} else {
					t.Logf("known after %v", took)
				}
				if w.pool.Status()[0].Health != Unhealthy || !errors.Is(w.pool.Status()[0].Err, ErrUnreachable) {
					t.Errorf("%+v", w.pool.Status()[0])
				}
				w.wantEvents("turn_server_marked_unhealthy 0", "turn_server_failover 0 1")
			})
		})
	}
	t.Run("without", func(t *testing.T) {
		inWorld(t, []time.Duration{0, 20 * time.Millisecond}, func(t *testing.T, w *world) {
			w.open()
			w.ready(0, 1)
			w.relays[0].Kill()
			t.Logf("known after %v", w.until(45*time.Second, 1))
		})
	})
	t.Run("while a probe is under way", func(t *testing.T) {
		inWorld(t, []time.Duration{0, 20 * time.Millisecond}, func(t *testing.T, w *world) {
			w.open()
			w.ready(0, 1)
			w.relays[0].Hang()
			w.sleep(time.Until(w.pool.Status()[0].NextProbe) + 10*time.Millisecond)
			w.doubt(0)
			t.Logf("known after %v", w.until(1500*time.Millisecond, 1))
		})
	})
	t.Run("unfounded", func(t *testing.T) {
		inWorld(t, []time.Duration{0, 20 * time.Millisecond}, func(t *testing.T, w *world) {
			w.open()
			w.ready(0, 1)
			for range 600 {
				w.doubt(0)
				w.pool.Doubt(Relay{URL: "turn:nobody.invalid"})
				w.pool.Doubt(Relay{URL: "no URL"})
				w.sleep(10 * time.Millisecond)
			}
			w.want("after many doubts", 0, 1)
			w.wantEvents()
			url, n := w.server(nil)
			if err := w.pool.Add(Endpoint{URL: url, Credentials: Static(testUser, testPassword)}); err != nil {
				t.Fatal(err)
			}
			w.sleep(time.Second)
			for range 600 {
				w.pool.Doubt(Relay{URL: url})
				w.sleep(10 * time.Millisecond)
			}
			if made := n.made.Load(); made < 6 || made > 8 {
				t.Errorf("%d probes in 7 s of doubts", made)
			}
		})
	})
}

// TestPoolBackoff: when a relay of several is back it is used again after at most
// half a minute, and after a short death soon.
func TestPoolBackoff(t *testing.T) {
	inWorld(t, []time.Duration{0, 20 * time.Millisecond}, func(t *testing.T, w *world) {
		w.open()
		w.ready(0, 1)
		for _, dead := range []time.Duration{3 * time.Second, 10 * time.Minute} {
			w.relays[0].Kill()
			w.doubt(0)
			w.until(2*time.Second, 1)
			w.sleep(dead)
			w.want("while it is dead", 1)
			if err := w.relays[0].Start(); err != nil {
				t.Fatal(err)
			}
			w.took()
			t.Logf("after %v: back after %v", dead, w.until(40*time.Second, 0, 1))
			w.wantEvents("turn_server_health_check_success 0")
		}
	})
}

// TestPoolAllDead: all are tried on, and the first that returns is known within
// 1.2 s.
func TestPoolAllDead(t *testing.T) {
	var most time.Duration
	for i := range 20 {
		inWorld(t, []time.Duration{0, 0, 0}, func(t *testing.T, w *world) {
			w.open()
			w.sleep(time.Second)
			w.took()
			for i, r := range w.relays {
				r.Kill()
				w.doubt(i)
				w.sleep(100 * time.Millisecond)
			}
			w.sleep(1500 * time.Millisecond)
			w.want("all dead: the last one first", 2, 1, 0)
			got := w.took()
			if n := len(got); n < 4 || got[n-1] != "all_turn_servers_unhealthy" {
				t.Errorf("events %v", got)
			}
			w.sleep(5*time.Minute + time.Duration(i)*77*time.Millisecond)
			w.want("later", 2, 1, 0)
			if err := w.relays[1].Start(); err != nil {
				t.Fatal(err)
			}
			took := w.until(1200*time.Millisecond, 1)
			most = max(most, took)
			w.wantEvents("turn_server_health_check_success 1", "turn_server_failover 2 1")
			w.relays[1].Kill()
			w.doubt(1)
			w.sleep(1500 * time.Millisecond)
			w.wantEvents("turn_server_marked_unhealthy 1", "all_turn_servers_unhealthy")
		})
	}
	t.Logf("known after %v at most", most)
}

// TestPoolDeadFromTheBeginning: one that never answered is not waited for.
func TestPoolDeadFromTheBeginning(t *testing.T) {
	inWorld(t, []time.Duration{0, 20 * time.Millisecond}, func(t *testing.T, w *world) {
		w.relays[0].Kill()
		w.open()
		w.want("at first", 0, 1)
		w.until(time.Second, 1, 0) // judged, and not yet judged
		w.until(3*time.Second, 1)
		w.took()
		if err := w.relays[0].Start(); err != nil {
			t.Fatal(err)
		}
		w.until(10*time.Second, 0, 1)
	})
}

// TestPoolLoss: a fifth of all datagrams lost changes neither the health nor, with
// doubts all the time, the order.
func TestPoolLoss(t *testing.T) {
	for seed := range int64(8) { // the odd ones with doubts
		inWorld(t, []time.Duration{0, 20 * time.Millisecond}, func(t *testing.T, w *world) {
			w.open()
			w.ready(0, 1)
			for _, r := range w.relays {
				if err := r.Host().SetLoss(20, seed); err != nil {
					t.Fatal(err)
				}
			}
			for i := range 30 * 60 {
				if seed%2 == 1 && i%10 == 0 {
					w.doubt(i / 10 % 2)
				}
				w.sleep(time.Second)
			}
			w.want(fmt.Sprintf("seed %d", seed), 0, 1)
			w.wantEvents()
		})
	}
}

// TestPoolOvertaking: a relay overtakes another when it is clearly faster, once.
func TestPoolOvertaking(t *testing.T) {
	inWorld(t, []time.Duration{0, 5 * time.Millisecond}, func(t *testing.T, w *world) {
		w.open()
		w.ready(0, 1)
		w.relays[0].Host().SetDelay(10 * time.Millisecond) // 95 and 85 ms
		w.sleep(10 * time.Minute)
		w.want("slightly slower", 0, 1)
		w.relays[0].Host().SetDelay(25 * time.Millisecond) // 125 and 85 ms
		took := w.until(4*time.Minute, 1, 0)
		if took < 24*time.Second {
			t.Errorf("one slow probe is believed, after %v", took)
		}
		t.Logf("clearly slower: known after %v", took)
		w.relays[0].Host().SetDelay(5 * time.Millisecond)
		w.sleep(10 * time.Minute)
		w.want("as fast again", 1, 0)
	})
}

// TestPoolSlowServer: a relay far away is no dead one.
func TestPoolSlowServer(t *testing.T) {
	inWorld(t, []time.Duration{300 * time.Millisecond, 0}, func(t *testing.T, w *world) {
		w.open()
		w.ready(1, 0)
		for range 60 {
			w.doubt(0)
			w.sleep(5 * time.Second)
		}
		w.want("in doubt", 1, 0)
		if s := w.pool.Status()[0]; s.Latency != 675*time.Millisecond {
			t.Errorf("latency %v: a late echo is taken for that of a later datagram", s.Latency)
		}
	})
}

// TestPoolAddRemove: at run time.
func TestPoolAddRemove(t *testing.T) {
	inWorld(t, []time.Duration{20 * time.Millisecond, 0}, func(t *testing.T, w *world) {
		w.open([]Endpoint{w.endpoint(0)}...)
		w.ready(0)
		changed := w.pool.Changed()
		if err := w.pool.Add(w.endpoint(1)); err != nil {
			t.Fatal(err)
		}
		w.ready(1, 0)
		select {
		case <-changed:
		default:
			t.Error("Changed was silent")
		}
		if err := w.pool.Add(Endpoint{URL: strings.TrimSuffix(w.relays[1].URL(), "?transport=udp"), Credentials: Static("u", "p")}); !errors.Is(err, ErrDuplicate) {
			t.Errorf("the same in other words: %v", err)
		}
		w.took()
		if err := w.pool.Remove(w.relays[1].URL()); err != nil {
			t.Fatal(err)
		}
		w.want("without the other", 0)
		w.wantEvents() // no failover: nothing failed
		for _, url := range []string{w.relays[1].URL(), "nonsense"} {
			if err := w.pool.Remove(url); !errors.Is(err, ErrUnknown) {
				t.Errorf("Remove(%q): %v", url, err)
			}
		}
		var ce *ConfigError
		if err := w.pool.Add(Endpoint{URL: "turn:r.example"}); !errors.As(err, &ce) || ce.Field != "Endpoint.Credentials" {
			t.Errorf("without credentials: %v", err)
		}
		if err := w.pool.Add(Endpoint{URL: "http:r.example"}); !errors.As(err, &ce) || ce.Field != "Endpoint.URL" {
			t.Errorf("not a TURN URL: %v", err)
		}
		for i := 1; ; i++ {
			err := w.pool.Add(Endpoint{URL: fmt.Sprintf("turn:1.2.3.4:%d", i), Credentials: Static("u", "p")})
			if err != nil {
				if !errors.Is(err, ErrTooMany) || i != MaxEndpoints {
					t.Errorf("number %d: %v", i+1, err)
				}
				break
			}
		}
	})
}

// TestPoolClose: everything ends, and what is called later says so.
func TestPoolClose(t *testing.T) {
	inWorld(t, []time.Duration{0, 0}, func(t *testing.T, w *world) {
		w.relays[1].Hang()
		w.open()
		w.sleep(300 * time.Millisecond)
		changed := w.pool.Changed()
		w.close()
		w.close()
		<-changed
		if w.pool.Changed() != nil {
			t.Error("Changed promises something after Close")
		}
		w.want("after Close")
		w.doubt(0)
		for _, err := range []error{w.pool.Add(w.endpoint(0)), w.pool.Remove(w.relays[0].URL()), w.pool.Remove("nonsense")} {
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("after Close: %v", err)
			}
		}
		if len(w.pool.Status()) != 2 {
			t.Error("the last Status is lost")
		}
	})
}

// TestPoolQuota: a server without room for another allocation is not used, until it
// has some.
func TestPoolQuota(t *testing.T) {
	inWorld(t, []time.Duration{20 * time.Millisecond}, func(t *testing.T, w *world) {
		var mu sync.Mutex
		full := false
		url, n := w.server(func(c *turn.ServerConfig) {
			c.QuotaHandler = func(string, string, net.Addr) bool {
				mu.Lock()
				defer mu.Unlock()
				return !full
			}
		})
		set := func(yes bool) {
			mu.Lock()
			defer mu.Unlock()
			full = yes
		}
		w.open(Endpoint{URL: url, Credentials: Static(testUser, testPassword)}, w.endpoint(0))
		w.ready(-1, 0)
		set(true)
		w.pool.Doubt(Relay{URL: url})
		w.sleep(500 * time.Millisecond)
		w.want("in doubt, but alive", -1, 0)
		w.until(5*time.Second, 0)
		if s := w.pool.Status()[0]; !errors.Is(s.Err, ErrQuota) || s.Failures < 3 {
			t.Errorf("%+v", s)
		}
		set(false)
		w.until(40*time.Second, -1, 0)
		w.sleep(time.Hour)
		if made, alive := n.made.Load(), n.alive.Load(); alive != 0 || made < 100 || made > 160 {
			t.Errorf("%d allocations made in an hour, %d left", made, alive)
		}
	})
}

// TestPoolWrongCredentials: they are known at the first probe, and better ones at
// once.
func TestPoolWrongCredentials(t *testing.T) {
	inWorld(t, []time.Duration{0, 20 * time.Millisecond}, func(t *testing.T, w *world) {
		var mu sync.Mutex
		password, asked := "old", 0
		e := w.endpoint(0)
		e.Credentials = func(context.Context) (Credential, error) {
			mu.Lock()
			defer mu.Unlock()
			asked++
			return Credential{Username: testUser, Password: password}, nil
		}
		w.open(e, w.endpoint(1))
		w.ready(1)
		if s := w.pool.Status()[0]; s.Health != Unhealthy || !errors.Is(s.Err, ErrCredentials) {
			t.Errorf("%+v", s)
		}
		w.sleep(10 * time.Minute)
		mu.Lock()
		if asked < 15 || asked > 50 {
			t.Errorf("asked %d times in ten minutes", asked)
		}
		password = testPassword
		mu.Unlock()
		w.until(40*time.Second, 0, 1)
		text, err := json.Marshal(w.pool.Status())
		if err != nil || strings.Contains(string(text)+fmt.Sprintf("%+v %#v", w.pool.Status(), w.pool.Rank(t.Context())), testPassword) {
			t.Errorf("%s %v", text, err)
		}
	})
}

// TestPoolNothingGood: with nothing else, a server that refuses is still named,
// but after those that are silent.
func TestPoolNothingGood(t *testing.T) {
	inWorld(t, []time.Duration{0, 0}, func(t *testing.T, w *world) {
		w.relays[1].Kill()
		e := w.endpoint(0)
		e.Credentials = Static(testUser, "wrong")
		w.open(e, w.endpoint(1))
		w.sleep(10 * time.Second)
		w.want("nothing good", 1, 0)
	})
}

func TestPoolConfig(t *testing.T) {
	e := Endpoint{URL: "turn:r.example", Credentials: Static("u", "p")}
	for want, c := range map[string]PoolConfig{
		"PoolConfig.ProbeEvery":   {ProbeEvery: time.Millisecond},
		"PoolConfig.ProbeTimeout": {ProbeTimeout: time.Minute},
		"PoolConfig.Failures":     {Failures: -1},
		"Endpoint.URL":            {Endpoints: []Endpoint{{URL: "turns:user:secret@r.example", Credentials: e.Credentials}}},
		"Endpoint.Credentials":    {Endpoints: []Endpoint{{URL: e.URL}}},
	} {
		var ce *ConfigError
		if _, err := NewPool(c); !errors.As(err, &ce) || ce.Field != want || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", want, err)
		}
	}
	if _, err := NewPool(PoolConfig{Endpoints: []Endpoint{e, e}}); !errors.Is(err, ErrDuplicate) {
		t.Errorf("twice the same: %v", err)
	}
	if _, err := NewPool(PoolConfig{Endpoints: make([]Endpoint, MaxEndpoints+1)}); err == nil {
		t.Error("too many")
	}
}
