package signaling_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
)

// says is a server that accepts WebSockets, says one thing after the other, each after
// the first when something came back, and hangs up.
//
// bubble: it sleeps in virtual time.
func (w *world) says(name string, messages ...[]byte) {
	w.Helper()
	l, err := w.net.Listen(name)
	if err != nil {
		w.Fatal(err)
	}
	var wg sync.WaitGroup
	srv := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		wg.Add(1)
		defer wg.Done()
		ws, err := websocket.Accept(rw, r, nil)
		if err != nil {
			return
		}
		defer ws.CloseNow()
		for i, m := range messages {
			if i > 0 {
				if _, _, err := ws.Read(w.Context()); err != nil {
					return
				}
			}
			ws.Write(w.Context(), websocket.MessageBinary, m)
		}
		time.Sleep(100 * time.Millisecond)
	})}
	wg.Go(func() { srv.Serve(l) })
	w.Cleanup(func() { srv.Close(); l.Close(); wg.Wait() })
}

// TestServerOutOfTurn: whatever a server says in place of a challenge or a welcome, the
// client is not registered, and tells what it heard.
func TestServerOutOfTurn(t *testing.T) {
	challenge := signaling.Encode(&signaling.ChallengeMsg{Version: 1, Type: 1, Nonce: [32]byte{1}})
	welcomed := welcome
	welcomed.Version, welcomed.Type = 1, 3
	replaced := signaling.EncodeNotice(signaling.Notice{Code: signaling.CodeReplaced, Text: "another"})
	for name, c := range map[string]struct {
		messages [][]byte
		says     string
		target   error
	}{
		"nothing":                     {nil, "EOF", nil},
		"junk":                        {[][]byte{{0xff}}, "malformed message", nil},
		"a welcome at once":           {[][]byte{signaling.Encode(&welcomed)}, "WelcomeMsg is out of place", nil},
		"a notice at once":            {[][]byte{replaced}, "another", signaling.ErrReplaced},
		"a second challenge":          {[][]byte{challenge, challenge}, "ChallengeMsg is out of place", nil},
		"a notice for a registration": {[][]byte{challenge, replaced}, "another", signaling.ErrReplaced},
		"junk for a registration":     {[][]byte{challenge, {0x00}}, "malformed message", nil},
		"nothing for a registration":  {[][]byte{challenge}, "EOF", nil},
	} {
		inWorld(t, func(w *world) {
			w.says("s1", c.messages...)
			a := w.client("agent-a", "ws://s1/")
			time.Sleep(3 * time.Second)
			settle()
			s := a.Servers()[0]
			if s.State == signaling.StateOpen || s.Err == nil || !strings.Contains(strings.ToLower(s.Err.Error()), strings.ToLower(c.says)) ||
				c.target != nil && !errors.Is(s.Err, c.target) {
				t.Errorf("%s: %v: %v", name, s.State, s.Err)
			}
			if ups := a.events(signaling.EventUp); len(ups) != 0 {
				t.Errorf("%s: %d connections came up", name, len(ups))
			}
		})
	}
}

// TestClientOutOfTurn: what comes in place of a registration ends the connection, with
// the code that says why.
func TestClientOutOfTurn(t *testing.T) {
	for name, first := range map[string]func(r *raw, m *signaling.RegisterMsg) []byte{
		"junk": func(*raw, *signaling.RegisterMsg) []byte { return []byte{0xff} },
		"an envelope": func(*raw, *signaling.RegisterMsg) []byte {
			return signaling.EncodeEnvelopeMsg([]byte("x"))
		},
		"a weak key": func(_ *raw, m *signaling.RegisterMsg) []byte { // the neutral element
			m.Key = append([]byte{1}, make([]byte, 31)...)
			return signaling.Encode(m)
		},
		"a short key": func(_ *raw, m *signaling.RegisterMsg) []byte {
			m.Key = m.Key[:31]
			return signaling.Encode(m)
		},
	} {
		inWorld(t, func(w *world) {
			w.serve("s1", signaling.ServerConfig{})
			r := w.dialRaw("s1")
			r.write(first(r, r.registration(w.identity("agent-a"), "s1", r.challenge())))
			n, err := r.notice()
			if err != nil || n.Code != signaling.CodeProtocol {
				t.Errorf("%s: %v, %v", name, n, err)
			}
		})
	}
}

// TestOtherVersion: an envelope of another version is refused as such, and nobody gets it.
func TestOtherVersion(t *testing.T) {
	inWorld(t, func(w *world) {
		w.serve("s1", signaling.ServerConfig{})
		b := w.client("agent-b", "ws://s1/").ready()
		r := w.rawClient(w.identity("agent-a"), "s1")
		envelope := append([]byte(nil), r.seal("agent-b", nil).Bytes()...)
		envelope[1] = 2 // [version, payload, signature]
		r.write(signaling.EncodeEnvelopeMsg(envelope))
		n, err := r.notice()
		if err != nil || n.Code != signaling.CodeVersion || n.Ref != signaling.HashOf(envelope) || !strings.Contains(n.Text, "2") {
			t.Errorf("%+v, %v", n, err)
		}
		settle()
		want(t, "b got", b.bodies())
	})
}

// TestSendToOneServer: an envelope goes by the server that is named, and its error says why not.
func TestSendToOneServer(t *testing.T) {
	inWorld(t, func(w *world) {
		small := welcome
		small.MaxEnvelope, small.Rate, small.Burst = 1000, 1_000_000, 1_000_000
		hold := make(chan struct{})
		w.fakeServer("s1", small, func(ctx context.Context, ws *websocket.Conn) {
			select {
			case <-hold:
			case <-ctx.Done():
			}
		})
		w.serve("s2", signaling.ServerConfig{})
		a := w.client("agent-a", "ws://s1/", "ws://s2/").ready()
		b := w.client("agent-b", "ws://s2/").ready()
		e := a.offer("agent-b", "by s2", nil).Bytes()
		if err := a.SendTo(w.Context(), e, "ws://s2/"); err != nil {
			t.Error(err)
		}
		settle()
		want(t, "b got", b.bodies(), "by s2")
		if err := a.SendTo(w.Context(), e, "ws://s3/"); !errors.Is(err, signaling.ErrNoServer) {
			t.Errorf("a server that is none: %v", err)
		}
		large := a.offer("agent-b", strings.Repeat("x", 1000), nil).Bytes()
		if err := a.SendTo(w.Context(), large, "ws://s1/"); !errors.Is(err, signaling.ErrTooLarge) {
			t.Errorf("too large for s1: %v", err)
		}
		if err := a.SendTo(w.Context(), large, "ws://s2/"); err != nil {
			t.Error(err)
		}
		// s1 reads nothing: its queue fills up.
		full := func(send func(ctx context.Context) error) error {
			for {
				ctx, cancel := context.WithTimeout(w.Context(), time.Second)
				err := send(ctx)
				cancel()
				if err != nil {
					return err
				}
			}
		}
		toOne := func(ctx context.Context) error { return a.SendTo(ctx, e, "ws://s1/") }
		if err := full(toOne); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a full queue: %v", err)
		}
		first := func(ctx context.Context) error { _, err := a.Send(ctx, e, 0); return err }
		if err := full(first); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a full queue: %v", err)
		}
		// Whoever waits learns that the connection, or the client, has ended.
		ended := make(chan error, 1)
		go func() { ended <- a.SendTo(context.Background(), e, "ws://s1/") }()
		settle()
		close(hold)
		if err := <-ended; !errors.Is(err, signaling.ErrNoServer) {
			t.Errorf("the connection ended: %v", err)
		}
	})
}

// TestSendToWhileClosing: Close ends the calls that wait for room.
func TestSendToWhileClosing(t *testing.T) {
	inWorld(t, func(w *world) {
		fast := welcome
		fast.Rate, fast.Burst = 1_000_000, 1_000_000
		w.fakeServer("s1", fast, func(ctx context.Context, ws *websocket.Conn) { <-ctx.Done() })
		a := w.client("agent-a", "ws://s1/").ready()
		e := a.offer("agent-b", "x", nil).Bytes()
		ended := make(chan error, 2)
		go func() {
			for {
				if err := a.SendTo(context.Background(), e, "ws://s1/"); err != nil {
					ended <- err
					return
				}
			}
		}()
		go func() {
			for {
				if _, err := a.Send(context.Background(), e, 0); err != nil {
					ended <- err
					return
				}
			}
		}()
		time.Sleep(time.Second)
		a.Close()
		for range 2 {
			if err := <-ended; !errors.Is(err, net.ErrClosed) && !errors.Is(err, signaling.ErrNoServer) {
				t.Error(err)
			}
		}
		if err := a.SendTo(w.Context(), e, "ws://s1/"); err == nil {
			t.Error("SendTo after Close succeeds")
		}
	})
}

// TestNoticeErrors: what a notice's error matches goes by its code, and is one thing.
func TestNoticeErrors(t *testing.T) {
	all := []error{signaling.ErrReplaced, signaling.ErrDuplicate, signaling.ErrUnavailable, signaling.ErrRefused,
		signaling.ErrDraining, signaling.ErrTooLarge}
	for code, target := range map[signaling.Code]error{
		signaling.CodeReplaced: signaling.ErrReplaced, signaling.CodeDuplicate: signaling.ErrDuplicate,
		signaling.CodeUnavailable: signaling.ErrUnavailable, signaling.CodeRefused: signaling.ErrRefused,
		signaling.CodeWrongServer: signaling.ErrRefused, signaling.CodeVersion: signaling.ErrRefused,
		signaling.CodeProtocol: signaling.ErrRefused, signaling.CodeDraining: signaling.ErrDraining,
		signaling.CodeTooLarge: signaling.ErrTooLarge, signaling.CodeNotRegistered: nil, signaling.CodeRateLimited: nil,
	} {
		err := &signaling.NoticeError{Notice: signaling.Notice{Code: code}}
		for _, e := range all {
			if got := errors.Is(err, e); got != (e == target) {
				t.Errorf("%v matches %v: %v", code, e, got)
			}
		}
	}
}

// TestSealErrors: a key service that fails fails the envelope, and there is none.
func TestSealErrors(t *testing.T) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	service := &keyService{Signer: private}
	id, err := keys.NewIdentity("agent-a", service)
	if err != nil {
		t.Fatal(err)
	}
	e := signaling.Envelope{Kind: signaling.Offer, Mesh: "m", To: "agent-b", Instance: signaling.NewInstance()}
	if s, err := signaling.Seal(id, e); err != nil || s.Verify() != nil {
		t.Errorf("%v", err)
	}
	service.fail.Store(true)
	if s, err := signaling.Seal(id, e); !errors.Is(err, errKeyService) || s != nil {
		t.Errorf("%v, %v", s, err)
	}
	if s, err := signaling.Seal(nil, signaling.Envelope{Kind: signaling.Offer, Mesh: "m", To: "agent-b"}); err == nil || s != nil {
		t.Errorf("nobody's envelope: %v, %v", s, err)
	}
}

// TestBrokerTellsOnce: the others hear of a registration when the first member announces it
// and when the last withdraws it, whatever is said twice.
func TestBrokerTellsOnce(t *testing.T) {
	id, err := keys.Generate("agent-a")
	if err != nil {
		t.Fatal(err)
	}
	r := signaling.Registration{Mesh: "m", Agent: id.ID(), Key: id.PublicKey()}
	broker := signaling.NewBroker()
	heard := make([][]bool, 3)
	got := make([]int, 3)
	var members []signaling.BrokerMember
	for i := range heard {
		m, err := broker.Join(signaling.BrokerHandler{
			Presence: func(_ signaling.Registration, present bool) { heard[i] = append(heard[i], present) },
			Envelope: func(signaling.Registration, []byte) { got[i]++ },
		})
		if err != nil {
			t.Fatal(err)
		}
		members = append(members, m)
	}
	for _, step := range []struct {
		by      int
		present bool
	}{{0, true}, {0, true}, {1, true}, {0, false}, {0, false}, {1, false}} {
		if err := members[step.by].Announce(r, step.present); err != nil {
			t.Fatal(err)
		}
		if step.by == 1 && step.present {
			if err := members[2].Forward(r, []byte("x")); err != nil {
				t.Error(err)
			}
		}
	}
	want(t, "member 0 heard", heard[0], true, false)
	want(t, "member 1 heard", heard[1], true, false)
	want(t, "member 2 heard", heard[2], true, false)
	if got[0]+got[1] != 1 || got[2] != 0 {
		t.Errorf("an envelope came %v times", got)
	}
	for range 2 {
		if err := members[0].Close(); err != nil {
			t.Error(err)
		}
	}
	if err := members[0].Announce(r, true); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Announce after Close: %v", err)
	}
	if err := members[0].Forward(r, nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Forward after Close: %v", err)
	}
}

// TestConnectionEndsWithoutAWord: a connection that breaks has a reason, too.
func TestConnectionEndsWithoutAWord(t *testing.T) {
	inWorld(t, func(w *world) {
		s := w.serve("s1", signaling.ServerConfig{})
		a := w.client("agent-a", "ws://s1/").ready()
		s.listener.Close()
		w.net.Reset("s1")
		settle()
		downs := a.events(signaling.EventDown)
		if len(downs) != 1 || downs[0].Err == nil || a.Servers()[0].Err == nil {
			t.Errorf("%+v, %+v", downs, a.Servers())
		}
	})
}

// TestSilenceAfterAnEvent: a server that falls silent right after something came from it
// is given up like any other.
func TestSilenceAfterAnEvent(t *testing.T) {
	inWorld(t, func(w *world) {
		w.serve("s1", signaling.ServerConfig{})
		a := w.client("agent-a", "ws://s1/").ready()
		b := w.client("agent-b", "ws://s1/").ready()
		b.send("agent-a", "hello", nil)
		want(t, "a got", a.bodies(), "hello")
		w.net.Stall("s1")
		time.Sleep(3 * time.Minute)
		settle()
		if a.state(0) == signaling.StateOpen || len(a.events(signaling.EventDown)) == 0 {
			t.Errorf("after three minutes of silence: %+v", a.Servers())
		}
	})
}
