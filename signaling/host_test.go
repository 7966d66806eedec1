package signaling_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"testing"

	"github.com/infrafabric/agentmesh/signaling"
)

// dialling returns a client that reaches the server of that name whatever it dials.
func (w *world) dialling(name string) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return w.net.DialContext(ctx, network, name)
	}}}
}

// TestAnyHost: whatever a host looks like, client and server mean the same name.
func TestAnyHost(t *testing.T) {
	for url, name := range map[string]string{
		"ws://bücher.example:8443/":                     "bücher.example:8443",
		"ws://B%C3%9CCHER.example/":                     "xn--bcher-kva.example",
		"ws://[fe80::1%25eth0]:8443/":                   "[fe80::1]:8443",
		"ws://[FE80:0::1%25eth0]/":                      "[fe80::1]",
		"ws://S1.Example:/":                             "s1.example",
		"ws://s1.example./":                             "S1.example.",
		"ws://s1.example:08080/":                        "s1.example:8080",
		"ws://me:s3cret@s1.example:80/?token=s3cret%2F": "s1.example",
	} {
		t.Run(url, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.serve("s1", signaling.ServerConfig{Names: []string{name}})
				w.clientWith(signaling.ClientConfig{Identity: w.identity("agent-a"), URLs: []string{url},
					HTTPClient: w.dialling("s1")}).ready()
			})
		})
	}
}

// TestZoneBehindTLS: a certificate names an address without its zone.
func TestZoneBehindTLS(t *testing.T) {
	cert, trusting := certificate(t)
	inWorld(t, func(w *world) {
		s, err := signaling.NewServer(signaling.ServerConfig{Names: []string{"[fe80::1]:8443"}})
		if err != nil {
			t.Fatal(err)
		}
		l, err := w.net.Listen("s1")
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: s}
		var wg sync.WaitGroup
		wg.Go(func() { srv.Serve(tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{*cert}})) })
		w.Cleanup(func() { l.Close(); s.Close(); srv.Close(); wg.Wait() })
		hc := w.dialling("s1")
		hc.Transport.(*http.Transport).TLSClientConfig = trusting
		w.clientWith(signaling.ClientConfig{Identity: w.identity("agent-a"), URLs: []string{"wss://[fe80::1%25eth0]:8443/"}, HTTPClient: hc}).ready()
	})
}
