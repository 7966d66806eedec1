package resolve

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// SplitHostPort reads host[:port] as it stands in URLs of RFC 7064 and RFC 7065,
// with otherwise for a port that is not there or empty (RFC 3986 §3.2.3). The host
// is an address, or a name in lower case and ASCII. The error says what is wrong, in
// words that follow the name of a field.
func SplitHostPort(s string, otherwise uint16) (host string, port uint16, err error) {
	switch {
	case s == "":
		return "", 0, errors.New("has no host")
	case strings.HasPrefix(s, "//"):
		return "", 0, errors.New(`has "//" before the host, which does not belong there`)
	case strings.Contains(s, "@"):
		return "", 0, errors.New("has a user before the host: credentials do not belong there")
	case strings.ContainsAny(s, "/#"):
		return "", 0, errors.New("has a path after the host, which does not belong there")
	}
	text := ""
	if strings.HasPrefix(s, "[") {
		inner, rest, closed := strings.Cut(s[1:], "]")
		colon := false
		text, colon = strings.CutPrefix(rest, ":")
		a, err := netip.ParseAddr(strings.Replace(inner, "%25", "%", 1)) // RFC 6874
		switch {
		case !closed || rest != "" && !colon:
			return "", 0, errors.New("has a bracket that does not close around the address")
		case err != nil || !a.Is6():
			return "", 0, fmt.Errorf("has %q in brackets, which is no IPv6 address", inner)
		}
		host = a.String()
	} else if a, err := netip.ParseAddr(s); err == nil && a.Is6() {
		return "", 0, errors.New("has an IPv6 address without brackets")
	} else if host, text, _ = strings.Cut(s, ":"); strings.Contains(text, ":") {
		return "", 0, fmt.Errorf("has the port %q, which is no number; an IPv6 address stands in brackets", text)
	}
	port = otherwise
	if text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		switch {
		case errors.Is(err, strconv.ErrSyntax):
			return "", 0, fmt.Errorf("has the port %q, which is no number", text)
		case err != nil || n < 1 || n > 65535:
			return "", 0, fmt.Errorf("has the port %s, which is not between 1 and 65535", text)
		}
		port = uint16(n)
	}
	host, err = CheckHost(host)
	return host, port, err
}

// CheckHost returns a host as it can be looked up: an address, or a name in lower
// case whose parts beyond ASCII are in the form of RFC 5891 ("xn--…"). The error
// says what is wrong, as that of SplitHostPort does.
func CheckHost(host string) (string, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		if a.IsUnspecified() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
			return "", fmt.Errorf("has %s, which is no address of a host", a)
		}
		return a.Unmap().String(), nil
	}
	if host == "" {
		return "", errors.New("has no host")
	}
	ascii := true
	for _, c := range host {
		if c < 0x80 && !letter(c) {
			return "", fmt.Errorf("has %q in the host, where it cannot be", c)
		}
		ascii = ascii && c < 0x80
	}
	if !ascii {
		name, err := punycode(host)
		if err != nil {
			return "", fmt.Errorf("has the host %q, which is no name", host)
		}
		host = name
	}
	labels := strings.Split(strings.TrimSuffix(host, "."), ".")
	for _, l := range labels {
		if l == "" || len(l) > maxLabel {
			return "", fmt.Errorf("has a part of the host that is empty or longer than %d bytes", maxLabel)
		}
	}
	if last := labels[len(labels)-1]; strings.Trim(last, "0123456789") == "" {
		return "", fmt.Errorf("has the host %q, which is no IPv4 address", host)
	}
	if len(host) > maxHost {
		return "", fmt.Errorf("has a host longer than %d bytes", maxHost)
	}
	return strings.ToLower(host), nil
}

// punycode writes a name in ASCII (RFC 5891 §5). The standard library can do it and
// exports it in this form only; golang.org/x/net/idna would be two modules more.
func punycode(name string) (string, error) {
	var b bytes.Buffer
	r := &http.Request{Method: http.MethodGet, URL: &url.URL{Scheme: "http", Host: name, Path: "/"}}
	if err := r.Write(&b); err != nil {
		return "", err
	}
	read, err := http.ReadRequest(bufio.NewReader(&b))
	if err != nil {
		return "", err
	}
	if strings.IndexFunc(read.Host, func(c rune) bool { return c >= 0x80 }) >= 0 {
		return "", errors.New("is no name")
	}
	return read.Host, nil
}

func letter(c rune) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.'
}

// JoinHostPort is the reverse of SplitHostPort.
func JoinHostPort(host string, port uint16) string {
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}
