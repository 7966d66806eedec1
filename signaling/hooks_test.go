package signaling_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
)

// secure starts a server behind TLS at 127.0.0.1:443.
func (w *world) secure(cert *tls.Certificate) {
	w.Helper()
	s, err := signaling.NewServer(signaling.ServerConfig{})
	if err != nil {
		w.Fatal(err)
	}
	l, err := w.net.Listen("127.0.0.1:443")
	if err != nil {
		w.Fatal(err)
	}
	srv := &http.Server{Handler: s}
	var wg sync.WaitGroup
	wg.Go(func() { srv.Serve(tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{*cert}})) })
	w.Cleanup(func() { l.Close(); s.Close(); srv.Close(); wg.Wait() })
}

// TestProxyHooks: what a transport sets for its proxies counts: headers, a function that
// makes them, one that looks at the answer, and one that makes TLS connections.
func TestProxyHooks(t *testing.T) {
	cert, trusting := certificate(t)
	right, wrong := http.Header{"Proxy-Authorization": {"Bearer right"}}, http.Header{"Proxy-Authorization": {"Bearer wrong"}}
	said := errors.New("the function says no")
	for name, c := range map[string]struct {
		proxy string
		hook  func(tr *http.Transport, w *world)
		says  string // "" is success
		is    error
	}{
		"a header": {"http://proxy", func(tr *http.Transport, _ *world) { tr.ProxyConnectHeader = right }, "", nil},
		"a header before user information": {"http://me:s3cret@proxy",
			func(tr *http.Transport, _ *world) { tr.ProxyConnectHeader = right }, "", nil},
		"user information": {"http://me:s3cret@proxy", func(*http.Transport, *world) {}, "status 407", nil},
		"a function before a header": {"http://proxy", func(tr *http.Transport, w *world) {
			tr.ProxyConnectHeader = wrong
			tr.GetProxyConnectHeader = func(_ context.Context, proxy *url.URL, target string) (http.Header, error) {
				if proxy.Host != "proxy" || target != "127.0.0.1:443" {
					w.Errorf("asked for %v and %v", proxy, target)
				}
				return right, nil
			}
		}, "", nil},
		"a function that fails": {"http://proxy", func(tr *http.Transport, _ *world) {
			tr.GetProxyConnectHeader = func(context.Context, *url.URL, string) (http.Header, error) { return right, said }
		}, "says no", said},
		"a look at the answer": {"http://proxy", func(tr *http.Transport, w *world) {
			tr.ProxyConnectHeader = right
			tr.OnProxyConnectResponse = func(_ context.Context, proxy *url.URL, req *http.Request, resp *http.Response) error {
				if proxy.Host != "proxy" || req.Method != http.MethodConnect || resp.StatusCode != http.StatusOK {
					w.Errorf("%v, %v, %v", proxy, req.Method, resp.Status)
				}
				return nil
			}
		}, "", nil},
		"a look that fails": {"http://proxy", func(tr *http.Transport, _ *world) {
			tr.ProxyConnectHeader = right
			tr.OnProxyConnectResponse = func(context.Context, *url.URL, *http.Request, *http.Response) error { return said }
		}, "says no", said},
		"TLS of one's own": {"https://127.0.0.1:3129", func(tr *http.Transport, w *world) {
			tr.ProxyConnectHeader = right
			tr.DialTLSContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
				conn, err := w.net.DialContext(ctx, network, addr)
				if err != nil {
					return nil, err
				}
				secure := tls.Client(conn, &tls.Config{RootCAs: trusting.RootCAs, ServerName: "127.0.0.1"})
				return secure, secure.HandshakeContext(ctx)
			}
		}, "", nil},
		"a certificate that nobody trusts": {"https://127.0.0.1:3129", func(tr *http.Transport, _ *world) {
			tr.ProxyConnectHeader = right
			tr.TLSClientConfig = nil
		}, "certificate", nil},
		"a proxy with TLS that is not there": {"https://127.0.0.1:3130", func(*http.Transport, *world) {}, "127.0.0.1:3130", nil},
	} {
		inWorld(t, func(w *world) {
			w.secure(cert)
			w.proxyAt("proxy", &proxy{secret: "Bearer right"}, nil)
			w.proxyAt("127.0.0.1:3129", &proxy{secret: "Bearer right"}, cert)
			hc := w.through(c.proxy, trusting)
			c.hook(hc.Transport.(*http.Transport), w)
			a := w.clientWith(signaling.ClientConfig{Identity: w.identity("agent-a"), URLs: []string{"wss://127.0.0.1/"}, HTTPClient: hc})
			settle()
			s := a.Servers()[0]
			if c.says == "" && s.State != signaling.StateOpen {
				t.Errorf("%s: %v, %v", name, s.State, s.Err)
			}
			var pe *signaling.ProxyError
			if c.says != "" && (s.State == signaling.StateOpen || !errors.As(s.Err, &pe) || !strings.Contains(s.Err.Error(), c.says) ||
				c.is != nil && !errors.Is(s.Err, c.is)) {
				t.Errorf("%s: %v, %v", name, s.State, s.Err)
			}
		})
	}
	if len(right) != 1 || len(wrong) != 1 {
		t.Errorf("the caller's headers were changed: %v, %v", right, wrong)
	}
}

// TestDialHooks: the functions by which a transport dials are used, the older ones where
// the newer are not set.
func TestDialHooks(t *testing.T) {
	cert, trusting := certificate(t)
	for name, c := range map[string]struct {
		url  string
		hook func(tr *http.Transport, dial, dialTLS func(network, addr string) (net.Conn, error))
	}{
		"Dial": {"ws://s1/", func(tr *http.Transport, dial, _ func(network, addr string) (net.Conn, error)) {
			tr.Dial = dial //lint:ignore SA1019 what callers may still use
		}},
		"DialContext before Dial": {"ws://s1/", func(tr *http.Transport, dial, _ func(network, addr string) (net.Conn, error)) {
			tr.DialContext = func(_ context.Context, network, addr string) (net.Conn, error) { return dial(network, addr) }
			//lint:ignore SA1019 what callers may still use
			tr.Dial = func(string, string) (net.Conn, error) { return nil, net.ErrClosed }
		}},
		"DialTLS": {"wss://127.0.0.1/", func(tr *http.Transport, _, dialTLS func(network, addr string) (net.Conn, error)) {
			tr.DialTLS = dialTLS //lint:ignore SA1019 what callers may still use
		}},
		"DialTLSContext before DialTLS": {"wss://127.0.0.1/", func(tr *http.Transport, _, dialTLS func(network, addr string) (net.Conn, error)) {
			tr.DialTLSContext = func(_ context.Context, network, addr string) (net.Conn, error) { return dialTLS(network, addr) }
			//lint:ignore SA1019 what callers may still use
			tr.DialTLS = func(string, string) (net.Conn, error) { return nil, net.ErrClosed }
		}},
	} {
		inWorld(t, func(w *world) {
			w.serve("s1", signaling.ServerConfig{})
			w.secure(cert)
			used := 0
			dial := func(network, addr string) (net.Conn, error) {
				used++
				return w.net.DialContext(w.Context(), network, addr)
			}
			dialTLS := func(network, addr string) (net.Conn, error) {
				conn, err := dial(network, addr)
				if err != nil {
					return nil, err
				}
				return tls.Client(conn, &tls.Config{RootCAs: trusting.RootCAs, ServerName: "127.0.0.1"}), nil
			}
			tr := new(http.Transport)
			c.hook(tr, dial, dialTLS)
			a := w.clientWith(signaling.ClientConfig{Identity: w.identity("agent-a"), URLs: []string{c.url},
				HTTPClient: &http.Client{Transport: tr}})
			settle()
			if s := a.Servers()[0]; s.State != signaling.StateOpen || used != 1 {
				t.Errorf("%s: %v, %v, used %d times", name, s.State, s.Err, used)
			}
		})
	}
}

// TestPlainHTTPClient: an http.Client without a transport uses net/http's, and follows no
// redirect: that would lead to a server whose name was not signed for.
func TestPlainHTTPClient(t *testing.T) {
	s, err := signaling.NewServer(signaling.ServerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	web := httptest.NewServer(s)
	defer web.Close()
	elsewhere := httptest.NewServer(http.RedirectHandler(web.URL, http.StatusFound))
	defer elsewhere.Close()
	id, err := keys.Generate("agent-a")
	if err != nil {
		t.Fatal(err)
	}
	c, err := signaling.NewClient(signaling.ClientConfig{Identity: id, Mesh: "m", HTTPClient: new(http.Client),
		URLs: []string{web.URL, elsewhere.URL}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err = c.Wait(ctx, func(all []signaling.ServerStatus) bool {
		return all[0].State == signaling.StateOpen && all[1].Err != nil
	})
	if err != nil || !strings.Contains(c.Servers()[1].Err.Error(), "302") {
		t.Errorf("%v, %+v", err, c.Servers())
	}
}
