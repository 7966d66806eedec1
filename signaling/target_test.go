package signaling

import (
	"errors"
	"net/url"
	"strings"
	"testing"
)

func TestTarget(t *testing.T) {
	longest := strings.Repeat("s.", MaxServerName/2-1) + "ss"
	for in, want := range map[string]target{
		"wss://S1.Example/":          {"wss://S1.Example/", "wss://S1.Example/", "s1.example"},
		"http://s1":                  {"ws://s1", "ws://s1", "s1"},
		"wss://s1:/":                 {"wss://s1/", "wss://s1/", "s1"},
		"wss://me:pw@s1/a%2Fb?t=abc": {"wss://me:pw@s1/a%2Fb?t=abc", "wss://s1/a%2Fb", "s1"},
		"ws://[fe80::1%25eth0]:81/":  {"ws://[fe80::1%25eth0]:81/", "ws://[fe80::1%25eth0]:81/", "[fe80::1]:81"},
		"wss://bücher.example/":      {"wss://xn--bcher-kva.example/", "wss://xn--bcher-kva.example/", "xn--bcher-kva.example"},
		"ws://s1:65535":              {"ws://s1:65535", "ws://s1:65535", "s1:65535"},
		"ws://" + longest:            {"ws://" + longest, "ws://" + longest, longest},
	} {
		got, _, err := parseTarget(in)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", in, got, err)
		}
	}
}

// TestTargetErrors: the field, the reason, what was given, and no secret.
func TestTargetErrors(t *testing.T) {
	for in, want := range map[string]string{
		"127.0.0.1:8443":              "in front of it",
		"s1.example:8443":             "in front of it",
		"s1.example/":                 "in front of it",
		"":                            "in front of it",
		"me:s3cret@s1":                "in front of it",
		"tcp://me:s3cret@x/":          `"tcp://x/": the scheme`,
		"ws://":                       "no host",
		"ws://:8443/":                 "no host",
		"ws:///path?s3cret":           `"ws:///path": no host`,
		"ws://s1:99999999/?s3cret":    `"ws://s1:99999999/": port 99999999 is not from 1 to 65535`,
		"ws://s1:0/":                  "port 0 is not",
		"ws://s1:00/":                 "port 00 is not",
		"ws://s1:65536/":              "port 65536 is not",
		"ws://s1:http/":               "the port is not a number",
		"ws://me:s3cret":              "the port is not a number",
		"ws://me:s3cret/@s1/":         "the port is not a number",
		"ws://s1/#s3cret":             "a fragment",
		"ws://me:s3cret%@s1/":         "hexadecimal",
		"ws://me:s3[cret@s1/":         "user information",
		"ws://[fe80::1%eth0]/":        "%25",
		"ws://s 1/?s3cret":            "a character that no host has",
		"ws://\u202e.example/?s3cret": "not an internationalised name",
		"ws://[s1]/":                  "not a URL",
		"ws://" + strings.Repeat("s", MaxServerName+1): "more than 260",
		"ws://" + strings.Repeat("ä.", 80) + "de":      "a host of 642 bytes, more than 260",
	} {
		_, err := parseTargets([]string{"ws://ok/", in})
		var ce *ConfigError
		if !errors.As(err, &ce) || ce.Config != "ClientConfig" || ce.Field != "URLs[1]" {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if !strings.Contains(ce.Reason, want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v; want %q", in, err, want)
		}
	}
}

// TestSameTarget: one server that is written in two ways is listed twice, and what
// may be another one is not.
func TestSameTarget(t *testing.T) {
	for _, same := range [][2]string{
		{"ws://s1", "http://S1/"}, {"ws://s1/", "ws://s1:80/"}, {"wss://s1/", "wss://s1:443/"}, {"wss://s1/?a", "wss://s1/?b"},
		{"ws://s1:/", "ws://s1:080/"}, {"ws://[::1]/", "ws://[0::1]/"}, {"wss://bücher.example/", "wss://xn--bcher-kva.example/"},
	} {
		var ce *ConfigError
		if _, err := parseTargets(same[:]); !errors.As(err, &ce) || ce.Field != "URLs[1]" || !strings.Contains(ce.Reason, "URLs[0]") {
			t.Errorf("%q: %v", same, err)
		}
	}
	for _, other := range [][2]string{
		{"ws://s1/", "wss://s1/"}, {"ws://s1/", "ws://s1:443/"}, {"ws://s1/a", "ws://s1/b"},
		{"ws://[fe80::1%25eth0]/", "ws://[fe80::1%25eth1]/"},
	} {
		if _, err := parseTargets(other[:]); err != nil {
			t.Errorf("%q: %v", other, err)
		}
	}
}

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		"http://me:s3cret@p:3128/?s3cret#s3cret": "http://p:3128/",
		"me:s3cret":                              "me:…",
	} {
		u, err := url.Parse(in)
		if err != nil {
			t.Fatal(err)
		}
		if got := redact(u); got != want {
			t.Errorf("redact(%q) = %q", in, got)
		}
	}
	inner := errors.New("refused")
	if got := withoutURL(&url.Error{Op: "Get", URL: "http://s1/?s3cret", Err: inner}); got != inner {
		t.Errorf("withoutURL = %v", got)
	}
}
