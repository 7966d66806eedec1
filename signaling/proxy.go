package signaling

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
)

// ProxyError says that a connection failed at a proxy and not at the server.
type ProxyError struct {
	// Proxy is its URL without user information; empty when none could be found.
	Proxy string
	// Status is what it answered to CONNECT, such as 407; 0 when it did not answer.
	Status int
	Err    error
}

func (e *ProxyError) Error() string {
	if e.Proxy == "" {
		return fmt.Sprintf("proxy: %v", e.Err)
	}
	return fmt.Sprintf("proxy %s: %v", e.Proxy, e.Err)
}

// Unwrap returns the cause.
func (e *ProxyError) Unwrap() error { return e.Err }

// tunnel dials through an HTTP proxy with CONNECT (RFC 9110 §9.3.6), for ws as for
// wss (RFC 6455 §4.1): a proxy that is asked for a ws URL in any other way takes
// the Upgrade for itself and does not pass it on.
type tunnel struct {
	a             *attempt
	proxy         *url.URL
	t             *http.Transport // the caller's: its TLS settings and headers for proxies
	dial, dialTLS dialFunc        // dialTLS may be nil
}

// DialContext is for [http.Transport.DialContext].
func (p *tunnel) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	p.a.at(redact(p.proxy))
	conn, err := p.connect(ctx, network)
	status := 0
	if err == nil {
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		status, err = p.ask(ctx, conn, addr)
		if !stop() && err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			conn.Close()
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
		}
	}
	if err != nil {
		return nil, &ProxyError{Proxy: redact(p.proxy), Status: status, Err: err}
	}
	p.a.at("")
	return conn, nil
}

// connect connects with the proxy itself.
func (p *tunnel) connect(ctx context.Context, network string) (net.Conn, error) {
	if p.proxy.Hostname() == "" {
		return nil, errors.New("no host")
	}
	addr := net.JoinHostPort(p.proxy.Hostname(), portOf(p.proxy))
	switch p.proxy.Scheme {
	case "http":
		return p.dial(ctx, network, addr)
	case "https":
		if p.dialTLS != nil {
			return p.dialTLS(ctx, network, addr)
		}
	default:
		return nil, errors.New("the scheme is none of http, https, socks5 and socks5h")
	}
	conn, err := p.dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	cfg := serverTLS(p.t.TLSClientConfig, p.proxy.Hostname())
	cfg.NextProtos = nil // CONNECT is sent with HTTP/1.1
	secure := tls.Client(conn, cfg)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return secure, nil
}

// ask asks for a tunnel to addr.
func (p *tunnel) ask(ctx context.Context, conn net.Conn, addr string) (status int, err error) {
	header := p.t.ProxyConnectHeader.Clone()
	if p.t.GetProxyConnectHeader != nil {
		if header, err = p.t.GetProxyConnectHeader(ctx, p.proxy, addr); err != nil {
			return 0, err
		}
		header = header.Clone()
	}
	if header == nil {
		header = make(http.Header)
	}
	if u := p.proxy.User; u != nil && header.Get("Proxy-Authorization") == "" {
		password, _ := u.Password()
		header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(u.Username()+":"+password)))
	}
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: addr}, Host: addr, Header: header}
	if err := req.Write(conn); err != nil {
		return 0, err
	}
	r := bufio.NewReader(io.LimitReader(conn, maxProxyAnswer))
	resp, err := http.ReadResponse(r, req)
	if err != nil {
		return 0, fmt.Errorf("CONNECT %s: %w", addr, err)
	}
	if p.t.OnProxyConnectResponse != nil {
		if err := p.t.OnProxyConnectResponse(ctx, p.proxy, req, resp); err != nil {
			return resp.StatusCode, err
		}
	}
	if resp.StatusCode/100 != 2 {
		return resp.StatusCode, fmt.Errorf("CONNECT %s: HTTP status %d %s", addr, resp.StatusCode, http.StatusText(resp.StatusCode))
	}
	if r.Buffered() > 0 { // neither TLS nor HTTP servers speak first
		return resp.StatusCode, fmt.Errorf("CONNECT %s: more than an answer came back", addr)
	}
	return resp.StatusCode, nil
}

// namedProxy returns the error of a round trip so that it names a SOCKS proxy at
// which it failed; tunnel does so for the others.
func namedProxy(err error, rt http.RoundTripper, req *http.Request) error {
	t, ok := rt.(*http.Transport)
	var op *net.OpError
	if !ok || t.Proxy == nil || !errors.As(err, &op) || op.Op != "proxyconnect" && op.Op != "socks connect" {
		return err
	}
	proxy, perr := t.Proxy(req)
	if perr != nil {
		return err
	}
	return &ProxyError{Proxy: redact(proxy), Err: err}
}
