package mesh_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/mesh"
	"github.com/infrafabric/agentmesh/signaling"
	"github.com/infrafabric/agentmesh/turn"
)

// exampleConfig is a Config for examples on one machine.
func exampleConfig(id *keys.Identity, trust keys.Trust, server string) mesh.Config {
	loopback, err := mesh.LoopbackNet()
	if err != nil {
		log.Fatal(err)
	}
	return mesh.Config{Identity: id, Trust: trust, Signaling: []string{server}, Net: loopback}
}

// exampleServer starts a signaling server on a free loopback port.
func exampleServer() (url string, stop func()) {
	s, err := signaling.NewServer(signaling.ServerConfig{})
	if err != nil {
		log.Fatal(err)
	}
	web := httptest.NewServer(s)
	return strings.Replace(web.URL, "http", "ws", 1), func() { s.Close(); web.Close() }
}

func generate(name string) *keys.Identity {
	id, err := keys.Generate(name)
	if err != nil {
		log.Fatal(err)
	}
	return id
}

// Two agents: one listens and answers, the other dials.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	url, stop := exampleServer()
	defer stop()

	// agent-b answers every message.
	b, err := mesh.Listen(ctx, exampleConfig(generate("agent-b"), keys.TrustAny, url))
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	go func() {
		peer, err := b.Accept(ctx)
		if err != nil {
			return
		}
		for {
			m, err := peer.Receive(ctx)
			if err != nil {
				return
			}
			reply := mesh.Message{Performative: "agree", CitationIDs: []string{m.ID}, Payload: m.Payload}
			if err := peer.Send(ctx, reply); err != nil {
				return
			}
		}
	}()

	a, err := mesh.Listen(ctx, exampleConfig(generate("agent-a"), keys.TrustAny, url))
	if err != nil {
		log.Fatal(err)
	}
	defer a.Close()
	peer, err := a.Dial(ctx, "agent-b")
	if err != nil {
		log.Fatal(err)
	}
	if err := peer.Send(ctx, mesh.Message{Performative: "request", Payload: json.RawMessage(`{"restart": "db-3"}`)}); err != nil {
		log.Fatal(err)
	}
	m, err := peer.Receive(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(m.Source, m.Performative, string(m.Payload))
	// Output: agent-b agree {"restart":"db-3"}
}

// A Handler takes messages as a web server takes requests.
func ExampleConfig_handler() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	url, stop := exampleServer()
	defer stop()

	got := make(chan string)
	cfg := exampleConfig(generate("agent-b"), keys.TrustAny, url)
	cfg.Handler = func(_ context.Context, p *mesh.Peer, m mesh.Message) {
		got <- p.ID() + " says " + string(m.Payload)
	}
	b, err := mesh.Listen(ctx, cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()

	// Dial makes a Node of its own that lives as long as the Peer.
	peer, err := mesh.Dial(ctx, "agent-b", exampleConfig(generate("agent-a"), keys.TrustAny, url))
	if err != nil {
		log.Fatal(err)
	}
	if err := peer.Send(ctx, mesh.Message{Payload: json.RawMessage(`"hello"`)}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-got)
	if err := peer.Flush(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println("delivered; closing:", peer.Close())
	// Output:
	// agent-a says "hello"
	// delivered; closing: <nil>
}

// What was not delivered when a Peer closes is reported by ID.
func ExamplePeer_Close() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	url, stop := exampleServer()
	defer stop()
	b, err := mesh.Listen(ctx, exampleConfig(generate("agent-b"), keys.TrustAny, url))
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	peer, err := mesh.Dial(ctx, "agent-b", exampleConfig(generate("agent-a"), keys.TrustAny, url))
	if err != nil {
		log.Fatal(err)
	}
	// agent-b never receives it.
	if err := peer.Send(ctx, mesh.Message{ID: "order-66"}); err != nil {
		log.Fatal(err)
	}
	var lost *mesh.UndeliveredError
	if errors.As(peer.Close(), &lost) {
		fmt.Println("not delivered:", lost.IDs)
	}
	err = peer.Send(ctx, mesh.Message{})
	fmt.Println("closed:", errors.Is(err, net.ErrClosed))
	// Output:
	// not delivered: [order-66]
	// closed: true
}

// A message keeps its proof in JSON and can be verified by anybody who knows
// the author's key.
func ExampleMessage_Verify() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	url, stop := exampleServer()
	defer stop()
	b, err := mesh.Listen(ctx, exampleConfig(generate("agent-b"), keys.TrustAny, url))
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	peer, err := mesh.Dial(ctx, "agent-b", exampleConfig(generate("agent-a"), keys.TrustAny, url))
	if err != nil {
		log.Fatal(err)
	}
	defer peer.Close()
	if err := peer.Send(ctx, mesh.Message{Payload: json.RawMessage(`{"amount": 9007199254740993}`)}); err != nil {
		log.Fatal(err)
	}
	incoming, err := b.Accept(ctx)
	if err != nil {
		log.Fatal(err)
	}
	m, err := incoming.Receive(ctx)
	if err != nil {
		log.Fatal(err)
	}

	archived, err := m.AppendJSON(nil)
	if err != nil {
		log.Fatal(err)
	}
	var read mesh.Message
	if err := read.UnmarshalJSON(archived); err != nil {
		log.Fatal(err)
	}
	fmt.Println("as archived:", read.Verify(ctx, "default", keys.TrustAny))
	read.Payload = json.RawMessage(`{"amount":9007199254740992}`)
	fmt.Println("changed:", errors.Is(read.Verify(ctx, "default", keys.TrustAny), keys.ErrBadSignature))
	// Output:
	// as archived: <nil>
	// changed: true
}

// Messages join the trace of the context they are sent with.
func ExampleConfig_traceID() {
	cfg := mesh.Config{
		TraceID: func(ctx context.Context) string {
			if sc := trace.SpanContextFromContext(ctx); sc.HasTraceID() {
				return sc.TraceID().String()
			}
			return ""
		},
	}
	sc := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{0x4b, 0xf9}, SpanID: trace.SpanID{1}})
	fmt.Println(cfg.TraceID(trace.ContextWithSpanContext(context.Background(), sc)))
	// Output: 4bf90000000000000000000000000000
}

// A private certificate authority or a proxy for signaling goes into the HTTP
// client, the network interfaces to use into Net.
func ExampleConfig() {
	proxied := http.DefaultTransport.(*http.Transport).Clone()
	proxied.Proxy = http.ProxyFromEnvironment
	loopback, err := mesh.LoopbackNet()
	if err != nil {
		log.Fatal(err)
	}
	cfg := mesh.Config{
		Identity:   generate("agent-a"),
		Mesh:       "acme-prod",
		Signaling:  []string{"wss://s1.example/", "wss://s2.example/"},
		STUN:       []string{"stun:stun.example:3478"},
		HTTPClient: &http.Client{Transport: proxied},
		Net:        loopback,
	}
	_, err = mesh.Listen(context.Background(), cfg)
	var invalid *mesh.ConfigError
	fmt.Println(errors.As(err, &invalid), invalid.Field)
	// Output: true Trust
}

// A caller that has something else to do when nobody is there.
func ExampleNode_TryDial() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	url, stop := exampleServer()
	defer stop()
	n, err := mesh.Listen(ctx, exampleConfig(generate("agent-a"), keys.TrustAny, url))
	if err != nil {
		log.Fatal(err)
	}
	defer n.Close()
	_, err = n.TryDial(ctx, "agent-b")
	fmt.Println(errors.Is(err, mesh.ErrAbsent))
	// Output: true
}

// A Peer tells what happens to it: an operator's log, or the state of a user
// interface.
func ExamplePeer_Changes() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	url, stop := exampleServer()
	defer stop()
	a, err := mesh.Listen(ctx, exampleConfig(generate("agent-a"), keys.TrustAny, url))
	if err != nil {
		log.Fatal(err)
	}
	defer a.Close()
	b, err := mesh.Listen(ctx, exampleConfig(generate("agent-b"), keys.TrustAny, url))
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	peer, err := a.Dial(ctx, "agent-b")
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		if err := peer.Replace(ctx); err != nil {
			log.Print(err)
		}
		peer.Close()
	}()
	for c := range peer.Changes(ctx) {
		fmt.Println(c.State, "because of", c.Reason)
	}

	// Output:
	// connected because of dial
	// replacing because of requested
	// connected because of requested
	// closed because of ended
}

// Replace gives a Peer a new session, with new keys, under the feet of the
// application: messages go on meanwhile.
func ExamplePeer_Replace() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	url, stop := exampleServer()
	defer stop()
	cfg := exampleConfig(generate("agent-b"), keys.TrustAny, url)
	got := make(chan string, 3)
	cfg.Handler = func(_ context.Context, _ *mesh.Peer, m mesh.Message) { got <- string(m.Payload) }
	b, err := mesh.Listen(ctx, cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	peer, err := mesh.Dial(ctx, "agent-b", exampleConfig(generate("agent-a"), keys.TrustAny, url))
	if err != nil {
		log.Fatal(err)
	}
	defer peer.Close()
	for i := range 3 {
		if err := peer.Send(ctx, mesh.Message{Payload: fmt.Appendf(nil, "%d", i)}); err != nil {
			log.Fatal(err)
		}
		if err := peer.Replace(ctx); err != nil {
			log.Fatal(err)
		}
		fmt.Println(<-got, peer.Status().State)
	}

	// Output:
	// 0 connected
	// 1 connected
	// 2 connected
}

// A policy for agents that must not wait: doubt after a second, a partition after
// five, and five attempts.
func ExampleRecovery() {
	cfg := mesh.Config{
		Recovery: mesh.Recovery{
			SuspectAfter:   time.Second,
			PartitionAfter: 5 * time.Second,
			Backoff:        500 * time.Millisecond,
			Attempts:       5,
		},
	}
	fmt.Println(cfg.Recovery.Attempts, "attempts after", cfg.Recovery.PartitionAfter)
	// Output: 5 attempts after 5s
}

// Relays for agents between which there is no direct path. The pool probes both
// servers, fetches new credentials in time, and can be told of others while it runs.
// First contact takes a relay after two seconds.
func ExampleRelays() {
	credentials := turn.SharedSecret("the secret of the servers", "agent-a", time.Hour)
	pool, err := turn.NewPool(turn.PoolConfig{Endpoints: []turn.Endpoint{
		{URL: "turn:127.0.0.1:3478?transport=udp", Credentials: credentials},
		{URL: "turns:localhost:443?transport=tcp", Credentials: credentials}, // where UDP is blocked
	}})
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	cfg := mesh.Config{TURN: pool, Paths: mesh.Paths{RelayAfter: 2 * time.Second}}
	for _, r := range cfg.TURN.Rank(context.Background()) {
		fmt.Println(r)
	}
	// Unordered output:
	// turn:127.0.0.1:3478?transport=udp
	// turns:localhost:443?transport=tcp
}

// An agent whose addresses neither peers nor signaling servers learn, and which wants
// no standby session.
func ExamplePaths() {
	cfg := mesh.Config{
		Paths: mesh.Paths{RelayOnly: true, StandbyAfter: mesh.Never},
	}
	fmt.Println(cfg.Paths.RelayOnly)
	// Output: true
}

// Only the interfaces whose names begin with eth, no IPv6, and UDP ports that a
// firewall lets in.
func ExampleFilterNet() {
	n, err := mesh.FilterNet(nil, mesh.NetFilter{
		Interface: func(name string) bool { return strings.HasPrefix(name, "eth") },
		Address:   netip.Addr.Is4,
		MinPort:   40000,
		MaxPort:   40999,
	})
	if err != nil {
		log.Fatal(err)
	}
	cfg := mesh.Config{Net: n}
	fmt.Println(cfg.Net != nil)
	// Output: true
}

// Only some addresses: here those of the loopback interface.
func ExampleNetFilter() {
	n, err := mesh.FilterNet(nil, mesh.NetFilter{Address: netip.MustParsePrefix("127.0.0.0/8").Contains})
	if err != nil {
		log.Fatal(err)
	}
	left, err := n.Interfaces()
	if err != nil {
		log.Fatal(err)
	}
	addrs, err := left[0].Addrs()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(left), addrs)
	// Output: 1 [127.0.0.1/8]
}

// A network that blocks UDP and lets out only what goes through an HTTP proxy:
// signaling takes the proxy. Direct paths use TCP, to agents that listen on it.
func ExampleConfig_blockedUDP() {
	proxy, err := url.Parse("http://proxy.example:3128")
	if err != nil {
		log.Fatal(err)
	}
	cfg := mesh.Config{
		Signaling:  []string{"wss://s1.example/"},
		HTTPClient: &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(proxy)}},
		TCP:        true,
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0") // at the other agent
	if err != nil {
		log.Fatal(err)
	}
	defer listener.Close()
	other := mesh.Config{Signaling: []string{"wss://s1.example/"}, TCPListener: listener}
	fmt.Println(cfg.TCP, other.TCPListener.Addr().Network())
	// Output: true tcp
}
