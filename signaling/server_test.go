package signaling_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
	"github.com/infrafabric/agentmesh/witness"
)

func TestWrongRegistrations(t *testing.T) {
	inWorld(t, func(w *world) {
		w.serve("s1", signaling.ServerConfig{})
		a, x := w.identity("agent-a"), w.identity("agent-x")
		for name, c := range map[string]struct {
			code   signaling.Code
			change func(r *raw, m *signaling.RegisterMsg, nonce [32]byte)
		}{
			"signature of another key":  {signaling.CodeRefused, func(r *raw, m *signaling.RegisterMsg, n [32]byte) { r.sign(m, x, n) }},
			"another nonce":             {signaling.CodeRefused, func(r *raw, m *signaling.RegisterMsg, n [32]byte) { n[0]++; r.sign(m, a, n) }},
			"another agent":             {signaling.CodeRefused, func(_ *raw, m *signaling.RegisterMsg, _ [32]byte) { m.Agent = "agent-b" }},
			"another mesh":              {signaling.CodeRefused, func(_ *raw, m *signaling.RegisterMsg, _ [32]byte) { m.Mesh = "other" }},
			"another instance":          {signaling.CodeRefused, func(_ *raw, m *signaling.RegisterMsg, _ [32]byte) { m.Instance[0]++ }},
			"another server":            {signaling.CodeWrongServer, func(_ *raw, m *signaling.RegisterMsg, _ [32]byte) { m.Server = "s2" }},
			"another server, signed":    {signaling.CodeWrongServer, func(r *raw, m *signaling.RegisterMsg, n [32]byte) { m.Server = "s2"; r.sign(m, a, n) }},
			"version 2":                 {signaling.CodeVersion, func(_ *raw, m *signaling.RegisterMsg, _ [32]byte) { m.Version = 2 }},
			"unknown type":              {signaling.CodeVersion, func(_ *raw, m *signaling.RegisterMsg, _ [32]byte) { m.Type = 77 }},
			"a name that cannot be one": {signaling.CodeProtocol, func(_ *raw, m *signaling.RegisterMsg, _ [32]byte) { m.Agent = "*" }},
		} {
			r := w.dialRaw("s1")
			nonce := r.challenge()
			m := r.registration(a, "s1", nonce)
			c.change(r, m, nonce)
			r.write(signaling.Encode(m))
			n, err := r.notice()
			if err != nil || n.Code != c.code {
				t.Errorf("%s: %v, %v", name, n, err)
			}
			if m, err := r.read(); websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
				t.Errorf("%s: then %v, %v", name, m, err)
			}
		}
		if got := len(w.log.named(witness.SignatureVerificationFailed)); got != 5 {
			t.Errorf("%d signature failures were recorded, want 5", got)
		}
		if got := w.log.named(witness.AgentRegistered); len(got) != 0 {
			t.Errorf("registered: %v", got)
		}
	})
}

// A hostile server that agents use passes the challenge of another server on to
// them, to register there in their name. It writes into its request what it likes.
func TestForwardedChallenge(t *testing.T) {
	inWorld(t, func(w *world) {
		w.serve("s1", signaling.ServerConfig{})
		w.serve("s2", signaling.ServerConfig{Names: []string{"S2.example:443", "s2"}})
		w.serve("nameless", signaling.ServerConfig{Names: []string{}})
		for _, target := range []string{"s1", "s2", "nameless"} {
			for _, host := range []string{"", "evil.example", "EVIL.example:443"} {
				r := w.forwarding(target, host)
				// What an honest client of evil.example answers to this challenge.
				victim := r.registration(w.identity("agent-a"), "evil.example", r.challenge())
				r.write(signaling.Encode(victim))
				r.wantEnd(signaling.CodeWrongServer)
			}
		}
		// Under a name of its own the server takes registrations, whatever the
		// Host header says.
		r := w.dialRaw("s2")
		r.write(signaling.Encode(r.registration(w.identity("agent-a"), "s2.example", r.challenge())))
		if m, err := r.read(); err != nil {
			t.Error(err)
		} else if _, ok := m.(*signaling.WelcomeMsg); !ok {
			t.Errorf("instead of a welcome: %#v", m)
		}
	})
}

// Envelopes that are not the connection's own are refused, and charged to the
// connection.
func TestBadSender(t *testing.T) {
	inWorld(t, func(w *world) {
		w.serve("s1", signaling.ServerConfig{})
		b := w.client("agent-b", "ws://s1/").ready()
		_, private, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		id, err := keys.NewIdentity("agent-a", private)
		if err != nil {
			t.Fatal(err)
		}
		r := w.rawClient(id, "s1")
		otherName := *r
		if otherName.id, err = keys.NewIdentity("agent-c", private); err != nil {
			t.Fatal(err)
		}
		sameName := *r
		sameName.id = w.identity("agent-a")
		bad := []*signaling.Sealed{
			r.seal("agent-b", func(e *signaling.Envelope) { e.Mesh = "other" }),
			r.seal("agent-b", func(e *signaling.Envelope) { e.Instance = signaling.NewInstance() }),
			otherName.seal("agent-b", nil),
			sameName.seal("agent-b", nil),
		}
		for i := range signaling.MaxOffences {
			s := bad[i%len(bad)]
			r.write(signaling.EncodeEnvelopeMsg(s.Bytes()))
			if n, err := r.notice(); err != nil || n.Code != signaling.CodeBadSender || n.Ref != s.Hash() {
				t.Fatalf("%d: %v, %v", i, n, err)
			}
		}
		r.write(signaling.EncodeEnvelopeMsg(r.seal("agent-b", nil).Bytes())) // a good one still passes
		settle()
		want(t, "b got", b.bodies(), "x")
		r.write(signaling.EncodeEnvelopeMsg(bad[0].Bytes()))
		r.wantEnd(signaling.CodeBadSender)
	})
}

func TestJunkEndsTheConnection(t *testing.T) {
	inWorld(t, func(w *world) {
		w.serve("s1", signaling.ServerConfig{})
		for name, f := range map[string]func(r *raw){
			"garbage":      func(r *raw) { r.write([]byte("hello")) },
			"out of place": func(r *raw) { r.write(signaling.Encode(r.registration(r.id, "s1", [32]byte{1}))) },
			"text":         func(r *raw) { r.ws.Write(w.Context(), websocket.MessageText, []byte("hello")) },
		} {
			t.Log(name)
			r := w.rawClient(w.identity("agent-a"), "s1")
			f(r)
			r.wantEnd(signaling.CodeProtocol)
		}
		r := w.rawClient(w.identity("agent-a"), "s1")
		r.write(signaling.EncodeEnvelopeMsg([]byte("no envelope"))) // an offence, not the end
		if n, err := r.notice(); err != nil || n.Code != signaling.CodeProtocol || n.Ref.IsZero() {
			t.Errorf("%v, %v", n, err)
		}
	})
}

func TestOversize(t *testing.T) {
	inWorld(t, func(w *world) {
		w.serve("s1", signaling.ServerConfig{Limits: signaling.ServerLimits{Envelope: 1024}})
		a := w.client("agent-a", "ws://s1/").ready()
		big := a.offer("agent-b", strings.Repeat("x", 1024), nil)
		if _, err := a.Send(w.Context(), big.Bytes(), 0); !errors.Is(err, signaling.ErrTooLarge) {
			t.Errorf("the client sends: %v", err)
		}
		r := w.rawClient(w.identity("agent-b"), "s1")
		s := r.seal("agent-a", func(e *signaling.Envelope) { e.Body = make([]byte, 1024) })
		r.write(signaling.EncodeEnvelopeMsg(s.Bytes()))
		if n, err := r.notice(); err != nil || n.Code != signaling.CodeTooLarge || n.Ref != s.Hash() {
			t.Errorf("%v, %v", n, err)
		}
		r.write(make([]byte, signaling.MaxMessage+1))
		if m, err := r.read(); err == nil {
			t.Errorf("after a message beyond every limit: %#v", m)
		}
		settle()
		want(t, "left", names(a.events(signaling.EventLeft)), "agent-b")
	})
}

// Somebody else registers under the owner's name.
func TestNameSquatting(t *testing.T) {
	inWorld(t, func(w *world) {
		w.serve("s1", signaling.ServerConfig{})
		a := w.client("agent-a", "ws://s1/").ready()
		owner := w.client("agent-b", "ws://s1/").ready()
		squatters := make([]*client, 20)
		for i := range squatters {
			squatters[i] = w.client("agent-b", "ws://s1/").ready()
		}
		if st := owner.state(0); st != signaling.StateOpen {
			t.Fatalf("the owner is %v", st)
		}
		a.send("agent-b", "keyed", func(e *signaling.Envelope) { e.ToKey = owner.id.PublicKey() })
		want(t, "the owner got", owner.bodies(), "keyed")
		for _, s := range squatters {
			want(t, "a squatter got", s.bodies())
		}
		// Without a key four registrations get it, chosen anew each time: the
		// chance of the owner to miss 100 of them is (17/21)^100 < 10^-9.
		for range 100 {
			a.send("agent-b", "open", nil)
		}
		total := len(owner.bodies()) - 1
		if total == 0 {
			t.Error("the owner got none of 100")
		}
		for _, s := range squatters {
			total += len(s.bodies())
		}
		if total != 100*signaling.MaxRecipients {
			t.Errorf("%d copies, want %d", total, 100*signaling.MaxRecipients)
		}
	})
}

// A client that ignores the rate is read more slowly; nothing is lost.
func TestRateIsBackPressure(t *testing.T) {
	inWorld(t, func(w *world) {
		w.serve("s1", signaling.ServerConfig{Limits: signaling.ServerLimits{Rate: 10, Burst: 5}})
		b := w.client("agent-b", "ws://s1/").ready()
		r := w.rawClient(w.identity("agent-a"), "s1")
		ended := r.keepReading()
		start := time.Now()
		for range 1000 {
			r.write(signaling.EncodeEnvelopeMsg(r.seal("agent-b", nil).Bytes()))
		}
		for len(b.events(signaling.EventEnvelope)) < 1000 {
			select {
			case err := <-ended:
				t.Fatalf("closed: %v", err)
			default:
			}
			time.Sleep(100 * time.Millisecond)
		}
		if d := time.Since(start); d < 99*time.Second || d > 100*time.Second {
			t.Errorf("1000 envelopes at 10/s took %v", d)
		}
	})
}

func TestIdleConnectionsAreClosed(t *testing.T) {
	inWorld(t, func(w *world) {
		w.serve("s1", signaling.ServerConfig{})
		silent := w.rawClient(w.identity("agent-a"), "s1")
		pinging := w.rawClient(w.identity("agent-b"), "s1")
		pinged := pinging.keepReading()
		start := time.Now()
		ended := silent.keepReading()
		for range 5 {
			time.Sleep(20 * time.Second)
			if err := pinging.ws.Ping(w.Context()); err != nil {
				t.Fatal(err)
			}
		}
		select {
		case <-ended:
		default:
			t.Errorf("still open after %v", time.Since(start))
		}
		select {
		case err := <-pinged:
			t.Errorf("the one that pings was closed: %v", err)
		default:
		}
		ev := w.log.named(witness.AgentDisconnected)
		if len(ev) != 1 || ev[0].Time.Sub(start).Round(time.Second) != time.Minute {
			t.Errorf("disconnected: %+v", ev)
		}
	})
}

// Waiting for the rate is not silence.
func TestRateIsNotIdle(t *testing.T) {
	inWorld(t, func(w *world) {
		w.serve("s1", signaling.ServerConfig{Limits: signaling.ServerLimits{Rate: 1, Burst: 1, Idle: 500 * time.Millisecond}})
		w.clientWith(signaling.ClientConfig{
			Identity: w.identity("agent-b"), URLs: []string{"ws://s1/"}, PingInterval: 100 * time.Millisecond,
		}).ready()
		r := w.rawClient(w.identity("agent-a"), "s1")
		ended := r.keepReading()
		start := time.Now()
		for range 5 {
			r.write(signaling.EncodeEnvelopeMsg(r.seal("agent-b", nil).Bytes()))
		}
		<-ended
		if d := time.Since(start).Round(100 * time.Millisecond); d != 4500*time.Millisecond {
			t.Errorf("closed after %v, want 4s for five envelopes and then 500ms", d)
		}
		if n := len(w.log.named(witness.SDPOfferRelayed)); n != 5 {
			t.Errorf("%d envelopes passed", n)
		}
	})
}

// A client that does not read loses its connection, after the write timeout
// and not because somebody floods it; the flooding sender is told.
func TestSlowClient(t *testing.T) {
	inWorld(t, func(w *world) {
		w.serve("s1", signaling.ServerConfig{Limits: signaling.ServerLimits{Rate: 1000, Burst: 1000}})
		flood := w.client("agent-a", "ws://s1/").ready()
		other := w.client("agent-c", "ws://s1/").ready()
		victim := w.rawClient(w.identity("agent-b"), "s1") // reads nothing more
		start := time.Now()
		body := strings.Repeat("x", 30_000)
		sent := 0
		for ; len(flood.codes()) == 0; sent++ {
			flood.send("agent-b", body, nil)
			if sent > 200 {
				t.Fatal("no notice")
			}
		}
		if c := flood.codes()[0]; c != signaling.CodeRateLimited {
			t.Errorf("notice %v", c)
		}
		other.send("agent-b", "small", nil)
		want(t, "notices of another sender", other.codes())
		time.Sleep(15*time.Second - time.Since(start))
		ev := w.log.named(witness.AgentDisconnected)
		if len(ev) != 1 || ev[0].AgentID != "agent-b" || ev[0].Metadata["reason"] != "client is too slow" {
			t.Errorf("disconnected: %+v", ev)
		}
		victim.ws.CloseNow()
	})
}

func TestHandshakeTimeout(t *testing.T) {
	inWorld(t, func(w *world) {
		w.serve("s1", signaling.ServerConfig{})
		r := w.dialRaw("s1")
		start := time.Now()
		r.challenge()
		if m, err := r.read(); err == nil {
			t.Errorf("got %#v", m)
		}
		if d := time.Since(start).Round(100 * time.Millisecond); d != 5*time.Second {
			t.Errorf("closed after %v, want 5s", d)
		}
	})
}

func TestConnectionLimit(t *testing.T) {
	inWorld(t, func(w *world) {
		w.serve("s1", signaling.ServerConfig{Limits: signaling.ServerLimits{Connections: 2}})
		a := w.rawClient(w.identity("agent-a"), "s1")
		half := w.dialRaw("s1") // not registered, counts too
		half.challenge()
		_, resp, err := websocket.Dial(w.Context(), "ws://s1/", &websocket.DialOptions{HTTPClient: w.net.HTTPClient()})
		if err == nil || resp == nil || resp.StatusCode != 503 {
			t.Errorf("a third connection: %v, %v", resp, err)
		}
		a.ws.CloseNow()
		settle()
		w.rawClient(w.identity("agent-c"), "s1")
	})
}

func TestShutdownDrains(t *testing.T) {
	inWorld(t, func(w *world) {
		s1 := w.serve("s1", signaling.ServerConfig{})
		w.serve("s2", signaling.ServerConfig{})
		a := w.client("agent-a", "ws://s1/", "ws://s2/").ready()
		start := time.Now()
		if err := s1.Shutdown(w.Context()); err != nil {
			t.Error(err)
		}
		if d := time.Since(start); d > 10*time.Millisecond {
			t.Errorf("Shutdown took %v", d)
		}
		settle()
		want(t, "a was told", a.codes(), signaling.CodeDraining)
		if d := a.events(signaling.EventDown); len(d) != 1 || !errors.Is(d[0].Err, signaling.ErrDraining) {
			t.Errorf("down: %+v", d)
		}
		if got, err := a.Send(w.Context(), a.offer("agent-b", "x", nil).Bytes(), 0); err != nil || got != "ws://s2/" {
			t.Errorf("Send: %q, %v", got, err)
		}
		if st := a.Servers()[0]; st.State == signaling.StateRefused {
			t.Errorf("the client counts draining as refusal: %+v", st)
		}
		if status, _ := w.get("http://s1/health", ""); status != 503 {
			t.Errorf("/health: %d", status)
		}
		if status, _ := w.get("http://s1/", ""); status != 503 {
			t.Errorf("/: %d", status)
		}
		if err := s1.Shutdown(w.Context()); err != nil {
			t.Errorf("second Shutdown: %v", err)
		}
		if err := s1.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
}

// A client that hangs does not hold Shutdown beyond its context.
func TestShutdownIsBounded(t *testing.T) {
	inWorld(t, func(w *world) {
		s := w.serve("s1", signaling.ServerConfig{})
		w.client("agent-a", "ws://s1/").ready()
		w.net.Stall("s1")
		ctx, cancel := context.WithTimeout(w.Context(), 300*time.Millisecond) // less than what a last word may take
		defer cancel()
		start := time.Now()
		if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Shutdown: %v", err)
		}
		if d := time.Since(start); d != 300*time.Millisecond {
			t.Errorf("Shutdown took %v", d)
		}
	})
}

func TestTrustUntilIsAskedAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		until := time.Now().Add(45 * time.Second)
		w.serve("s1", signaling.ServerConfig{Trust: trustFunc(func(c keys.Claim) keys.Verdict {
			return keys.Verdict{Decision: keys.Yes, Until: until}
		})})
		a := w.client("agent-a", "ws://s1/").ready()
		time.Sleep(31 * time.Second)
		if a.state(0) != signaling.StateOpen {
			t.Errorf("state %v before the end", a.state(0))
		}
		time.Sleep(30 * time.Second)
		settle()
		if a.state(0) != signaling.StateRefused {
			t.Errorf("state %v after the end", a.state(0))
		}
	})
}

type trustFunc func(keys.Claim) keys.Verdict

func (f trustFunc) Check(_ context.Context, c keys.Claim) (keys.Verdict, error) { return f(c), nil }

// A client learns of at most MaxPresenceSnapshot agents, and of all changes.
func TestPresenceOfManyAgents(t *testing.T) {
	inWorld(t, func(w *world) {
		broker := signaling.NewBroker()
		w.serve("s1", signaling.ServerConfig{Broker: broker, Limits: signaling.ServerLimits{Queue: 16}})
		far, err := broker.Join(signaling.BrokerHandler{
			Presence: func(signaling.Registration, bool) {}, Envelope: func(signaling.Registration, []byte) {},
		})
		if err != nil {
			t.Fatal(err)
		}
		key := w.identity("x").PublicKey()
		const n = signaling.MaxPresenceSnapshot + 100
		for i := range n {
			far.Announce(signaling.Registration{Mesh: "m", Agent: fmt.Sprint("agent-", i), Key: key}, true)
		}
		a := w.client("agent-a", "ws://s1/").ready()
		if got := len(a.events(signaling.EventJoined)); got != signaling.MaxPresenceSnapshot {
			t.Errorf("a snapshot of %d", got)
		}
		if err := far.Close(); err != nil {
			t.Fatal(err)
		}
		settle()
		if got := len(a.events(signaling.EventLeft)); got != n {
			t.Errorf("%d left, want %d", got, n)
		}
	})
}
