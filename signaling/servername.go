package signaling

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// serverName is the form in which client and server compare a server's name: the
// host of a URL or of an HTTP request in lower case, without the default ports. A
// server behind TLS sees no scheme, so both ports are left out. What is no host has
// the name "", which no registration has.
func serverName(host string) string {
	name, err := canonicalHost(host)
	if err != nil {
		return ""
	}
	return name
}

// namesFor returns the names under which a client may register. A server without
// Names is known by the loopback address at which the request arrived: no other
// server gets a signature for that from an agent which did not dial it itself. The
// request's own words are the forwarder's, so that its Host header is not asked.
func (s *Server) namesFor(r *http.Request) []string {
	if len(s.cfg.Names) > 0 {
		return s.cfg.Names
	}
	at, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if at == nil {
		return nil
	}
	local, err := netip.ParseAddrPort(at.String())
	if err != nil || !local.Addr().Unmap().IsLoopback() {
		return nil
	}
	return []string{
		serverName(netip.AddrPortFrom(local.Addr().Unmap(), local.Port()).String()),
		serverName(fmt.Sprintf("localhost:%d", local.Port())),
	}
}

// canonicalHost returns the one form of a host with an optional port:
//
//   - names are in lower case and in ASCII (RFC 5891 §4.4), without the dot of the
//     root;
//   - addresses are as RFC 5952 writes them, without the zone, which means nothing
//     to another machine and is not sent (RFC 6874 §4);
//   - the port has no leading zeros, and is left out when it is empty, 80 or 443.
func canonicalHost(host string) (string, error) {
	host, port := splitPort(host)
	host, bracketed := strings.CutPrefix(host, "[")
	if bracketed {
		var closed bool
		if host, closed = strings.CutSuffix(host, "]"); !closed {
			return "", errors.New("a [ without its ]")
		}
	}
	switch ip, err := netip.ParseAddr(host); {
	case err == nil:
		if host = ip.WithZone("").String(); ip.Is6() {
			host = "[" + host + "]"
		}
	case bracketed || strings.Contains(host, ":"):
		return "", errors.New("not an IPv6 address")
	default:
		if host, err = asciiName(host); err != nil {
			return "", err
		}
	}
	switch port = strings.TrimLeft(port, "0"); port {
	case "", "80", "443":
		return host, nil
	}
	return host + ":" + port, nil
}

// splitPort splits a port off, if there is one.
func splitPort(hostport string) (host, port string) {
	i := strings.LastIndexByte(hostport, ':')
	if i < 0 || strings.Trim(hostport[i+1:], "0123456789") != "" ||
		strings.Contains(hostport[:i], ":") && !strings.HasSuffix(hostport[:i], "]") { // an address without brackets
		return hostport, ""
	}
	return hostport[:i], hostport[i+1:]
}

// asciiName returns a DNS name as HTTP requests carry it.
func asciiName(name string) (string, error) {
	if !isASCII(name) {
		var err error
		if name, err = punycode(name); err != nil {
			return "", err
		}
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if name == "" {
		return "", errors.New("empty")
	}
	for _, c := range []byte(name) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte("%/?#@\\[]<>\"", c) >= 0 {
			return "", fmt.Errorf("character %q", c)
		}
	}
	return name, nil
}

// punycode writes an internationalised name in ASCII as browsers do (UTS #46, then
// RFC 5891 §5). It asks net/http, which holds the tables for that and has no
// function for it: a transport hands the name to its dialer in ASCII, or unchanged
// when it is no such name. Linking the tables once more is not worth the size.
func punycode(name string) (string, error) {
	asked := make(chan string, 1)
	t := &http.Transport{DialContext: func(_ context.Context, _, addr string) (net.Conn, error) {
		asked <- addr
		return nil, net.ErrClosed
	}}
	req := &http.Request{Method: http.MethodGet, Header: http.Header{}, URL: &url.URL{Scheme: "http", Host: name, Path: "/"}}
	if _, err := t.RoundTrip(req); err == nil {
		panic("signaling: an answer without a connection")
	}
	select {
	case addr := <-asked:
		if host, _, err := net.SplitHostPort(addr); err == nil && isASCII(host) {
			return host, nil
		}
	default:
	}
	return "", errors.New("not an internationalised name (RFC 5891)")
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(c rune) bool { return c > 0x7f }) < 0
}
