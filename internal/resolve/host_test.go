package resolve

import (
	"strings"
	"testing"
)

func TestSplitHostPort(t *testing.T) {
	for _, c := range []struct {
		in, host string
		port     uint16
	}{
		{"stun.example.org", "stun.example.org", 3478},
		{"STUN.Example.org:19302", "stun.example.org", 19302},
		{"stun.example.org:", "stun.example.org", 3478},
		{"192.0.2.1:1", "192.0.2.1", 1},
		{"[2001:db8::1]", "2001:db8::1", 3478},
		{"[2001:DB8::1]:65535", "2001:db8::1", 65535},
		{"[2001:db8::1]:", "2001:db8::1", 3478},
		{"[::ffff:192.0.2.1]:5", "192.0.2.1", 5},
		{"[fe80::1%25eth0]:5", "fe80::1%eth0", 5},
		{"[fe80::1%eth0]", "fe80::1%eth0", 3478},
		{"_stun.example.org.", "_stun.example.org.", 3478},
		{"bücher.example:5", "xn--bcher-kva.example", 5},
		{"localhost", "localhost", 3478},
	} {
		host, port, err := SplitHostPort(c.in, 3478)
		if err != nil || host != c.host || port != c.port {
			t.Errorf("%s: %q, %d, %v", c.in, host, port, err)
		}
	}
	for in, why := range map[string]string{
		"":                                      "no host",
		":3478":                                 "no host",
		"//stun.example.org":                    `"//"`,
		"user:pass@stun.example.org":            "a user",
		"stun.example.org/x":                    "a path",
		"stun.example.org:port":                 "no number",
		"stun.example.org:0":                    "between 1 and 65535",
		"stun.example.org:99999999":             "99999999",
		"stun.example.org:99999999999999999999": "between 1 and 65535",
		"stun.example.org:-1":                   "no number",
		"2001:db8::1":                           "without brackets",
		"2001:db8::1:3478:9:9:9:9:9":            "brackets",
		"[2001:db8::1":                          "does not close",
		"[2001:db8::1]3478":                     "does not close",
		"[192.0.2.1]:3478":                      "no IPv6 address",
		"[stun.example.org]":                    "no IPv6 address",
		"192.0.2":                               "no IPv4 address",
		"192.0.2.256":                           "no IPv4 address",
		"0.0.0.0":                               "no address of a host",
		"[::]":                                  "no address of a host",
		"224.0.0.1":                             "no address of a host",
		"stun..example.org":                     "a part of the host",
		strings.Repeat("a", 64) + ".org":        "a part of the host",
		strings.Repeat("a.", 127) + "org":       "longer than 253",
		"stun example.org":                      "' '",
		"stun.example.org\n":                    `'\n'`,
		"stun.l.google.com,stun.example.org":    "','",
		"bü cher.example":                       "in the host",
	} {
		if host, _, err := SplitHostPort(in, 3478); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %q, %v; want %s", in, host, err, why)
		}
	}
}
