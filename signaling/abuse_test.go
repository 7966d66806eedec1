package signaling_test

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/infrafabric/agentmesh/signaling"
	"github.com/infrafabric/agentmesh/witness"
)

// heap is how much memory is in use.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestAbuseFlood: a client that sends as fast as it can is read as fast as its
// rate, holds no more of the server than one that does not, and nobody else
// waits for it.
func TestAbuseFlood(t *testing.T) {
	inWorld(t, func(w *world) {
		w.serve("s1", signaling.ServerConfig{})
		a, b := w.client("agent-a", "ws://s1/").ready(), w.client("agent-b", "ws://s1/").ready()
		flood := w.rawClient(w.identity("agent-f"), "s1")
		flood.keepReading()
		msg := signaling.EncodeEnvelopeMsg(flood.seal("agent-b", func(e *signaling.Envelope) { e.Body = make([]byte, 1000) }).Bytes())
		before := heap()
		ctx, cancel := context.WithCancel(w.Context())
		sent := 0
		var wg sync.WaitGroup
		wg.Go(func() {
			for flood.ws.Write(ctx, websocket.MessageBinary, msg) == nil {
				sent++
			}
		})
		const seconds = 4
		for i := range seconds {
			start := time.Now()
			a.send("agent-b", fmt.Sprint("honest-", i), nil)
			if got := b.bodies(); !strings.Contains(got[len(got)-1], "honest") && !strings.Contains(strings.Join(got, " "), fmt.Sprint("honest-", i)) {
				t.Errorf("%d: not relayed while another floods", i)
			}
			time.Sleep(time.Second - time.Since(start))
		}
		got := len(b.events(signaling.EventEnvelope)) - seconds
		if most := 200 + 50*seconds + 50; got > most || got < 200 {
			t.Errorf("%d envelopes of the flood in %d s", got, seconds)
		}
		if kept := heap() - before; kept > 4<<20 {
			t.Errorf("the flood holds %d KiB", kept>>10)
		}
		cancel()
		wg.Wait()
		t.Logf("%d written, %d relayed", sent, got)
	})
}

// TestAbuseReadsNothing: a client that reads nothing while agents come and go
// is closed when its queue is full, and the others notice nothing.
func TestAbuseReadsNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		w.serve("s1", signaling.ServerConfig{Limits: signaling.ServerLimits{Queue: 32, Write: time.Hour, Idle: time.Hour}})
		honest := w.client("agent-a", "ws://s1/").ready()
		deaf := w.rawClient(w.identity("agent-deaf"), "s1")
		settle()
		for range 5 { // fills what the connection itself holds
			honest.send("agent-deaf", strings.Repeat("x", 60_000), nil)
		}
		gone := func() bool {
			return slices.ContainsFunc(w.log.named(witness.AgentDisconnected), func(e witness.Event) bool {
				return e.AgentID == "agent-deaf" && e.Metadata["reason"] == "client is too slow"
			})
		}
		rounds := 0
		for ; !gone(); rounds++ {
			if rounds > 64 {
				t.Fatal("a client that reads nothing stays")
			}
			w.rawClient(w.identity("agent-guest"), "s1").ws.CloseNow() // joins and leaves
			settle()
		}
		if rounds < 8 {
			t.Errorf("closed after %d rounds", rounds)
		}
		want(t, "notices", honest.codes())
		if st := honest.state(0); st != signaling.StateOpen {
			t.Errorf("the other client is %v", st)
		}
		deaf.ws.CloseNow()
	})
}

// TestAbuseIdle: a thousand clients that only ping stay connected, and each
// costs a bounded amount of memory, its own end included.
func TestAbuseIdle(t *testing.T) {
	const n, most = 1000, 160 << 10
	inWorld(t, func(w *world) {
		w.serve("s1", signaling.ServerConfig{})
		id := w.identity("agent-a")
		before, goroutines := heap(), runtime.NumGoroutine()
		httpClient := w.net.HTTPClient()
		var clients []*signaling.Client
		for i := range n {
			c, err := signaling.NewClient(signaling.ClientConfig{
				Identity: id, Mesh: fmt.Sprint("m", i), URLs: []string{"ws://s1/"}, HTTPClient: httpClient, PingInterval: 50 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			clients = append(clients, c)
		}
		for _, c := range clients {
			if err := c.WaitReady(w.Context()); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(90 * time.Second) // a silent connection gets a minute
		synctest.Wait()
		per := (heap() - before) / n
		t.Logf("%d clients: %d KiB of heap and %.1f goroutines for each pair of ends", n, per>>10,
			float64(runtime.NumGoroutine()-goroutines)/n)
		if per > most {
			t.Errorf("%d bytes for each client", per)
		}
		for _, c := range clients {
			if st := c.Servers()[0]; st.State != signaling.StateOpen {
				t.Fatalf("after a while: %v, %v", st.State, st.Err)
			}
		}
		if ev := w.log.named(witness.AgentDisconnected); len(ev) != 0 {
			t.Errorf("%d disconnected", len(ev))
		}
	})
}

// TestAbuseByServer: a server that floods its client with envelopes and
// presence is read as fast as the application takes them, and no further. Close
// does not wait for it.
func TestAbuseByServer(t *testing.T) {
	inWorld(t, func(w *world) {
		var mu sync.Mutex
		written := 0
		w.fakeServer("s1", welcome, func(ctx context.Context, ws *websocket.Conn) {
			msg := signaling.EncodeEnvelopeMsg(make([]byte, 60_000))
			for ws.Write(ctx, websocket.MessageBinary, msg) == nil {
				time.Sleep(10 * time.Millisecond)
				mu.Lock()
				written++
				mu.Unlock()
			}
		})
		before := heap()
		c := w.unread(signaling.ClientConfig{Identity: w.identity("agent-a"), URLs: []string{"ws://s1/"}})
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		mu.Lock()
		got := written
		mu.Unlock()
		// The queue of events, and what the connection itself holds.
		if kept := heap() - before; got > 100 || kept > 100*60_000 {
			t.Errorf("%d messages were taken, %d KiB kept", got, kept>>10)
		}
		start := time.Now()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("close took %v", took)
		}
	})
}

// TestAbuseWelcome: what a welcome demands is checked; a server that demands
// nonsense is left for another.
func TestAbuseWelcome(t *testing.T) {
	inWorld(t, func(w *world) {
		w.serve("good", signaling.ServerConfig{})
		good := w.client("agent-b", "ws://good/").ready()
		for name, change := range map[string]func(m *signaling.WelcomeMsg){
			"no-envelope":    func(m *signaling.WelcomeMsg) { m.MaxEnvelope = 0 },
			"large-envelope": func(m *signaling.WelcomeMsg) { m.MaxEnvelope = 1<<64 - 1 },
			"no-idle":        func(m *signaling.WelcomeMsg) { m.Idle = 0 },
			"long-idle":      func(m *signaling.WelcomeMsg) { m.Idle = 1<<64 - 1 },
			"no-rate":        func(m *signaling.WelcomeMsg) { m.Rate = 0 },
			"no-burst":       func(m *signaling.WelcomeMsg) { m.Burst = 0 },
			"large-rate":     func(m *signaling.WelcomeMsg) { m.Rate = 1<<64 - 1 },
		} {
			m := welcome
			change(&m)
			w.fakeServer(name, m, func(ctx context.Context, ws *websocket.Conn) { <-ctx.Done() })
			c := w.client("agent-"+name, "ws://"+name+"/", "ws://good/").ready()
			if st := c.state(0); st == signaling.StateOpen {
				t.Errorf("%s: open", name)
			}
			c.send("agent-b", name, nil)
			if got := good.bodies(); len(got) == 0 || got[len(got)-1] != name {
				t.Errorf("%s: not sent by the other server", name)
			}
		}
	})
}

// TestAbuseHandshakes: connections that never register hold no more than their
// places, for no longer than the handshake may take; a request that is none
// holds nothing.
func TestAbuseHandshakes(t *testing.T) {
	inWorld(t, func(w *world) {
		w.serve("s1", signaling.ServerConfig{Limits: signaling.ServerLimits{Connections: 50}})
		for range 50 {
			w.dialRaw("s1")
		}
		resp, err := w.net.HTTPClient().Get("http://s1/")
		if err != nil || resp.StatusCode != http.StatusServiceUnavailable {
			t.Fatalf("beyond the places: %v, %v", resp, err)
		}
		resp.Body.Close()
		late := w.client("agent-late", "ws://s1/")
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if st := late.state(0); st != signaling.StateOpen {
			t.Errorf("after the handshakes timed out: %v", st)
		}
	})
}
