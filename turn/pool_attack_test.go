package turn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/stun/v4"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/goleak"

	"github.com/infrafabric/agentmesh/internal/virtual"
)

// TestPoolConcurrently: everything at once, with relays that come and go, and Close
// in the middle of it.
func TestPoolConcurrently(t *testing.T) {
	for seed := range uint64(5) {
		inWorld(t, []time.Duration{0, 5 * time.Millisecond, 10 * time.Millisecond}, func(t *testing.T, w *world) {
			w.open()
			var wg sync.WaitGroup
			stop := make(chan struct{})
			for g := range 8 {
				wg.Go(func() {
					r := rand.New(rand.NewPCG(seed, uint64(g)))
					for {
						select {
						case <-stop:
							return
						case <-time.After(time.Duration(r.IntN(300)) * time.Millisecond):
						}
						i := r.IntN(3)
						var err error
						switch r.IntN(6) {
						case 0:
							err = w.pool.Add(w.endpoint(i))
						case 1:
							err = w.pool.Remove(w.relays[i].URL())
						case 2:
							w.pool.Rank(t.Context())
						case 3:
							w.doubt(i)
						case 4:
							w.pool.Status()
							w.pool.Changed()
						case 5:
							w.relays[i].Kill()
							err = w.relays[i].Start()
						}
						if err != nil && !errors.Is(err, ErrDuplicate) && !errors.Is(err, ErrUnknown) && !errors.Is(err, net.ErrClosed) {
							t.Error(err)
						}
					}
				})
			}
			w.sleep(time.Minute)
			for range 3 {
				wg.Go(func() { _ = w.pool.Close() })
			}
			w.sleep(5 * time.Second)
			close(stop)
			wg.Wait()
			if got := w.pool.Rank(t.Context()); got != nil {
				t.Errorf("after Close: %v", got)
			}
		})
	}
}

// TestPoolLeavesNothing: no goroutine, on a real network with servers that answer,
// refuse, hang and are not there.
func TestPoolLeavesNothing(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	good, n := onLoopback(t, "tls", "127.0.0.1", nil)
	leaks := goleak.IgnoreCurrent()
	static := Static(testUser, testPassword)
	passed := make(chan struct{})
	p, err := NewPool(PoolConfig{
		Endpoints: []Endpoint{
			{URL: "turn:" + silent.Addr().String() + "?transport=tcp", Credentials: static},
			{URL: "turns:" + silent.Addr().String(), Credentials: static},
			{URL: "turn:127.0.0.1:1", Credentials: static},
			{URL: "turn:127.0.0.1:2?transport=tcp", Credentials: static},
			{URL: good.URL, TLS: good.TLS, Credentials: static},
		},
		Logger: slog.New(slog.NewTextHandler(signal{passed, "is healthy"}, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	<-passed
	began := time.Now()
	if err := p.Close(); err != nil || time.Since(began) > time.Second {
		t.Errorf("Close: %v after %v", err, time.Since(began))
	}
	// The server notices the end of its connections by itself.
	goleak.VerifyNone(t, leaks, goleak.IgnoreAnyFunction("github.com/pion/turn/v5.(*Server).readLoop"))
	if n.made.Load() == 0 {
		t.Error("no allocation was made")
	}
}

// signal is a writer that closes a channel when it is given a text.
type signal struct {
	seen chan struct{}
	text string
}

func (s signal) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(s.text)) {
		close(s.seen)
	}
	return len(p), nil
}

// TestProbeFreesWhatItDoesNotKnow: the answer to Allocate is lost, or the caller
// gives up; the server keeps nothing.
func TestProbeFreesWhatItDoesNotKnow(t *testing.T) {
	for name, spoil := range map[string]func(n *virtual.Net, from, to *virtual.Host, cancel func()){
		"lost":     func(n *virtual.Net, from, to *virtual.Host, _ func()) { n.Block(from, to) },
		"given up": func(_ *virtual.Net, _, _ *virtual.Host, cancel func()) { cancel() },
	} {
		for _, at := range []time.Duration{80 * time.Millisecond, 120 * time.Millisecond, 170 * time.Millisecond} {
			t.Run(fmt.Sprint(name, at), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := virtual.New(t, virtual.Config{RTT: 50 * time.Millisecond})
					me, err := n.Host(virtual.PortRestricted)
					if err != nil {
						t.Fatal(err)
					}
					w := &world{t: t, net: n}
					url, alive := w.server(nil)
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					time.AfterFunc(at, func() { spoil(n, w.last, me, cancel) })
					if _, err := Probe(ctx, me, Relay{URL: url, Username: testUser, Password: testPassword}); err == nil {
						t.Error("it passed")
					}
					w.sleep(time.Second)
					if alive.made.Load() != 1 || alive.alive.Load() != 0 {
						t.Errorf("%d allocations made, %d not freed", alive.made.Load(), alive.alive.Load())
					}
				})
			})
		}
	}
}

// TestProbeStaleNonce: a server that changes its nonce before every request is a
// good one.
func TestProbeStaleNonce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := virtual.New(t, virtual.Config{RTT: 50 * time.Millisecond})
		key := stun.NewLongTermIntegrity(testUser, "r", testPassword)
		nonces := 0
		url := script(t, n, func(m *stun.Message) [][]byte {
			var nonce stun.Nonce
			_ = nonce.GetFrom(m) // without one it is stale as well
			fresh := stun.NewNonce(fmt.Sprint(nonces))
			switch {
			case m.Type.Class == stun.ClassIndication:
				data, _ := m.Get(stun.AttrData)
				return [][]byte{stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodData, stun.ClassIndication),
					stun.RawAttribute{Type: stun.AttrData, Value: data}).Raw}
			case !m.Contains(stun.AttrMessageIntegrity):
				return [][]byte{reply(m, stun.ClassErrorResponse, stun.CodeUnauthorized, stun.NewRealm("r"), fresh)}
			case nonce.String() != fresh.String():
				return [][]byte{reply(m, stun.ClassErrorResponse, stun.CodeStaleNonce, stun.NewRealm("r"), fresh)}
			}
			nonces++
			return [][]byte{reply(m, stun.ClassSuccessResponse, relayedAddress{IP: net.IPv4(1, 2, 3, 4), Port: 5}, key)}
		})
		me, err := n.Host(virtual.Open)
		if err != nil {
			t.Fatal(err)
		}
		if latency, err := Probe(t.Context(), me, Relay{URL: url, Username: testUser, Password: testPassword}); err != nil || latency != 50*time.Millisecond || nonces != 3 {
			t.Errorf("latency %v, %d requests, %v", latency, nonces, err)
		}
	})
}

// TestPoolMeasures: the instruments, and what a log tells.
func TestPoolMeasures(t *testing.T) {
	inWorld(t, []time.Duration{0, 0}, func(t *testing.T, w *world) {
		reader := sdk.NewManualReader()
		var log bytes.Buffer
		w.relays[1].Kill()
		p, err := NewPool(PoolConfig{
			Endpoints: []Endpoint{w.endpoint(0), w.endpoint(1)}, Net: w.me,
			MeterProvider: sdk.NewMeterProvider(sdk.WithReader(reader)),
			Logger:        slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		})
		if err != nil {
			t.Fatal(err)
		}
		w.sleep(10 * time.Second)
		check := func(when string, want ...string) {
			t.Helper()
			got := measured(t, reader)
			for _, s := range want {
				if !strings.Contains(got, s) {
					t.Errorf("%s: no %s in\n%s", when, s, got)
				}
			}
		}
		check("one alive",
			"webrtc_turn_server_healthy "+w.relays[0].URL()+" 1\n",
			"webrtc_turn_server_healthy "+w.relays[1].URL()+" 0\n",
			"webrtc_turn_probe_milliseconds "+w.relays[0].URL()+" 1x75\n")
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		check("closed", "webrtc_turn_server_healthy "+w.relays[0].URL()+" 0\n")
		if text := log.String(); !strings.Contains(text, "unhealthy") || strings.Contains(text, testPassword) {
			t.Error(text)
		}
	})
}

// measured is what a reader sees, a line for each instrument and server.
func measured(t *testing.T, reader sdk.Reader) string {
	t.Helper()
	var m metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &m); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, scope := range m.ScopeMetrics {
		for _, in := range scope.Metrics {
			switch d := in.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range d.DataPoints {
					v, _ := p.Attributes.Value("server")
					fmt.Fprintf(&b, "%s %s %d\n", in.Name, v.AsString(), p.Value)
				}
			case metricdata.Histogram[float64]:
				for _, p := range d.DataPoints {
					v, _ := p.Attributes.Value("server")
					fmt.Fprintf(&b, "%s %s %dx%v\n", in.Name, v.AsString(), p.Count, p.Sum/float64(p.Count))
				}
			}
		}
	}
	return b.String()
}
