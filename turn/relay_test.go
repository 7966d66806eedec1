package turn

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestRelayHidesItsPassword(t *testing.T) {
	r := Relay{URL: "turn:r.example", Username: "u", Password: "secret"}
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{fmt.Sprint(r), fmt.Sprintf("%+v", r), fmt.Sprintf("%#v", r), r.LogValue().String(), string(text)} {
		if strings.Contains(s, "secret") {
			t.Errorf("a password is shown: %s", s)
		}
	}
}

func TestRelayServer(t *testing.T) {
	for url, want := range map[string]string{
		"turn:R.example:3478?transport=tcp": "r.example",
		"turns:r.example":                   "r.example",
		"turn:[::1]:3478":                   "::1",
		"turn:":                             "",
		"http://r.example":                  "",
	} {
		if got := (Relay{URL: url}).Server(); got != want {
			t.Errorf("%s: %q instead of %q", url, got, want)
		}
	}
}

func TestRelayTransport(t *testing.T) {
	for url, want := range map[string]string{
		"turn:r.example":                    "udp",
		"turn:r.example:3478?transport=tcp": "tcp",
		"turns:r.example":                   "tls",
		"http://r.example":                  "",
	} {
		if got := (Relay{URL: url}).Transport(); got != want {
			t.Errorf("%s: %q instead of %q", url, got, want)
		}
	}
}
