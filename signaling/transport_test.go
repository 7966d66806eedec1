package signaling_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
)

// TestNothingIsLeft: a bubble ends only when every goroutine has, so this fails if
// net/http keeps a connection, or goes on making one, after Close. Close is prompt,
// whatever the attempt is busy with.
func TestNothingIsLeft(t *testing.T) {
	_, trusting := certificate(t)
	for name, c := range map[string]struct {
		url    string
		change func(w *world, tr *http.Transport)
	}{
		"no WebSocket":          {"ws://web/", nil},
		"nobody listens":        {"ws://nowhere/", nil},
		"accepted, silent":      {"ws://silent/", nil},
		"accepted, silent, TLS": {"wss://silent:80/", nil},
		"packets are dropped":   {"ws://hole/", nil},
		"a proxy that is silent": {"ws://web/", func(w *world, tr *http.Transport) {
			tr.Proxy = func(r *http.Request) (*url.URL, error) {
				if r.URL.Host == "web" {
					return &url.URL{Scheme: "http", Host: "silent"}, nil
				}
				return nil, nil
			}
		}},
		"the default transport's settings": {"ws://silent/", func(w *world, tr *http.Transport) {
			dial := tr.DialContext
			*tr = *http.DefaultTransport.(*http.Transport).Clone()
			tr.DialContext, tr.TLSClientConfig = dial, trusting
		}},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				l, err := w.net.Listen("silent")
				if err != nil {
					t.Fatal(err)
				}
				var wg sync.WaitGroup
				wg.Go(func() {
					for {
						conn, err := l.Accept()
						if err != nil {
							return
						}
						w.Cleanup(func() { conn.Close() })
					}
				})
				w.Cleanup(func() { l.Close(); wg.Wait() })
				w.net.Stall("hole")
				web, err := w.net.Listen("web")
				if err != nil {
					t.Fatal(err)
				}
				srv := &http.Server{Handler: http.NotFoundHandler()}
				wg.Go(func() { srv.Serve(web) })
				w.Cleanup(func() { srv.Close(); web.Close() })

				tr := &http.Transport{DialContext: w.net.DialContext}
				if c.change != nil {
					c.change(w, tr)
				}
				// The second server is soon tried, whatever the first does.
				w.serve("s2", signaling.ServerConfig{})
				a := w.clientWith(signaling.ClientConfig{Identity: w.identity("agent-a"), MaxServers: 1,
					URLs: []string{c.url, "ws://s2/"}, HTTPClient: &http.Client{Transport: tr}})
				ctx, cancel := context.WithTimeout(w.Context(), 8*time.Second)
				defer cancel()
				if err := a.WaitReady(ctx); err != nil {
					t.Error(err)
				}
				time.Sleep(2 * time.Second) // an attempt is under way, or over
				start := time.Now()
				a.Close()
				if d := time.Since(start); d > 100*time.Millisecond {
					t.Errorf("Close took %v", d)
				}
			})
		})
	}
}

// TestCloseWhileNamesHang: a name server that does not answer, asked by a resolver
// that ends with nothing, keeps neither WaitReady nor Close.
func TestCloseWhileNamesHang(t *testing.T) {
	inWorld(t, func(w *world) {
		hung := make(chan struct{})
		hc := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
			<-hung
			near, far := net.Pipe()
			w.Cleanup(func() { far.Close() })
			return near, nil // the attempt is over: it closes this
		}}}
		a := w.clientWith(signaling.ClientConfig{Identity: w.identity("agent-a"), URLs: []string{"ws://s1/"}, HTTPClient: hc})
		start := time.Now()
		ctx, cancel := context.WithTimeout(w.Context(), time.Second)
		defer cancel()
		if err := a.WaitReady(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "ws://s1/: no answer yet") {
			t.Error(err)
		}
		a.Close()
		if d := time.Since(start); d != time.Second {
			t.Errorf("WaitReady and Close took %v", d)
		}
		close(hung)
		settle() // who dialled ends, or the bubble does not
	})
}

// TestWhatHTTPAnswered: the reason that a server of ours gives is told.
func TestWhatHTTPAnswered(t *testing.T) {
	inWorld(t, func(w *world) {
		w.serve("s1", signaling.ServerConfig{Limits: signaling.ServerLimits{Connections: 1}})
		w.client("agent-a", "ws://s1/").ready()
		b := w.client("agent-b", "ws://s1/?s3cret")
		settle()
		err := b.Servers()[0].Err
		if err == nil || !strings.Contains(err.Error(), "503") || !strings.Contains(err.Error(), "too many connections") ||
			strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%v", err)
		}
	})
}

// TestPassingDialErrors: a machine that is out of descriptors, buffers or ports for a
// while has its connection soon after it has some again.
func TestPassingDialErrors(t *testing.T) {
	for _, short := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL, syscall.EPERM} {
		inWorld(t, func(w *world) {
			w.serve("s1", signaling.ServerConfig{})
			start := time.Now()
			hc := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				if time.Since(start) < time.Hour {
					return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("socket", short)}
				}
				return w.net.DialContext(ctx, network, addr)
			}}}
			a := w.clientWith(signaling.ClientConfig{Identity: w.identity("agent-a"), URLs: []string{"ws://s1/"}, HTTPClient: hc})
			time.Sleep(time.Hour + 37*time.Second)
			settle()
			if a.state(0) != signaling.StateOpen {
				t.Errorf("%v: %+v", short, a.Servers())
			}
		})
	}
}

// TestServerWithHTTP2: a server that would rather speak HTTP/2 is asked for HTTP/1.1,
// which a WebSocket is upgraded from, also where the client's transport prefers the other.
func TestServerWithHTTP2(t *testing.T) {
	s, err := signaling.NewServer(signaling.ServerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	web := httptest.NewUnstartedServer(s)
	web.EnableHTTP2 = true
	web.StartTLS()
	defer web.Close()
	id, err := keys.Generate("agent-a")
	if err != nil {
		t.Fatal(err)
	}
	hc := web.Client()
	resp, err := hc.Get(web.URL + "/health") // the transport has settled on HTTP/2
	if err != nil || resp.ProtoMajor != 2 {
		t.Fatal(resp, err)
	}
	resp.Body.Close()
	c, err := signaling.NewClient(signaling.ClientConfig{Identity: id, Mesh: "m", HTTPClient: hc,
		URLs: []string{strings.Replace(web.URL, "https", "wss", 1)}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := c.WaitReady(ctx); err != nil {
		t.Error(err)
	}
}
