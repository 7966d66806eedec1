package signaling_test

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/infrafabric/agentmesh/internal/pipenet"
	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
	"github.com/infrafabric/agentmesh/witness"
)

func TestRegisterRouteAndPresence(t *testing.T) {
	inWorld(t, func(w *world) {
		w.serve("s1", signaling.ServerConfig{})
		a := w.client("agent-a", "ws://s1/").ready()
		b := w.client("agent-b", "ws://s1/").ready()
		c := w.clientWith(signaling.ClientConfig{Identity: w.identity("agent-c"), Mesh: "other", URLs: []string{"ws://s1"}}).ready()

		a.send("agent-b", "hello", nil)
		a.send("agent-b", "by key", func(e *signaling.Envelope) { e.ToKey = b.id.PublicKey() })
		want(t, "b's envelopes", b.bodies(), "hello", "by key")

		lost := a.send("agent-c", "another mesh", nil)
		want(t, "a's notices", a.codes(), signaling.CodeNotRegistered)
		if n := a.events(signaling.EventNotice)[0].Notice; n.Ref != lost.Hash() {
			t.Errorf("the notice is about %v, want %v", n.Ref, lost.Hash())
		}
		a.send("agent-b", "to a key that is not there", func(e *signaling.Envelope) { e.ToKey = a.id.PublicKey() })
		want(t, "a's notices", a.codes(), signaling.CodeNotRegistered, signaling.CodeNotRegistered)

		want(t, "a saw", names(a.events(signaling.EventJoined)), "agent-b")
		want(t, "b saw", names(b.events(signaling.EventJoined)), "agent-a")
		want(t, "c saw", names(c.events(signaling.EventJoined)))
		if k := b.events(signaling.EventJoined)[0].Key; k != a.id.PublicKey() {
			t.Errorf("presence names the key %v", k)
		}
		b.Close()
		settle()
		want(t, "a saw leave", names(a.events(signaling.EventLeft)), "agent-b")

		for name, n := range map[witness.Name]int{
			witness.AgentRegistered: 3, witness.AgentDisconnected: 1, witness.SDPOfferRelayed: 2,
			witness.SignalingConnected: 3, witness.SignalingServerStarted: 1,
		} {
			if got := w.log.named(name); len(got) != n {
				t.Errorf("%d events %s, want %d", len(got), name, n)
			}
		}
	})
}

func TestFailover(t *testing.T) {
	inWorld(t, func(w *world) {
		s1 := w.serve("s1", signaling.ServerConfig{})
		w.serve("s2", signaling.ServerConfig{})
		a := w.client("agent-a", "ws://s1/", "ws://s2/").ready()
		b := w.client("agent-b", "ws://s1/", "ws://s2/").ready()

		for route, server := range []string{"ws://s1/", "ws://s2/", "ws://s1/"} {
			got, err := a.Send(w.Context(), a.offer("agent-b", "x", nil).Bytes(), route)
			if err != nil || got != server {
				t.Errorf("route %d: %q, %v", route, got, err)
			}
		}
		if got, err := a.Send(w.Context(), a.offer("agent-b", "x", nil).Bytes(), -1); err != nil || got != "ws://s2/" {
			t.Errorf("route -1: %q, %v", got, err)
		}
		settle()

		s1.kill()
		settle()
		if got, err := a.Send(w.Context(), a.offer("agent-b", "after", nil).Bytes(), 0); err != nil || got != "ws://s2/" {
			t.Errorf("after the first server died: %q, %v", got, err)
		}
		settle()
		want(t, "b's envelopes", b.bodies(), "x", "x", "x", "x", "after")
		downs := a.events(signaling.EventDown)
		if len(downs) != 1 || downs[0].Server != "ws://s1/" || downs[0].Err == nil {
			t.Errorf("down: %+v", downs)
		}
		if st := a.Servers(); st[0].State != signaling.StateWaiting || st[0].Err == nil || st[1].State != signaling.StateOpen {
			t.Errorf("states: %+v", st)
		}
		fo := w.log.named(witness.SignalingFailover)
		if len(fo) != 2 || fo[0].Metadata["from"] != "ws://s1/" || fo[0].Metadata["to"] != "ws://s2/" || fo[0].FailoverID == "" {
			t.Errorf("failover: %+v", fo)
		}

		w.serve("s1", signaling.ServerConfig{})
		time.Sleep(36 * time.Second) // the longest pause
		settle()
		if a.state(0) != signaling.StateOpen {
			t.Errorf("not back at the first server: %+v", a.Servers())
		}
	})
}

// The pauses double from 250 ms to 30 s, give or take 20 %.
func TestBackoff(t *testing.T) {
	inWorld(t, func(w *world) {
		start := time.Now()
		w.client("agent-a", "ws://nowhere/")
		time.Sleep(10 * time.Minute)
		var before time.Time
		base := 250 * time.Millisecond
		evs := w.log.named(witness.SignalingConnectionFailed)
		if len(evs) < 20 {
			t.Fatalf("only %d attempts", len(evs))
		}
		for i, e := range evs {
			if i == 0 {
				if e.Time.Sub(start) > time.Second {
					t.Errorf("first attempt after %v", e.Time.Sub(start))
				}
				before = e.Time
				continue
			}
			pause := e.Time.Sub(before)
			before = e.Time
			if low, high := base*8/10, base*12/10; pause < low || pause > high {
				t.Errorf("pause %d is %v, want %v to %v", i, pause, low, high)
			}
			base = min(2*base, 30*time.Second)
		}
	})
}

// A connection that lasted starts the pauses anew.
func TestBackoffStartsAnew(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.client("agent-a", "ws://s1/")
		time.Sleep(5 * time.Minute)
		s := w.serve("s1", signaling.ServerConfig{})
		a.ready()
		time.Sleep(time.Hour)
		s.kill()
		w.serve("s1", signaling.ServerConfig{})
		time.Sleep(300 * time.Millisecond)
		settle()
		if a.state(0) != signaling.StateOpen {
			t.Errorf("not back after 300 ms: %+v", a.Servers())
		}
	})
}

func TestConnectTimeout(t *testing.T) {
	inWorld(t, func(w *world) {
		w.net.Stall("s1")
		a := w.client("agent-a", "ws://s1/")
		time.Sleep(5*time.Second - time.Millisecond)
		synctest.Wait()
		if a.state(0) != signaling.StateConnecting {
			t.Errorf("state %v before the timeout", a.state(0))
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if st := a.Servers()[0]; st.State != signaling.StateWaiting || !errors.Is(st.Err, context.DeadlineExceeded) {
			t.Errorf("after the timeout: %+v", st)
		}
		ctx, cancel := context.WithTimeout(w.Context(), time.Second)
		defer cancel()
		if err := a.WaitReady(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "ws://s1/") {
			t.Errorf("WaitReady: %v", err)
		}
		if _, err := a.Send(w.Context(), []byte("x"), 0); !errors.Is(err, signaling.ErrNoServer) {
			t.Errorf("Send: %v", err)
		}
	})
}

// A newer process with the same key takes over; the older one leaves it the place
// at that server, and keeps its others.
func TestReplaced(t *testing.T) {
	inWorld(t, func(w *world) {
		w.serve("s1", signaling.ServerConfig{})
		w.serve("s2", signaling.ServerConfig{})
		id := w.identity("agent-a")
		old := w.clientWith(signaling.ClientConfig{Identity: id, URLs: []string{"ws://s1/", "ws://s2/"}}).ready()
		b := w.client("agent-b", "ws://s1/").ready()
		young := w.clientWith(signaling.ClientConfig{Identity: id, URLs: []string{"ws://s1/"}}).ready()
		time.Sleep(time.Hour)
		settle()
		st := old.Servers()
		if st[0].State != signaling.StateReplaced || !errors.Is(st[0].Err, signaling.ErrReplaced) || st[1].State != signaling.StateOpen {
			t.Errorf("old: %+v", st)
		}
		downs := old.events(signaling.EventDown)
		if len(downs) != 1 || !errors.Is(downs[0].Err, signaling.ErrReplaced) {
			t.Errorf("old went down: %+v", downs)
		}
		want(t, "young lost", names(young.events(signaling.EventDown)))
		b.send("agent-a", "who is it", nil)
		want(t, "young got", young.bodies(), "who is it")
		want(t, "old got", old.bodies())
		want(t, "b saw leave", names(b.events(signaling.EventLeft)))
	})
}

// WaitReady gives up when every server has said no.
func TestRefusedByTrust(t *testing.T) {
	inWorld(t, func(w *world) {
		policy := &fakeTrust{changed: make(chan struct{})}
		w.serve("s1", signaling.ServerConfig{Trust: policy})
		a := w.client("agent-a", "ws://s1/")
		err := a.WaitReady(w.Context())
		if !errors.Is(err, signaling.ErrRefused) {
			t.Fatalf("WaitReady: %v", err)
		}
		if ce := new(signaling.ClockError); errors.As(err, &ce) {
			t.Errorf("clocks that agree are named as the reason: %v", err)
		}
		if len(w.log.named(witness.UnauthorizedConnectionAttempt)) != 1 {
			t.Error("the attempt was not recorded")
		}
		if a.state(0) != signaling.StateRefused {
			t.Errorf("state %v", a.state(0))
		}
		policy.allow("agent-a", true)
		time.Sleep(4*time.Minute - time.Second)
		settle()
		if n := len(w.log.named(witness.UnauthorizedConnectionAttempt)); n != 1 || a.state(0) != signaling.StateRefused {
			t.Errorf("%d attempts, state %v within the pause", n, a.state(0))
		}
		time.Sleep(2*time.Minute + time.Second)
		settle()
		if a.state(0) != signaling.StateOpen {
			t.Errorf("state %v after the pause", a.state(0))
		}
		policy.allow("agent-a", false) // announces, so that it is asked at once
		settle()
		if a.state(0) != signaling.StateRefused {
			t.Errorf("state %v after trust was withdrawn", a.state(0))
		}
	})
}

// TestSignerFails: a key service that fails at a registration is named as the reason.
func TestSignerFails(t *testing.T) {
	inWorld(t, func(w *world) {
		w.serve("s1", signaling.ServerConfig{})
		_, private, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		service := &keyService{Signer: private}
		id, err := keys.NewIdentity("agent-a", service)
		if err != nil {
			t.Fatal(err)
		}
		service.fail.Store(true)
		a := w.clientWith(signaling.ClientConfig{Identity: id, URLs: []string{"ws://s1/"}})
		settle()
		if s := a.Servers()[0]; s.State == signaling.StateOpen || !errors.Is(s.Err, errKeyService) {
			t.Errorf("%v, %v", s.State, s.Err)
		}
		service.fail.Store(false)
		a.ready()
	})
}

var errKeyService = errors.New("the key service is away")

// keyService signs unless it is to fail.
type keyService struct {
	crypto.Signer
	fail atomic.Bool
}

func (k *keyService) Sign(r io.Reader, text []byte, opts crypto.SignerOpts) ([]byte, error) {
	if k.fail.Load() {
		return nil, errKeyService
	}
	return k.Signer.Sign(r, text, opts)
}

// TestWait: it returns at once when the servers are as wanted, after the change that
// makes them so, with its context, and with the client.
func TestWait(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.client("agent-a", "ws://s1/")
		state := func(s signaling.State) func([]signaling.ServerStatus) bool {
			return func(all []signaling.ServerStatus) bool { return all[0].State == s }
		}
		ctx, cancel := context.WithTimeout(w.Context(), 10*time.Second)
		defer cancel()
		if err := a.Wait(ctx, state(signaling.StateOpen)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("without a server: %v", err)
		}
		w.serve("s1", signaling.ServerConfig{})
		for range 2 {
			if err := a.Wait(w.Context(), state(signaling.StateOpen)); err != nil || a.state(0) != signaling.StateOpen {
				t.Errorf("%v, state %v", err, a.state(0))
			}
		}
		ended := make(chan error, 1)
		go func() { ended <- a.Wait(w.Context(), state(signaling.StateRefused)) }()
		synctest.Wait()
		a.Close()
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}

// fakeTrust says yes to a set of names and announces changes.
type fakeTrust struct {
	mu      sync.Mutex
	yes     map[string]bool
	changed chan struct{}
}

func (f *fakeTrust) Check(_ context.Context, c keys.Claim) (keys.Verdict, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.yes[c.ID] {
		return keys.Verdict{Decision: keys.Yes}, nil
	}
	return keys.Verdict{}, nil
}

func (f *fakeTrust) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

func (f *fakeTrust) allow(id string, yes bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.yes == nil {
		f.yes = make(map[string]bool)
	}
	f.yes[id] = yes
	close(f.changed)
	f.changed = make(chan struct{})
}

// With four servers and two connections, the third is used while the second is
// away, and left when it is back.
func TestSpare(t *testing.T) {
	inWorld(t, func(w *world) {
		urls := []string{"ws://s1/", "ws://s2/", "ws://s3/", "ws://s4/"}
		var servers []*server
		for _, u := range urls {
			name := strings.TrimSuffix(strings.TrimPrefix(u, "ws://"), "/")
			servers = append(servers, w.serve(name, signaling.ServerConfig{}))
		}
		a := w.clientWith(signaling.ClientConfig{Identity: w.identity("agent-a"), URLs: urls, MaxServers: 2}).ready()
		states := func() (out []signaling.State) {
			for _, s := range a.Servers() {
				out = append(out, s.State)
			}
			return out
		}
		time.Sleep(time.Hour)
		want(t, "at first", states(), signaling.StateOpen, signaling.StateOpen, signaling.StateSpare, signaling.StateSpare)
		servers[1].kill()
		time.Sleep(time.Minute)
		settle()
		got := states()
		if got[0] != signaling.StateOpen || got[1] == signaling.StateOpen || got[2] != signaling.StateOpen || got[3] != signaling.StateSpare {
			t.Errorf("without the second: %v", got)
		}
		if len(a.events(signaling.EventUp)) != 3 {
			t.Errorf("%d connections came up, want 3", len(a.events(signaling.EventUp)))
		}
		w.serve("s2", signaling.ServerConfig{})
		time.Sleep(time.Minute)
		settle()
		want(t, "when it is back", states(), signaling.StateOpen, signaling.StateOpen, signaling.StateSpare, signaling.StateSpare)
	})
}

// A short break ends before a spare is taken.
func TestSpareIsNotHasty(t *testing.T) {
	inWorld(t, func(w *world) {
		s1 := w.serve("s1", signaling.ServerConfig{})
		w.serve("s2", signaling.ServerConfig{})
		a := w.clientWith(signaling.ClientConfig{
			Identity: w.identity("agent-a"), URLs: []string{"ws://s1/", "ws://s2/"}, MaxServers: 1,
		}).ready()
		s1.kill()
		w.serve("s1", signaling.ServerConfig{})
		time.Sleep(time.Minute)
		for _, e := range a.events(signaling.EventUp) {
			if e.Server != "ws://s1/" {
				t.Errorf("%s was used", e.Server)
			}
		}
		if a.state(0) != signaling.StateOpen {
			t.Errorf("states %+v", a.Servers())
		}
	})
}

// A server that falls silent is given up after ping interval + timeout.
func TestPingTimeout(t *testing.T) {
	inWorld(t, func(w *world) {
		w.serve("s1", signaling.ServerConfig{})
		a := w.client("agent-a", "ws://s1/").ready()
		time.Sleep(time.Hour)
		if a.state(0) != signaling.StateOpen {
			t.Fatalf("an idle connection did not last: %+v", a.Servers())
		}
		w.net.Stall("s1")
		time.Sleep(31 * time.Second)
		settle()
		downs := a.events(signaling.EventDown)
		if len(downs) != 1 || !errors.Is(downs[0].Err, signaling.ErrPingTimeout) {
			t.Fatalf("down: %+v", downs)
		}
		w.net.Resume("s1")
		time.Sleep(time.Minute)
		settle()
		if a.state(0) != signaling.StateOpen {
			t.Errorf("state %v after the network is back", a.state(0))
		}
	})
}

// Nothing is dropped when the application reads late, and the connection
// survives although no pong is read meanwhile.
func TestSlowReaderLosesNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		w.serve("s1", signaling.ServerConfig{Limits: signaling.ServerLimits{Idle: 12 * time.Hour, Burst: 1000, Rate: 1000}})
		a := w.client("agent-a", "ws://s1/").ready()
		b := w.unread(signaling.ClientConfig{Identity: w.identity("agent-b"), URLs: []string{"ws://s1/"}})
		settle()
		const n = 300
		for range n {
			if _, err := a.Send(w.Context(), a.offer("agent-b", "x", nil).Bytes(), 0); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Minute)
		got := 0
		for got < n {
			e, err := b.Receive(w.Context())
			if err != nil {
				t.Fatal(err)
			}
			switch e.Kind {
			case signaling.EventEnvelope:
				got++
			case signaling.EventDown:
				t.Fatalf("down after %d: %v", got, e.Err)
			}
		}
		want(t, "notices", a.codes())
	})
}

// The client keeps to the server's rate by itself.
func TestClientKeepsToTheRate(t *testing.T) {
	inWorld(t, func(w *world) {
		w.serve("s1", signaling.ServerConfig{Limits: signaling.ServerLimits{Rate: 10, Burst: 5}})
		a := w.client("agent-a", "ws://s1/").ready()
		b := w.client("agent-b", "ws://s1/").ready()
		start := time.Now()
		for range 50 {
			if _, err := a.Send(w.Context(), a.offer("agent-b", "x", nil).Bytes(), 0); err != nil {
				t.Fatal(err)
			}
		}
		for len(b.events(signaling.EventEnvelope)) < 50 {
			time.Sleep(10 * time.Millisecond)
		}
		if d := time.Since(start); d < 4400*time.Millisecond || d > 4700*time.Millisecond {
			t.Errorf("50 envelopes at 10/s after a burst of 5 took %v, want 4.5 s", d)
		}
	})
}

// Send blocks while the queue is full, and ends with its context.
func TestSendBlocks(t *testing.T) {
	inWorld(t, func(w *world) {
		w.serve("s1", signaling.ServerConfig{})
		a := w.client("agent-a", "ws://s1/").ready()
		w.net.Stall("s1")
		ctx, cancel := context.WithTimeout(w.Context(), time.Second)
		defer cancel()
		big := a.offer("agent-b", strings.Repeat("x", signaling.MaxBody), nil).Bytes()
		n := 0
		for ; ; n++ {
			if _, err := a.Send(ctx, big, 0); err != nil {
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Send: %v", err)
				}
				break
			}
		}
		if n < 64 || n > 64+1+pipenet.BufferSize/len(big) {
			t.Errorf("%d envelopes were queued", n)
		}
	})
}

// A Send that waits takes another server when its own is lost.
func TestSendMovesOn(t *testing.T) {
	inWorld(t, func(w *world) {
		s1 := w.serve("s1", signaling.ServerConfig{})
		w.serve("s2", signaling.ServerConfig{})
		a := w.client("agent-a", "ws://s1/", "ws://s2/").ready()
		w.net.Stall("s1")
		big := a.offer("agent-b", strings.Repeat("x", signaling.MaxBody), nil).Bytes()
		time.AfterFunc(time.Second, s1.kill)
		ctx, cancel := context.WithTimeout(w.Context(), 5*time.Second)
		defer cancel()
		for {
			server, err := a.Send(ctx, big, 0)
			if err != nil {
				t.Fatal(err)
			}
			if server == "ws://s2/" {
				break
			}
		}
		w.net.Resume("s1")
		settle()
	})
}

// Nothing more is sent to a server that said it is draining.
func TestSendAvoidsDrainingServer(t *testing.T) {
	inWorld(t, func(w *world) {
		w.fakeServer("s1", welcome, func(ctx context.Context, ws *websocket.Conn) {
			ws.Write(ctx, websocket.MessageBinary, signaling.EncodeNotice(signaling.Notice{Code: signaling.CodeDraining}))
			<-ctx.Done()
		})
		w.serve("s2", signaling.ServerConfig{})
		a := w.client("agent-a", "ws://s1/", "ws://s2/").ready()
		if got, err := a.Send(w.Context(), a.offer("agent-b", "x", nil).Bytes(), 0); err != nil || got != "ws://s2/" {
			t.Errorf("Send: %q, %v", got, err)
		}
	})
}

// The rate that the server names is kept by the client: a server that does not
// enforce it sees it kept.
func TestClientPacesItself(t *testing.T) {
	inWorld(t, func(w *world) {
		slow := welcome
		slow.Rate, slow.Burst = 10, 5
		got := make(chan time.Time, 100)
		w.fakeServer("s1", slow, func(ctx context.Context, ws *websocket.Conn) {
			for {
				if _, _, err := ws.Read(ctx); err != nil {
					return
				}
				got <- time.Now()
			}
		})
		a := w.client("agent-a", "ws://s1/").ready()
		start := time.Now()
		for range 50 {
			if _, err := a.Send(w.Context(), a.offer("agent-b", "x", nil).Bytes(), 0); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 50 {
			want := time.Duration(max(0, i-4)) * 100 * time.Millisecond
			if d := (<-got).Sub(start).Round(10 * time.Millisecond); d != want {
				t.Errorf("envelope %d came after %v, want %v", i, d, want)
			}
		}
	})
}

// What a server sends that is not in the protocol ends the connection.
func TestServerSendsJunk(t *testing.T) {
	inWorld(t, func(w *world) {
		for name, b := range map[string][]byte{
			"garbage":      []byte("junk"),
			"out of place": signaling.Encode(&signaling.ChallengeMsg{Version: 1, Type: 1, Nonce: [32]byte{1}}),
			"too large":    make([]byte, signaling.MaxMessage+1),
		} {
			host := strings.ReplaceAll(name, " ", "-")
			w.fakeServer(host, welcome, func(ctx context.Context, ws *websocket.Conn) {
				ws.Write(ctx, websocket.MessageBinary, b)
				<-ctx.Done()
			})
			a := w.client("agent-a", "ws://"+host+"/")
			settle()
			if n := len(a.events(signaling.EventDown)); n != 1 {
				t.Errorf("%s: %d times down, want 1", name, n)
			}
		}
	})
}

// What Send took is sent before Close returns, if it can be within a second.
func TestCloseFlushes(t *testing.T) {
	inWorld(t, func(w *world) {
		w.serve("s1", signaling.ServerConfig{})
		a := w.client("agent-a", "ws://s1/").ready()
		b := w.client("agent-b", "ws://s1/").ready()
		for range 20 {
			if _, err := a.Send(w.Context(), a.offer("agent-b", "x", nil).Bytes(), 0); err != nil {
				t.Fatal(err)
			}
		}
		a.Close()
		settle()
		if n := len(b.bodies()); n != 20 {
			t.Errorf("%d of 20 arrived", n)
		}
	})
}

// The rate does not hold Close up.
func TestCloseFlushesBeyondTheRate(t *testing.T) {
	inWorld(t, func(w *world) {
		slow := welcome
		slow.Rate, slow.Burst = 1, 1
		var got atomic.Int32
		w.fakeServer("s1", slow, func(ctx context.Context, ws *websocket.Conn) {
			for {
				if _, _, err := ws.Read(ctx); err != nil {
					return
				}
				got.Add(1)
			}
		})
		a := w.client("agent-a", "ws://s1/").ready()
		for range 20 {
			if _, err := a.Send(w.Context(), a.offer("agent-b", "x", nil).Bytes(), 0); err != nil {
				t.Fatal(err)
			}
		}
		a.Close()
		settle()
		if got.Load() != 20 {
			t.Errorf("%d of 20 arrived", got.Load())
		}
	})
}

func TestCloseIsBounded(t *testing.T) {
	inWorld(t, func(w *world) {
		w.serve("s1", signaling.ServerConfig{})
		a := w.client("agent-a", "ws://s1/", "ws://nowhere/").ready()
		w.net.Stall("s1")
		start := time.Now()
		a.Close()
		if d := time.Since(start); d > time.Second {
			t.Errorf("Close took %v", d)
		}
		a.Close()
		if _, err := a.Receive(w.Context()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Receive: %v", err)
		}
		if _, err := a.Send(w.Context(), nil, 0); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Send: %v", err)
		}
		if err := a.WaitReady(w.Context()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("WaitReady: %v", err)
		}
	})
}

func TestReceiveEndsWithItsContext(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.unread(signaling.ClientConfig{Identity: w.identity("agent-a"), URLs: []string{"ws://nowhere/"}})
		ctx, cancel := context.WithTimeout(w.Context(), time.Second)
		defer cancel()
		if _, err := a.Receive(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Receive: %v", err)
		}
	})
}

func TestClientConfig(t *testing.T) {
	id, err := keys.Generate("agent-a")
	if err != nil {
		t.Fatal(err)
	}
	good := signaling.ClientConfig{Identity: id, Mesh: "m", URLs: []string{"ws://s1/"}}
	for field, change := range map[string]func(*signaling.ClientConfig){
		"Identity":       func(c *signaling.ClientConfig) { c.Identity = nil },
		"Mesh":           func(c *signaling.ClientConfig) { c.Mesh = "" },
		"URLs":           func(c *signaling.ClientConfig) { c.URLs = nil },
		"URLs ":          func(c *signaling.ClientConfig) { c.URLs = make([]string, signaling.MaxURLs+1) },
		"URLs[0]":        func(c *signaling.ClientConfig) { c.URLs = []string{"ftp://s1/"} },
		"URLs[0] ":       func(c *signaling.ClientConfig) { c.URLs = []string{"ws://"} },
		"URLs[0]  ":      func(c *signaling.ClientConfig) { c.URLs = []string{"ws://s1/#x"} },
		"URLs[0]   ":     func(c *signaling.ClientConfig) { c.URLs = []string{"ws://user:s3cret@s1:port/"} },
		"URLs[1]":        func(c *signaling.ClientConfig) { c.URLs = []string{"ws://s1/", "http://s1/"} },
		"MaxServers":     func(c *signaling.ClientConfig) { c.MaxServers = -1 },
		"ConnectTimeout": func(c *signaling.ClientConfig) { c.ConnectTimeout = -1 },
		"MinBackoff":     func(c *signaling.ClientConfig) { c.MinBackoff = -1 },
		"MaxBackoff":     func(c *signaling.ClientConfig) { c.MaxBackoff = time.Millisecond },
		"RetryReplaced":  func(c *signaling.ClientConfig) { c.RetryReplaced = -1 },
		"RetryRefused":   func(c *signaling.ClientConfig) { c.RetryRefused = -1 },
		"PingInterval":   func(c *signaling.ClientConfig) { c.PingInterval = -1 },
		"PingTimeout":    func(c *signaling.ClientConfig) { c.PingTimeout = -1 },
	} {
		cfg := good
		change(&cfg)
		c, err := signaling.NewClient(cfg)
		if err == nil {
			c.Close()
			t.Errorf("%s: accepted", field)
			continue
		}
		var ce *signaling.ConfigError
		if !errors.As(err, &ce) || ce.Config != "ClientConfig" || ce.Field != strings.TrimSpace(field) ||
			!strings.Contains(err.Error(), "ClientConfig."+ce.Field+":") {
			t.Errorf("%s: the error does not name it: %v", field, err)
		}
		if strings.Contains(err.Error(), "s3cret") {
			t.Errorf("the error holds the password: %v", err)
		}
	}
}

// TestRefresh: after a change of the network an open connection leads nowhere
// and another waits for its next attempt. Refresh has both back in three round
// trips: the connection, the upgrade, the registration.
func TestRefresh(t *testing.T) {
	inWorld(t, func(w *world) {
		w.net.Delay = 10 * time.Millisecond
		w.serve("s1", signaling.ServerConfig{})
		a := w.client("agent-a", "ws://s1/", "ws://s2/").ready()
		time.Sleep(5 * time.Minute) // s2 is tried every 30 s by now
		w.serve("s2", signaling.ServerConfig{})
		downs := len(a.events(signaling.EventDown))

		a.Refresh()
		time.Sleep(61 * time.Millisecond)
		for i := range 2 {
			if s := a.state(i); s != signaling.StateOpen {
				t.Errorf("server %d is %v", i, s)
			}
		}
		if got := len(a.events(signaling.EventDown)) - downs; got != 1 {
			t.Errorf("%d connections ended, want 1", got)
		}
		// What is under way when the network changes again is begun again.
		a.Refresh()
		time.Sleep(30 * time.Millisecond)
		a.Refresh()
		time.Sleep(61 * time.Millisecond)
		for i := range 2 {
			if s := a.state(i); s != signaling.StateOpen {
				t.Errorf("after two changes server %d is %v", i, s)
			}
		}
		if n := len(w.log.named(witness.SignalingConnectionLost)); n != 0 {
			t.Errorf("%d connections reported as lost", n)
		}
	})
}

// TestProbe: a connection that leads nowhere is given up three seconds after
// somebody doubts it, and one that is fine stays.
func TestProbe(t *testing.T) {
	inWorld(t, func(w *world) {
		w.serve("s1", signaling.ServerConfig{})
		w.serve("s2", signaling.ServerConfig{})
		a := w.client("agent-a", "ws://s1/", "ws://s2/").ready()
		time.Sleep(time.Second)
		w.net.Stall("s1")
		time.Sleep(time.Second)
		a.Probe()
		time.Sleep(2900 * time.Millisecond)
		if s := a.state(0); s != signaling.StateOpen {
			t.Errorf("before the time is over: %v", s)
		}
		time.Sleep(200 * time.Millisecond)
		if s := a.state(0); s == signaling.StateOpen {
			t.Error("the connection that leads nowhere is open")
		}
		if s := a.state(1); s != signaling.StateOpen {
			t.Errorf("the connection that is fine: %v", s)
		}
		w.net.Resume("s1")
		// And one that waits for its next attempt is tried at once.
		s := w.serve("s3", signaling.ServerConfig{})
		b := w.client("agent-b", "ws://s3/", "ws://s4/").ready()
		time.Sleep(5 * time.Minute)
		w.serve("s4", signaling.ServerConfig{})
		b.Probe()
		time.Sleep(10 * time.Millisecond)
		if got := b.state(1); got != signaling.StateOpen {
			t.Errorf("the server that is back: %v", got)
		}
		s.kill()
	})
}

// TestSendTo: an envelope goes by the server that is named, or not at all.
func TestSendTo(t *testing.T) {
	inWorld(t, func(w *world) {
		w.serve("s1", signaling.ServerConfig{})
		s2 := w.serve("s2", signaling.ServerConfig{})
		a := w.client("agent-a", "ws://s1/", "ws://s2/").ready()
		b := w.client("agent-b", "ws://s2/").ready()
		settle()
		e := a.offer("agent-b", "by s2", nil)
		if err := a.SendTo(context.Background(), e.Bytes(), "ws://s2/"); err != nil {
			t.Error(err)
		}
		time.Sleep(5 * time.Millisecond)
		want(t, "b's envelopes", b.bodies(), "by s2")
		if err := a.SendTo(context.Background(), e.Bytes(), "ws://s3/"); !errors.Is(err, signaling.ErrNoServer) {
			t.Errorf("to a server that is none: %v", err)
		}
		s2.kill()
		settle()
		if err := a.SendTo(context.Background(), e.Bytes(), "ws://s2/"); !errors.Is(err, signaling.ErrNoServer) {
			t.Errorf("to a server that is dead: %v", err)
		}
	})
}
