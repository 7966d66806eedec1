package signaling_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
)

// Two agents meet at a signaling server: one sends a signed envelope, the other
// verifies it.
func Example() {
	server, err := signaling.NewServer(signaling.ServerConfig{})
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()
	web := httptest.NewServer(server)
	defer web.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	connect := func(id string) (*keys.Identity, *signaling.Client) {
		identity, err := keys.Generate(id)
		if err != nil {
			log.Fatal(err)
		}
		client, err := signaling.NewClient(signaling.ClientConfig{
			Identity: identity, Mesh: "acme-prod", URLs: []string{web.URL},
		})
		if err != nil {
			log.Fatal(err)
		}
		if err := client.WaitReady(ctx); err != nil {
			log.Fatal(err)
		}
		return identity, client
	}
	idA, a := connect("agent-a")
	defer a.Close()
	_, b := connect("agent-b")
	defer b.Close()

	offer, err := signaling.Seal(idA, signaling.Envelope{
		Kind: signaling.Offer, Mesh: "acme-prod", To: "agent-b",
		Instance: a.Instance(), Body: []byte("an offer"),
	})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := a.Send(ctx, offer.Bytes(), 0); err != nil {
		log.Fatal(err)
	}
	for {
		event, err := b.Receive(ctx)
		if err != nil {
			log.Fatal(err)
		}
		if event.Kind != signaling.EventEnvelope {
			continue // up, joined, …
		}
		got, err := signaling.Parse(event.Envelope)
		if err != nil {
			log.Fatal(err)
		}
		if err := got.Verify(); err != nil {
			log.Fatal(err)
		}
		// Now a trust policy says whether got.Key may speak for got.From.
		fmt.Printf("%s from %s: %s\n", got.Kind, got.From, got.Body)
		return
	}
	// Output: offer from agent-a: an offer
}

// A server that admits the agents of a directory file only, mounted beside
// other handlers.
func ExampleNewServer() {
	directory, err := keys.NewDirectory(keys.DirectoryConfig{Path: "testdata/agents.txt"})
	if err != nil {
		log.Fatal(err)
	}
	server, err := signaling.NewServer(signaling.ServerConfig{
		Names: []string{"s1.example"},
		Trust: directory,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()

	rec := httptest.NewRecorder()
	server.ServeHTTP(rec, httptest.NewRequest("GET", "/health", nil))
	fmt.Println(rec.Code, rec.Body)
	// Output: 200 {"status":"ok"}
}

// A client is registered with several servers at once and fails over by itself.
func ExampleNewClient() {
	id, err := keys.LoadOrGenerate("agent-a.key", "agent-a")
	if err != nil {
		log.Fatal(err)
	}
	client, err := signaling.NewClient(signaling.ClientConfig{
		Identity: id,
		Mesh:     "acme-prod",
		URLs:     []string{"wss://s1.example/", "wss://s2.example/"},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := client.WaitReady(ctx); err != nil {
		log.Fatal(err)
	}
	for _, s := range client.Servers() {
		fmt.Println(s.URL, s.State)
	}
}

// Servers of one process share their agents; other brokers connect processes.
func ExampleNewBroker() {
	broker := signaling.NewBroker()
	for range 2 {
		server, err := signaling.NewServer(signaling.ServerConfig{Broker: broker})
		if err != nil {
			log.Fatal(err)
		}
		defer server.Close()
	}
}

// An envelope that was changed on the way does not verify.
func ExampleSealed_Verify() {
	id, err := keys.Generate("agent-a")
	if err != nil {
		log.Fatal(err)
	}
	sealed, err := signaling.Seal(id, signaling.Envelope{
		Kind: signaling.Offer, Mesh: "acme-prod", To: "agent-b",
		Instance: signaling.NewInstance(), Body: []byte("an offer"),
	})
	if err != nil {
		log.Fatal(err)
	}
	b := sealed.Bytes()
	b[len(b)-1] ^= 1 // within the signature
	changed, err := signaling.Parse(b)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(sealed.Verify() == nil, changed.Verify() == nil)
	// Output: true false
}

// TLS with a certificate that is replaced while the server runs.
func ExampleNewCertificateReloader() {
	reloader, err := signaling.NewCertificateReloader(signaling.CertificateReloaderConfig{
		CertFile: "tls.crt",
		KeyFile:  "tls.key",
		OnReload: func(err error) { log.Println("TLS certificate reloaded:", err) },
	})
	if err != nil {
		log.Fatal(err)
	}
	server, err := signaling.NewServer(signaling.ServerConfig{})
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()
	listener, err := net.Listen("tcp", ":8443")
	if err != nil {
		log.Fatal(err)
	}
	web := &http.Server{
		Handler:           server,
		TLSConfig:         reloader.TLSConfig(),
		ReadHeaderTimeout: 5 * time.Second,
	}
	log.Println(web.ServeTLS(listener, "", ""))
}
