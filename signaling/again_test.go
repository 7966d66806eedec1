package signaling_test

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
	"github.com/infrafabric/agentmesh/witness"
)

// TestRelayedIsRecorded: of offers, answers and candidates that were passed on there is
// a record, with what they belong to; of the rest there is none.
func TestRelayedIsRecorded(t *testing.T) {
	inWorld(t, func(w *world) {
		w.serve("s1", signaling.ServerConfig{})
		a, b := w.client("agent-a", "ws://s1/").ready(), w.client("agent-b", "ws://s1/").ready()
		offer := a.send("agent-b", "offer", nil)
		of := func(k signaling.Kind) func(e *signaling.Envelope) {
			return func(e *signaling.Envelope) { e.Kind, e.Ref, e.ToKey = k, offer.Hash(), b.id.PublicKey() }
		}
		answer := a.send("agent-b", "answer", of(signaling.Answer))
		a.send("agent-b", "candidate", of(signaling.Candidate))
		a.send("agent-b", "reject", of(signaling.Reject))
		want(t, "b got", b.bodies(), "offer", "answer", "candidate", "reject")
		for name, c := range map[witness.Name]struct{ sdp, offer string }{
			witness.SDPOfferRelayed:     {offer.Hash().String(), ""},
			witness.SDPAnswerRelayed:    {answer.Hash().String(), offer.Hash().String()},
			witness.ICECandidateRelayed: {"", offer.Hash().String()},
		} {
			all := w.log.named(name)
			if len(all) != 1 {
				t.Errorf("%s was recorded %d times", name, len(all))
				continue
			}
			e := all[0]
			ref, _ := e.Metadata["offer_hash"].(string)
			if e.AgentID != "agent-a" || e.PeerID != "agent-b" || e.SDPHash != c.sdp || ref != c.offer || e.Metadata["mesh"] != "m" {
				t.Errorf("%s: %+v", name, e)
			}
		}
		relayed := 0
		for _, e := range w.log.all {
			if e.PeerID == "agent-b" && e.AgentID == "agent-a" {
				relayed++
			}
		}
		if relayed != 3 {
			t.Errorf("%d events of a to b", relayed)
		}
	})
}

// scripted is a broker that tells of one agent elsewhere, may hang or fail, and keeps what it hears.
type scripted struct {
	elsewhere *signaling.Registration
	hold      chan struct{} // Announce waits for it, unless it is nil
	fails     error

	mu    sync.Mutex
	heard []bool
}

func (b *scripted) Join(h signaling.BrokerHandler) (signaling.BrokerMember, error) {
	if b.elsewhere != nil {
		h.Presence(*b.elsewhere, true)
	}
	return b, nil
}

func (b *scripted) Announce(_ signaling.Registration, present bool) error {
	b.mu.Lock()
	b.heard = append(b.heard, present)
	hold := b.hold
	b.mu.Unlock()
	if hold != nil {
		<-hold
	}
	return b.fails
}

func (b *scripted) hangs() (end func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	hold := make(chan struct{})
	b.hold = hold
	return func() { close(hold) }
}

func (b *scripted) Forward(signaling.Registration, []byte) error { return b.fails }
func (b *scripted) Close() error                                 { return nil }

func (b *scripted) all() []bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.heard)
}

// TestBrokerDoesNotForward: an envelope that a broker does not take is not passed on, and the
// sender hears it.
func TestBrokerDoesNotForward(t *testing.T) {
	for _, fails := range []error{nil, errNoBroker} {
		inWorld(t, func(w *world) {
			b := w.identity("agent-b")
			broker := &scripted{elsewhere: &signaling.Registration{Mesh: "m", Agent: "agent-b", Key: b.PublicKey()}, fails: fails}
			w.serve("s1", signaling.ServerConfig{Broker: broker})
			a := w.client("agent-a", "ws://s1/").ready()
			a.send("agent-b", "x", nil)
			n := len(w.log.named(witness.SDPOfferRelayed))
			if fails == nil {
				want(t, "a was told", a.codes())
			} else {
				want(t, "a was told", a.codes(), signaling.CodeRateLimited)
			}
			if (n == 1) != (fails == nil) {
				t.Errorf("%v: recorded %d times", fails, n)
			}
			want(t, "the broker heard", broker.all(), true)
		})
	}
}

// TestBrokerHearsTheLast: what changes while a broker is being told is told afterwards, once and
// in the end truly, also to one that fails.
func TestBrokerHearsTheLast(t *testing.T) {
	for _, fails := range []error{nil, errNoBroker} {
		for back, heard := range map[bool][]bool{false: {true, false}, true: {true}} {
			inWorld(t, func(w *world) {
				broker := &scripted{hold: make(chan struct{}), fails: fails}
				w.serve("s1", signaling.ServerConfig{Broker: broker})
				id := w.identity("agent-a")
				a := w.clientWith(signaling.ClientConfig{Identity: id, URLs: []string{"ws://s1/"}})
				settle()
				want(t, "the broker heard", broker.all(), true)
				a.Close()
				settle()
				if back {
					w.clientWith(signaling.ClientConfig{Identity: id, URLs: []string{"ws://s1/"}})
				}
				settle()
				want(t, "while it hung the broker heard", broker.all(), true)
				close(broker.hold)
				settle()
				want(t, "the broker heard in the end", broker.all(), heard...)
			})
		}
	}
}

// TestBrokerHearsOfTheNext: an agent that is back while a broker is being told that it has left is
// announced as soon as that is over.
func TestBrokerHearsOfTheNext(t *testing.T) {
	inWorld(t, func(w *world) {
		broker := new(scripted)
		w.serve("s1", signaling.ServerConfig{Broker: broker})
		id := w.identity("agent-a")
		a := w.clientWith(signaling.ClientConfig{Identity: id, URLs: []string{"ws://s1/"}}).ready()
		end := broker.hangs()
		a.Close()
		settle()
		want(t, "the broker heard", broker.all(), true, false)
		w.clientWith(signaling.ClientConfig{Identity: id, URLs: []string{"ws://s1/"}}).ready()
		want(t, "while it hung the broker heard", broker.all(), true, false)
		end()
		settle()
		want(t, "in the end the broker heard", broker.all(), true, false, true)
	})
}

// TestDuplicateOfNobody: a server that calls its only connection a duplicate is asked again
// after the time of a connection attempt, and at once when the network is another.
func TestDuplicateOfNobody(t *testing.T) {
	inWorld(t, func(w *world) {
		var asked atomic.Int32
		w.fakeServer("s1", welcome, func(ctx context.Context, ws *websocket.Conn) {
			asked.Add(1)
			ws.Write(ctx, websocket.MessageBinary, signaling.EncodeNotice(signaling.Notice{Code: signaling.CodeDuplicate, Text: "twice"}))
		})
		a := w.clientWith(signaling.ClientConfig{Identity: w.identity("agent-a"), URLs: []string{"ws://s1/"}, ConnectTimeout: 10 * time.Second})
		settle()
		for _, step := range []struct {
			after   time.Duration
			refresh bool
			asked   int32
		}{{0, false, 1}, {9 * time.Second, false, 1}, {time.Second, false, 2}, {time.Second, false, 2}, {0, true, 3}, {9 * time.Second, false, 3}} {
			time.Sleep(step.after)
			if step.refresh {
				a.Refresh()
			}
			settle()
			if s := a.Servers()[0]; asked.Load() != step.asked || s.State != signaling.StateDuplicate || !errors.Is(s.Err, signaling.ErrDuplicate) {
				t.Errorf("after %+v: asked %d times, %+v", step, asked.Load(), s)
			}
		}
	})
}

// TestWeakKeyOfAnAgent: a server that tells of an agent whose key anybody could forge for has
// broken the protocol.
func TestWeakKeyOfAnAgent(t *testing.T) {
	weak := append([]byte{1}, make([]byte, 31)...)
	for _, change := range []uint64{1, 2} {
		inWorld(t, func(w *world) {
			good := w.identity("agent-b").PublicKey().Bytes()
			key := good
			w.fakeServer("s1", welcome, func(ctx context.Context, ws *websocket.Conn) {
				ws.Write(ctx, websocket.MessageBinary, signaling.Encode(&signaling.PresenceMsg{Version: 1, Type: 5, Change: change,
					Agents: []signaling.MemberMsg{{Agent: "agent-b", Key: key}}}))
				ws.Read(ctx)
			})
			for _, c := range []struct {
				key    []byte
				events int
				state  signaling.State
			}{{good, 1, signaling.StateOpen}, {weak, 0, signaling.StateWaiting}} {
				key = c.key
				a := w.client("agent-a", "ws://s1/")
				settle()
				n := len(a.events(signaling.EventJoined)) + len(a.events(signaling.EventLeft))
				if s := a.Servers()[0]; s.State != c.state || n != c.events {
					t.Errorf("change %d, key %x: %+v, %d events", change, c.key[:2], s, n)
				} else if c.events == 0 && !strings.Contains(s.Err.Error(), "key") {
					t.Errorf("%v", s.Err)
				}
				a.Close()
			}
		})
	}
}

// TestShutdownMeetsANewcomer: who is being asked about when the server begins to shut down is told
// so, and never counted in.
func TestShutdownMeetsANewcomer(t *testing.T) {
	inWorld(t, func(w *world) {
		hold := make(chan struct{})
		s := w.serve("s1", signaling.ServerConfig{Trust: policy(func(ctx context.Context, _ keys.Claim) (keys.Verdict, error) {
			<-hold
			return keys.Verdict{Decision: keys.Yes}, nil
		})})
		id := w.identity("agent-a")
		r := w.dialRaw("s1")
		r.write(signaling.Encode(r.registration(id, "s1", r.challenge())))
		settle()
		ended := make(chan error, 1)
		go func() { ended <- s.Shutdown(context.Background()) }()
		settle()
		close(hold)
		r.wantEnd(signaling.CodeDraining)
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if n := len(w.log.named(witness.AgentRegistered)); n != 0 {
			t.Errorf("registered %d times", n)
		}
	})
}

// slowKey signs when it is let.
type slowKey struct {
	crypto.Signer
	let chan struct{}
}

func (k *slowKey) Sign(r io.Reader, text []byte, opts crypto.SignerOpts) ([]byte, error) {
	<-k.let
	return k.Signer.Sign(r, text, opts)
}

// TestCloseWaits: after Close nothing of the client runs, not even in a key service.
func TestCloseWaits(t *testing.T) {
	inWorld(t, func(w *world) {
		w.serve("s1", signaling.ServerConfig{})
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		key := &slowKey{private, make(chan struct{})}
		id, err := keys.NewIdentity("agent-a", key)
		if err != nil {
			t.Fatal(err)
		}
		a := w.clientWith(signaling.ClientConfig{Identity: id, URLs: []string{"ws://s1/"}})
		settle()
		closed := make(chan struct{})
		go func() { a.Close(); close(closed) }()
		settle()
		select {
		case <-closed:
			t.Error("Close did not wait")
		default:
		}
		close(key.let)
		<-closed
	})
}

// countedConn counts how often it is closed.
type countedConn struct {
	net.Conn
	closed *atomic.Int32
}

func (c countedConn) Close() error {
	c.closed.Add(1)
	return c.Conn.Close()
}

// TestConnectionThatComesTooLate: a connection that a dialer returns after the attempt has ended
// is closed, and not the only one that would have been used.
func TestConnectionThatComesTooLate(t *testing.T) {
	inWorld(t, func(w *world) {
		w.serve("s1", signaling.ServerConfig{})
		hold, closed := make(chan struct{}), new(atomic.Int32)
		tr := &http.Transport{DialContext: func(_ context.Context, network, addr string) (net.Conn, error) {
			<-hold
			conn, err := w.net.DialContext(w.Context(), network, addr)
			return countedConn{conn, closed}, err
		}}
		a := w.clientWith(signaling.ClientConfig{Identity: w.identity("agent-a"), URLs: []string{"ws://s1/"},
			HTTPClient: &http.Client{Transport: tr}, ConnectTimeout: time.Second})
		time.Sleep(1500 * time.Millisecond)
		settle()
		if s := a.Servers()[0]; s.State == signaling.StateOpen || !errors.Is(s.Err, context.DeadlineExceeded) {
			t.Errorf("%+v", s)
		}
		a.Close()
		close(hold)
		settle()
		if closed.Load() == 0 {
			t.Error("it stays open")
		}
	})
}

// TestProxyProtocol: what is spoken with a proxy behind TLS is HTTP/1.1, whatever the caller's
// configuration offers to servers.
func TestProxyProtocol(t *testing.T) {
	cert, trusting := certificate(t)
	inWorld(t, func(w *world) {
		w.serve("s1", signaling.ServerConfig{})
		l, err := w.net.Listen("127.0.0.1:3129")
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var offered [][]string
		p := &proxy{dial: w.net.DialContext}
		srv := &http.Server{Handler: p}
		p.wg.Go(func() {
			srv.Serve(tls.NewListener(l, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
				mu.Lock()
				defer mu.Unlock()
				offered = append(offered, h.SupportedProtos)
				return &tls.Config{Certificates: []tls.Certificate{*cert}, NextProtos: []string{"h2", "http/1.1"}}, nil
			}}))
		})
		w.Cleanup(func() { srv.Close(); l.Close(); p.wg.Wait() })
		cfg := trusting.Clone()
		cfg.NextProtos = []string{"h2", "http/1.1"}
		a := w.clientWith(signaling.ClientConfig{Identity: w.identity("agent-a"), URLs: []string{"ws://s1/"},
			HTTPClient: w.through("https://127.0.0.1:3129", cfg)})
		settle()
		mu.Lock()
		defer mu.Unlock()
		if s := a.Servers()[0]; s.State != signaling.StateOpen || len(offered) != 1 || len(offered[0]) != 0 {
			t.Errorf("%v, %v, offered %q", s.State, s.Err, offered)
		}
		if len(cfg.NextProtos) != 2 {
			t.Error("the caller's configuration was changed")
		}
	})
}

// TestStatsAreInOrder: the agents that a server lists are in the order of their names, each once.
func TestStatsAreInOrder(t *testing.T) {
	inWorld(t, func(w *world) {
		w.serve("s1", signaling.ServerConfig{})
		var ids []string
		for i := range 20 {
			ids = append(ids, fmt.Sprintf("agent-%02d", i))
		}
		for _, i := range []int{7, 3, 19, 0, 12, 5, 1, 16, 9, 2, 18, 4, 11, 6, 17, 8, 15, 10, 14, 13, 13} {
			w.client(ids[i], "ws://s1/").ready()
		}
		_, body := w.get("http://s1/stats", "")
		var got struct {
			Agents      []string `json:"agents"`
			TotalAgents int      `json:"total_agents"`
			Connections int      `json:"connections"`
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil || !slices.Equal(got.Agents, ids) || got.TotalAgents != 20 || got.Connections != 21 {
			t.Errorf("%v, %s", err, body)
		}
	})
}

// TestLargestEnvelope: an envelope may be as large as the server's limit.
func TestLargestEnvelope(t *testing.T) {
	for more, want := range map[int]error{0: nil, 1: signaling.ErrTooLarge} {
		inWorld(t, func(w *world) {
			limited := welcome
			id := w.identity("agent-a")
			limited.MaxEnvelope = 1000
			w.fakeServer("s1", limited, func(ctx context.Context, ws *websocket.Conn) {
				for {
					if _, _, err := ws.Read(ctx); err != nil {
						return
					}
				}
			})
			a := w.clientWith(signaling.ClientConfig{Identity: id, URLs: []string{"ws://s1/"}}).ready()
			e := a.offer("agent-b", "", nil)
			e = a.offer("agent-b", strings.Repeat("x", 1000-len(e.Bytes())+more), nil)
			for len(e.Bytes()) > 1000+more { // its length has grown as well
				e = a.offer("agent-b", string(e.Body[1:]), nil)
			}
			if len(e.Bytes()) != 1000+more {
				t.Fatalf("%d bytes", len(e.Bytes()))
			}
			if err := a.SendTo(w.Context(), e.Bytes(), "ws://s1/"); !errors.Is(err, want) {
				t.Errorf("SendTo %d bytes: %v", len(e.Bytes()), err)
			}
			if _, err := a.Send(w.Context(), e.Bytes(), 0); !errors.Is(err, want) {
				t.Errorf("Send %d bytes: %v", len(e.Bytes()), err)
			}
		})
	}
}

// TestNameInTLS: the name that a transport's configuration gives is the one that is verified.
func TestNameInTLS(t *testing.T) {
	cert, trusting := certificate(t)
	for name, open := range map[string]bool{"127.0.0.1": true, "": false} {
		inWorld(t, func(w *world) {
			w.serve("s1", signaling.ServerConfig{})
			w.proxyAt("proxy:3129", &proxy{}, cert)
			cfg := trusting.Clone()
			cfg.ServerName = name
			a := w.clientWith(signaling.ClientConfig{Identity: w.identity("agent-a"), URLs: []string{"ws://s1/"},
				HTTPClient: w.through("https://proxy:3129", cfg)})
			settle()
			if s := a.Servers()[0]; (s.State == signaling.StateOpen) != open {
				t.Errorf("%q: %v, %v", name, s.State, s.Err)
			}
		})
	}
}
