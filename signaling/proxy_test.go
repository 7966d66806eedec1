package signaling_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
)

// proxy is an HTTP proxy that makes tunnels, and nothing else of what it is asked.
type proxy struct {
	dial   func(ctx context.Context, network, addr string) (net.Conn, error)
	secret string // what Proxy-Authorization must be, if not empty
	early  bool   // it speaks before it is spoken to

	mu    sync.Mutex
	asked []string
	wg    sync.WaitGroup
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.asked = append(p.asked, r.Method+" "+r.RequestURI)
	p.mu.Unlock()
	switch {
	case r.Method != http.MethodConnect:
		http.Error(w, "the Upgrade is for the next hop (RFC 9110 §7.6.1)", http.StatusBadRequest)
		return
	case p.secret != "" && r.Header.Get("Proxy-Authorization") != p.secret:
		http.Error(w, "who are you?", http.StatusProxyAuthRequired)
		return
	}
	up, err := p.dial(r.Context(), "tcp", r.RequestURI)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer up.Close()
	down, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer down.Close()
	fmt.Fprint(down, "HTTP/1.1 200 Connection established\r\n\r\n")
	if p.early {
		fmt.Fprint(down, "HTTP/1.1 101 Switching Protocols\r\n\r\n")
	}
	p.wg.Go(func() {
		io.Copy(up, bufio.NewReader(rw))
		up.Close()
	})
	io.Copy(down, up)
}

// requests returns what the proxy was asked.
func (p *proxy) requests() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

// proxyAt starts a proxy, with TLS if cert is not nil.
func (w *world) proxyAt(name string, p *proxy, cert *tls.Certificate) *proxy {
	w.Helper()
	p.dial = w.net.DialContext
	l, err := w.net.Listen(name)
	if err != nil {
		w.Fatal(err)
	}
	if cert != nil {
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{*cert}})
	}
	srv := &http.Server{Handler: p}
	p.wg.Go(func() { srv.Serve(l) })
	w.Cleanup(func() { srv.Close(); l.Close(); p.wg.Wait() })
	return p
}

// through returns a client that goes through a proxy.
func (w *world) through(proxy string, cfg *tls.Config) *http.Client {
	w.Helper()
	u, err := url.Parse(proxy)
	if err != nil {
		w.Fatal(err)
	}
	return &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(u), DialContext: w.net.DialContext, TLSClientConfig: cfg}}
}

// certificate returns one for 127.0.0.1, and who trusts it.
func certificate(t *testing.T) (*tls.Certificate, *tls.Config) {
	t.Helper()
	certPEM, keyPEM := tlsPair(t, 1)
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(certPEM)
	return &cert, &tls.Config{RootCAs: roots}
}

func TestProxy(t *testing.T) {
	cert, trusting := certificate(t)
	t.Run("ws", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.serve("s1:8443", signaling.ServerConfig{})
			p := w.proxyAt("proxy:3128", &proxy{secret: "Basic bWU6czNjcmV0"}, nil)
			w.clientWith(signaling.ClientConfig{Identity: w.identity("agent-a"), URLs: []string{"ws://s1:8443/"},
				HTTPClient: w.through("http://me:s3cret@proxy:3128", nil)}).ready()
			want(t, "the proxy was asked", p.requests(), "CONNECT s1:8443")
		})
	})
	t.Run("wss through a proxy with TLS", func(t *testing.T) {
		inWorld(t, func(w *world) {
			s, err := signaling.NewServer(signaling.ServerConfig{})
			if err != nil {
				t.Fatal(err)
			}
			l, err := w.net.Listen("127.0.0.1:443")
			if err != nil {
				t.Fatal(err)
			}
			srv := &http.Server{Handler: s}
			var wg sync.WaitGroup
			wg.Go(func() { srv.Serve(tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{*cert}})) })
			w.Cleanup(func() { l.Close(); s.Close(); srv.Close(); wg.Wait() })
			p := w.proxyAt("127.0.0.1:3129", &proxy{}, cert)
			w.clientWith(signaling.ClientConfig{Identity: w.identity("agent-a"), URLs: []string{"wss://127.0.0.1/"},
				HTTPClient: w.through("https://127.0.0.1:3129", trusting)}).ready()
			want(t, "the proxy was asked", p.requests(), "CONNECT 127.0.0.1:443")
		})
	})
	t.Run("exempt", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.serve("s1", signaling.ServerConfig{})
			hc := w.through("http://proxy:3128", nil)
			hc.Transport.(*http.Transport).Proxy = func(*http.Request) (*url.URL, error) { return nil, nil }
			w.clientWith(signaling.ClientConfig{Identity: w.identity("agent-a"), URLs: []string{"ws://s1/"}, HTTPClient: hc}).ready()
		})
	})
}

// TestProxyErrors: they name the proxy, what it said, and nobody's password.
func TestProxyErrors(t *testing.T) {
	for name, c := range map[string]struct {
		proxy  string
		status int
		says   string
	}{
		"not there":      {"http://me:s3cret@nowhere:3128", 0, "http://nowhere:3128"},
		"SOCKS, absent":  {"socks5://me:s3cret@nowhere:1080", 0, "socks5://nowhere:1080"},
		"wants to know":  {"http://you:s3cret@proxy", 407, "CONNECT s1:80: HTTP status 407 Proxy Authentication Required"},
		"cannot reach":   {"http://me:s3cret@open", 502, "HTTP status 502"},
		"speaks first":   {"http://early", 200, "more than an answer"},
		"is no proxy":    {"http://web", 405, "HTTP status 405"},
		"says nothing":   {"http://hole", 0, "http://hole"},
		"another scheme": {"ftp://me:s3cret@proxy", 0, "socks5h"},
		"no host":        {"http:///me", 0, "no host"},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.proxyAt("proxy", &proxy{secret: "Basic bWU6czNjcmV0"}, nil)
				w.proxyAt("open", &proxy{}, nil)
				w.serve("web", signaling.ServerConfig{})
				w.proxyAt("hole", &proxy{}, nil)
				w.net.Stall("hole")
				if name == "speaks first" {
					w.serve("s1", signaling.ServerConfig{})
					w.proxyAt("early", &proxy{early: true}, nil)
				}
				a := w.clientWith(signaling.ClientConfig{Identity: w.identity("agent-a"), URLs: []string{"ws://s1/?s3cret"},
					HTTPClient: w.through(c.proxy, nil)})
				ctx, cancel := context.WithTimeout(w.Context(), 6*time.Second)
				defer cancel()
				err := a.WaitReady(ctx)
				var pe *signaling.ProxyError
				if !errors.As(err, &pe) || pe.Status != c.status || !strings.Contains(pe.Error(), c.says) {
					t.Errorf("%v; want status %d and %q", err, c.status, c.says)
				}
				if strings.Contains(err.Error(), "s3cret") {
					t.Errorf("a secret: %v", err)
				}
			})
		})
	}
}

// TestProxyUndecided: the caller's function does not say which proxy to use.
func TestProxyUndecided(t *testing.T) {
	inWorld(t, func(w *world) {
		w.serve("s1", signaling.ServerConfig{})
		undecided := errors.New("the script has an error")
		hc := &http.Client{Transport: &http.Transport{DialContext: w.net.DialContext,
			Proxy: func(*http.Request) (*url.URL, error) { return nil, undecided }}}
		a := w.clientWith(signaling.ClientConfig{Identity: w.identity("agent-a"), URLs: []string{"ws://s1/"}, HTTPClient: hc})
		settle()
		var pe *signaling.ProxyError
		if s := a.Servers()[0]; s.State == signaling.StateOpen || !errors.As(s.Err, &pe) || !errors.Is(s.Err, undecided) {
			t.Errorf("%v, %v", s.State, s.Err)
		}
	})
}

const proxied = "AGENTMESH_TEST_PROXIED"

// TestProxyFromEnvironment: what net/http takes from the environment counts without
// any configuration. The environment is read once for a process, so there is another.
func TestProxyFromEnvironment(t *testing.T) {
	if os.Getenv(proxied) != "" {
		id, err := keys.Generate("agent-a")
		if err != nil {
			t.Fatal(err)
		}
		c, err := signaling.NewClient(signaling.ClientConfig{Identity: id, Mesh: "m", URLs: []string{"ws://s1.test/"}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := c.WaitReady(ctx); err != nil {
			t.Fatal(err)
		}
		return
	}
	s, err := signaling.NewServer(signaling.ServerConfig{Names: []string{"s1.test"}})
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(s)
	defer web.Close()
	defer s.Close()
	p := &proxy{dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, web.Listener.Addr().String())
	}}
	at := httptest.NewServer(p)
	defer p.wg.Wait()
	defer at.Close()
	cmd := exec.Command(os.Args[0], "-test.run=^TestProxyFromEnvironment$")
	cmd.Env = append(os.Environ(), proxied+"=1", "HTTP_PROXY="+at.URL, "http_proxy=", "NO_PROXY=", "no_proxy=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	want(t, "the proxy was asked", p.requests(), "CONNECT s1.test:80")
}
