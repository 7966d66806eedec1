package signaling_test

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
)

// raw is a client that keeps to no rule.
type raw struct {
	w        *world
	ws       *websocket.Conn
	id       *keys.Identity
	instance signaling.Instance
}

// dialRaw opens a WebSocket to a server.
func (w *world) dialRaw(server string) *raw {
	w.Helper()
	return w.forwarding(server, "")
}

// forwarding connects to a server with the Host header of another.
func (w *world) forwarding(server, host string) *raw {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), time.Minute)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, "ws://"+server+"/", &websocket.DialOptions{HTTPClient: w.net.HTTPClient(), Host: host})
	if err != nil {
		w.Fatal(err)
	}
	ws.SetReadLimit(-1)
	w.Cleanup(func() { ws.CloseNow() })
	return &raw{w: w, ws: ws, instance: signaling.NewInstance()}
}

// read returns the next message, or the error that ends the connection.
func (r *raw) read() (any, error) {
	ctx, cancel := context.WithTimeout(r.w.Context(), time.Hour)
	defer cancel()
	_, b, err := r.ws.Read(ctx)
	if err != nil {
		return nil, err
	}
	return signaling.DecodeMessage(b)
}

func (r *raw) write(b []byte) {
	r.w.Helper()
	ctx, cancel := context.WithTimeout(r.w.Context(), time.Hour)
	defer cancel()
	if err := r.ws.Write(ctx, websocket.MessageBinary, b); err != nil {
		r.w.Logf("write: %v", err)
	}
}

// challenge reads the first message.
func (r *raw) challenge() [32]byte {
	r.w.Helper()
	m, err := r.read()
	c, ok := m.(*signaling.ChallengeMsg)
	if !ok {
		r.w.Fatalf("instead of a challenge: %#v, %v", m, err)
	}
	return c.Nonce
}

// registration returns a correct one.
func (r *raw) registration(id *keys.Identity, server string, nonce [32]byte) *signaling.RegisterMsg {
	m := &signaling.RegisterMsg{
		Version: 1, Type: 2, Mesh: "m", Agent: id.ID(), Key: id.PublicKey().Bytes(), Instance: r.instance, Server: server,
	}
	r.sign(m, id, nonce)
	return m
}

func (r *raw) sign(m *signaling.RegisterMsg, id *keys.Identity, nonce [32]byte) {
	m.Sign(func(domain, mesh, from, to string, body []byte) []byte {
		sig, err := id.Sign(keys.Statement{Domain: domain, Mesh: mesh, From: from, To: to, Body: body})
		if err != nil {
			r.w.Fatal(err)
		}
		return sig
	}, nonce)
}

// rawClient registers a raw client with a server.
func (w *world) rawClient(id *keys.Identity, server string) *raw {
	w.Helper()
	r := w.dialRaw(server)
	r.id = id
	r.write(signaling.Encode(r.registration(id, server, r.challenge())))
	if m, err := r.read(); err != nil {
		w.Fatal(err)
	} else if _, ok := m.(*signaling.WelcomeMsg); !ok {
		w.Fatalf("instead of a welcome: %#v", m)
	}
	return r
}

// seal returns an envelope of the raw client.
func (r *raw) seal(to string, change func(*signaling.Envelope)) *signaling.Sealed {
	r.w.Helper()
	e := signaling.Envelope{Kind: signaling.Offer, Mesh: "m", To: to, Instance: r.instance, Body: []byte("x")}
	if change != nil {
		change(&e)
	}
	s, err := signaling.Seal(r.id, e)
	if err != nil {
		r.w.Fatal(err)
	}
	return s
}

// notice reads messages until a notice comes.
func (r *raw) notice() (signaling.Notice, error) {
	for {
		m, err := r.read()
		if err != nil {
			return signaling.Notice{}, err
		}
		if n, ok := m.(*signaling.NoticeMsg); ok {
			return n.Notice(), nil
		}
	}
}

// keepReading reads in the background, so that pongs arrive, until the
// connection ends.
func (r *raw) keepReading() (ended <-chan error) {
	ch := make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			if _, err := r.read(); err != nil {
				ch <- err
				return
			}
		}
	})
	r.w.Cleanup(func() { r.ws.CloseNow(); wg.Wait() })
	return ch
}

// wantEnd fails the test unless the next notice has the code and the
// connection then ends.
func (r *raw) wantEnd(code signaling.Code) {
	r.w.Helper()
	if n, err := r.notice(); err != nil || n.Code != code {
		r.w.Errorf("notice %v, %v; want %v", n, err, code)
		return
	}
	start := time.Now()
	if m, err := r.read(); err == nil {
		r.w.Errorf("after the notice: %#v", m)
	}
	if d := time.Since(start); d > time.Second {
		r.w.Errorf("the connection ended %v after the notice", d)
	}
}

// fakeServer is a server that keeps to no rule: play is called for each client
// that it has welcomed.
func (w *world) fakeServer(name string, welcome signaling.WelcomeMsg, play func(ctx context.Context, ws *websocket.Conn)) {
	w.Helper()
	l, err := w.net.Listen(name)
	if err != nil {
		w.Fatal(err)
	}
	welcome.Version, welcome.Type = 1, 3
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(w.Context())
	srv := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		wg.Add(1)
		defer wg.Done()
		ws, err := websocket.Accept(rw, r, nil)
		if err != nil {
			return
		}
		defer ws.CloseNow()
		ws.SetReadLimit(-1)
		ws.Write(ctx, websocket.MessageBinary, signaling.Encode(&signaling.ChallengeMsg{Version: 1, Type: 1, Nonce: [32]byte{1}}))
		if _, _, err := ws.Read(ctx); err != nil {
			return
		}
		ws.Write(ctx, websocket.MessageBinary, signaling.Encode(&welcome))
		play(ctx, ws)
	})}
	wg.Go(func() { srv.Serve(l) })
	w.Cleanup(func() { cancel(); srv.Close(); wg.Wait() })
}

// welcome is an ordinary one.
var welcome = signaling.WelcomeMsg{MaxEnvelope: signaling.MaxEnvelope, Idle: 60_000, Rate: 50, Burst: 200, Time: 946_684_800_000}
