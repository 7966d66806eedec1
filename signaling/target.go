package signaling

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// target is one server to connect to.
type target struct {
	url   string // to dial; may hold secrets
	label string // for people
	name  string // what the registration is signed for
}

// parseTargets reads ClientConfig.URLs.
func parseTargets(urls []string) ([]target, error) {
	var out []target
	seen := make(map[string]int)
	for i, s := range urls {
		t, same, err := parseTarget(s)
		if j, is := seen[same]; err == nil && is {
			err = fmt.Errorf("%q is the server of URLs[%d]", t.label, j)
		}
		if err != nil {
			return nil, &ConfigError{Config: "ClientConfig", Field: fmt.Sprintf("URLs[%d]", i), Reason: err.Error()}
		}
		seen[same] = i
		out = append(out, t)
	}
	return out, nil
}

// parseTarget reads one URL. Same is equal for URLs that are spelled differently
// and mean the same. The error shows nothing that may be secret.
func parseTarget(s string) (t target, same string, err error) {
	u, err := url.Parse(s)
	if err != nil {
		return t, "", notURL(s, err)
	}
	shown := redact(u)
	bad := func(format string, args ...any) (target, string, error) {
		return target{}, "", fmt.Errorf("%q: %s", shown, fmt.Sprintf(format, args...))
	}
	switch u.Scheme {
	case "ws", "wss":
	case "http":
		u.Scheme = "ws"
	case "https":
		u.Scheme = "wss"
	default:
		if u.Opaque != "" || u.Host == "" { // "host:8443", "host/path"
			return bad("no ws:// or wss:// in front of it")
		}
		return bad("the scheme is not ws or wss")
	}
	host := u.Hostname()
	switch {
	case host == "":
		return bad("no host")
	case len(u.Host) > MaxServerName:
		return bad("a host of %d bytes, more than %d", len(u.Host), MaxServerName)
	case u.Fragment != "" || u.RawFragment != "":
		return bad("a fragment, which no server would see")
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.ParseUint(p, 10, 64); err != nil || n == 0 || n > 65535 {
			return bad("port %s is not from 1 to 65535", p)
		}
	}
	u.Host = strings.TrimSuffix(u.Host, ":") // an empty port is the default one (RFC 3986 §3.2.3)
	t.name, err = canonicalHost(u.Host)
	if err != nil {
		return bad("the host is not a name or an address: %v", err)
	}
	if len(t.name) > MaxServerName {
		return bad("a host of %d bytes, more than %d", len(t.name), MaxServerName)
	}
	if !isASCII(u.Host) { // what is dialled, what is sent and what is signed are then one
		host, port, _ := strings.Cut(u.Host, ":")
		u.Host, _ = asciiName(host) // as canonicalHost did
		if port != "" {
			u.Host += ":" + port
		}
	}
	t.url, t.label = u.String(), redact(u)
	path := u.EscapedPath()
	if path == "" {
		path = "/"
	}
	// The name has no zone and no default port, so they are added where they tell servers apart.
	_, zone, _ := strings.Cut(host, "%")
	return t, strings.Join([]string{u.Scheme, t.name, portOf(u), zone, path}, " "), nil
}

// portOf returns the port that a URL means.
func portOf(u *url.URL) string {
	if p := strings.TrimLeft(u.Port(), "0"); p != "" {
		return p
	}
	if u.Scheme == "wss" || u.Scheme == "https" {
		return "443"
	}
	return "80"
}

// notURL explains why s is no URL. What url.Parse says quotes s, in which anything
// may stand, such as a password in place of a port.
func notURL(s string, err error) error {
	var escape url.EscapeError
	var host url.InvalidHostError
	switch {
	case errors.As(err, &escape):
		return errors.New("not a URL: a % without two hexadecimal digits (a zone begins with %25)")
	case errors.As(err, &host):
		return errors.New("not a URL: the host holds a character that no host has")
	case strings.Contains(err.Error(), "invalid port"):
		return errors.New("not a URL: the port is not a number")
	case strings.Contains(err.Error(), "userinfo"):
		return errors.New("not a URL: the user information holds a character that must be percent-encoded")
	case !strings.Contains(s, "://"):
		return errors.New("not a URL: no ws:// or wss:// in front of it")
	}
	return errors.New("not a URL")
}

// redact returns a URL for people: scheme, host and path. User information and
// query are for the server, and may be passwords and tokens.
func redact(u *url.URL) string {
	if u == nil {
		return ""
	}
	if u.Opaque != "" { // "user:password", "host:8443"
		return u.Scheme + ":…"
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}).String()
}

// withoutURL drops what net/http says of the URL, which holds the query, and keeps
// why it failed.
func withoutURL(err error) error {
	var ue *url.Error
	for errors.As(err, &ue) && ue.Err != nil {
		err = ue.Err
	}
	return err
}
