package signaling

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// httpClient returns the client whose transport, checks and cookies are used.
func (c *Client) httpClient() *http.Client {
	hc := http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment}}
	if c.cfg.HTTPClient != nil {
		hc = *c.cfg.HTTPClient
	}
	if hc.Transport == nil {
		hc.Transport = http.DefaultTransport
	}
	// A redirect would lead to a server whose name the registration is not
	// signed for.
	hc.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &hc
}

// dialOptions are those of every WebSocket handshake. Envelopes are small and
// their signatures do not compress, so compression stays off.
func (c *Client) dialOptions(a *attempt) *websocket.DialOptions {
	hc := *c.http
	a.base, hc.Transport = hc.Transport, a
	return &websocket.DialOptions{HTTPClient: &hc, CompressionMode: websocket.CompressionDisabled}
}

// attempt is the transport of one handshake. A transport of net/http keeps
// connections for others, and goes on dialling for them after whoever asked has
// given up. So each attempt has its own, with the settings of the configured one,
// and knows its connections: those of an attempt that ends before it succeeded are
// closed, whatever happens on them, and the one of an attempt that succeeded can be
// cut: the library waits five seconds for the other side's goodbye, and a server
// that goes on sending could keep it as long.
type attempt struct {
	ctx  context.Context // the attempt's
	base http.RoundTripper

	mu    sync.Mutex
	ended bool
	open  []io.Closer
	proxy string // with which the attempt is busy, or ""
}

// newAttempt begins an attempt, which ends with ctx until free is called.
func newAttempt(ctx context.Context) (a *attempt, free func()) {
	a = &attempt{ctx: ctx}
	stop := context.AfterFunc(ctx, a.cut)
	return a, func() { stop() }
}

// cut closes what the attempt has opened, and what it opens later.
func (a *attempt) cut() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ended = true
	for _, c := range a.open {
		c.Close()
	}
	a.open = nil
}

// at notes with which proxy the attempt is busy: one that does not answer is named
// when the time is over.
func (a *attempt) at(proxy string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.proxy = proxy
}

// late is the error of an attempt whose time is over.
func (a *attempt) late(verb string, limit time.Duration) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	err := fmt.Errorf("%s: no answer within %v: %w", verb, limit, context.DeadlineExceeded)
	if a.proxy != "" {
		return &ProxyError{Proxy: a.proxy, Err: err}
	}
	return err
}

// keep takes care of a connection. It reports false, and has closed it, when the
// attempt has ended.
func (a *attempt) keep(c io.Closer) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended {
		c.Close()
		return false
	}
	a.open = append(a.open, c)
	return true
}

// RoundTrip implements [http.RoundTripper].
func (a *attempt) RoundTrip(req *http.Request) (*http.Response, error) {
	rt := a.base
	if t, ok := rt.(*http.Transport); ok {
		own, err := a.transport(t, req)
		if err != nil {
			return nil, err
		}
		defer own.CloseIdleConnections()
		rt = own
	}
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return nil, namedProxy(err, rt, req)
	}
	if resp.StatusCode == http.StatusSwitchingProtocols && !a.keep(resp.Body) {
		return nil, context.Cause(a.ctx)
	}
	return resp, nil
}

// dialFunc is the type of [http.Transport.DialContext].
type dialFunc = func(ctx context.Context, network, addr string) (net.Conn, error)

// transport returns a transport for this request alone, with the settings of t.
func (a *attempt) transport(t *http.Transport, req *http.Request) (*http.Transport, error) {
	own := t.Clone()
	own.DisableKeepAlives = true
	// A WebSocket is upgraded from HTTP/1.1 (RFC 6455 §4.1).
	own.Protocols = new(http.Protocols)
	own.Protocols.SetHTTP1(true)

	// The older fields without a context count where the newer ones are nil.
	//lint:ignore SA1019 the transport is the caller's
	dial, dialTLS := t.Dial, t.DialTLS
	own.DialContext = a.dialer(t.DialContext, dial)
	if t.DialTLSContext != nil || dialTLS != nil {
		own.DialTLSContext = a.dialer(t.DialTLSContext, dialTLS)
	}
	if strings.Contains(req.URL.Host, "%") {
		own.TLSClientConfig = serverTLS(t.TLSClientConfig, req.URL.Hostname())
	}
	own.Proxy = nil
	if t.Proxy == nil {
		return own, nil
	}
	proxy, err := t.Proxy(req)
	if err != nil {
		return nil, &ProxyError{Err: err}
	}
	switch {
	case proxy == nil:
	case proxy.Scheme == "socks5" || proxy.Scheme == "socks5h":
		own.Proxy = http.ProxyURL(proxy)
		a.at(redact(proxy))
	default:
		tun := &tunnel{a: a, proxy: proxy, t: t, dial: own.DialContext, dialTLS: own.DialTLSContext}
		own.DialContext, own.DialTLSContext = tun.DialContext, nil
		//lint:ignore SA1019 as above
		own.DialTLS = nil
	}
	return own, nil
}

// dialer returns a dialer that ends with the attempt, from those that a transport
// has: f, the older g, or neither.
func (a *attempt) dialer(f dialFunc, g func(network, addr string) (net.Conn, error)) dialFunc {
	if f == nil {
		f = new(net.Dialer).DialContext
		if g != nil {
			f = func(_ context.Context, network, addr string) (net.Conn, error) { return g(network, addr) }
		}
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		defer context.AfterFunc(a.ctx, func() { cancel(context.Cause(a.ctx)) })()
		conn, err := f(ctx, network, addr)
		if err == nil && !a.keep(conn) {
			err = context.Cause(a.ctx)
		}
		if err != nil {
			return nil, err
		}
		return conn, nil
	}
}

// serverTLS returns a TLS configuration for a server. A certificate names an
// address without its zone, which means nothing elsewhere.
func serverTLS(cfg *tls.Config, host string) *tls.Config {
	if cfg = cfg.Clone(); cfg == nil {
		cfg = new(tls.Config)
	}
	if cfg.ServerName == "" {
		cfg.ServerName, _, _ = strings.Cut(host, "%")
	}
	return cfg
}

// statusError says what an HTTP server answered instead of becoming a WebSocket.
func statusError(resp *http.Response, err error) error {
	if resp == nil || resp.StatusCode == http.StatusSwitchingProtocols {
		return err
	}
	return fmt.Errorf("HTTP status %d%s: %w", resp.StatusCode, refusalText(resp), err)
}

// refusalText returns the reason that a server of ours gave, or nothing: what
// others answer is a page for people.
func refusalText(resp *http.Response) string {
	if resp.Body == nil {
		return ""
	}
	var said struct{ Error string }
	if json.NewDecoder(io.LimitReader(resp.Body, 4*maxRefusal)).Decode(&said) != nil || said.Error == "" {
		return ""
	}
	return fmt.Sprintf(" (%q)", cut(said.Error, maxRefusal))
}
