package resolve

import (
	"strings"
	"testing"
)

func TestParseSTUN(t *testing.T) {
	for in, want := range map[string]Server{
		"stun:stun.example.org":      {Host: "stun.example.org", Port: 3478, UDP: true},
		"STUN:Stun.example.org:5":    {Host: "stun.example.org", Port: 5, UDP: true},
		"stun:[2001:db8::1]:5":       {Host: "2001:db8::1", Port: 5, UDP: true},
		"stun:[2001:db8::1]":         {Host: "2001:db8::1", Port: 3478, UDP: true},
		"stun:192.0.2.1:":            {Host: "192.0.2.1", Port: 3478, UDP: true},
		"stun:[fe80::1%25eth0]:3478": {Host: "fe80::1%eth0", Port: 3478, UDP: true},
	} {
		if s, err := ParseSTUN(in); err != nil || s != want {
			t.Errorf("%s: %+v, %v", in, s, err)
		}
	}
	for in, why := range map[string]string{
		"":                                    "is empty",
		"stun.l.google.com:19302":             `does not begin with "stun:"`,
		"http://stun.example.org":             `does not begin with "stun:"`,
		"stun":                                `does not begin with "stun:"`,
		" stun:stun.example.org":              `does not begin with "stun:"`,
		"stun:":                               "no host",
		"stun::3478":                          "no host",
		"stun://stun.example.org":             `"//"`,
		"stuns:stun.example.org":              "TLS",
		"turn:turn.example.org":               "belongs to TURN",
		"stun:stun.example.org?transport=udp": "a query",
		"stun:a:b@stun.example.org":           "a user",
		"stun:stun.example.org:port":          "no number",
		"stun:stun.example.org:70000":         "70000",
		"stun:2001:db8::1":                    "without brackets",
	} {
		if s, err := ParseSTUN(in); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %+v, %v; want %s", in, s, err, why)
		}
	}
}

func TestParseTURN(t *testing.T) {
	for in, want := range map[string]string{
		"turn:Turn.example.org":                "turn:turn.example.org:3478?transport=udp",
		"turn:turn.example.org?":               "turn:turn.example.org:3478?transport=udp",
		"turn:turn.example.org:?transport=TCP": "turn:turn.example.org:3478?transport=tcp",
		"turns:turn.example.org":               "turns:turn.example.org:5349?transport=tcp",
		"TURNS:[2001:db8::1]:443":              "turns:[2001:db8::1]:443?transport=tcp",
		"turn:bücher.example:5":                "turn:xn--bcher-kva.example:5?transport=udp",
	} {
		if s, err := ParseTURN(in); err != nil || s.String() != want {
			t.Errorf("%s: %s, %v", in, s, err)
		}
	}
	for in, why := range map[string]string{
		"":                                     "is empty",
		"turn.example.org":                     `does not begin with "turn:"`,
		"stun:turn.example.org":                "a STUN URL",
		"turn:":                                "no host",
		"turn://turn.example.org":              `"//"`,
		"turns:turn.example.org?transport=udp": "TLS over UDP",
		"turn:turn.example.org?transport=sctp": "a query",
		"turn:turn.example.org?x":              "a query",
		"turn:ann:secret@turn.example.org":     "a user",
		"turn:turn.example.org:99999999":       "99999999",
	} {
		if s, err := ParseTURN(in); err == nil || !strings.Contains(err.Error(), why) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %+v, %v; want %s", in, s, err, why)
		}
	}
}

func TestShown(t *testing.T) {
	for in, want := range map[string]string{
		"stun.example.org:3478":                   `"stun.example.org:3478"`,
		"turn:ann:secret@turn.example.org":        `"turn:…@turn.example.org"`,
		"ann:secret@turn.example.org":             `"ann:…@turn.example.org"`,
		"a-secret@turn.example.org":               `"…@turn.example.org"`,
		"turn:turn.example.org?password=secret":   `"turn:turn.example.org?…"`,
		"turn:turn.example.org?transport=sctp":    `"turn:turn.example.org?transport=sctp"`,
		"stun:x\n":                                `"stun:x\n"`,
		"turn:" + strings.Repeat("x", 2*maxShown): `"turn:` + strings.Repeat("x", maxShown-5) + `…"`,
	} {
		if got := Shown(in); got != want {
			t.Errorf("%s: %s", in, got)
		}
	}
}
