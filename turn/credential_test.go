package turn

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/turn/v5"
)

// TestSharedSecret: the server's side is the library's, and a figure by openssl:
// printf 946688400:alice | openssl dgst -sha1 -hmac north -binary | base64.
func TestSharedSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := SharedSecret("north", "alice", time.Hour)(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if c.Username != "946688400:alice" || c.Password != "9dH8Ft/04foMgJKQYxB7HzQNSVw=" || c.Expires.Unix() != 946688400 {
			t.Errorf("%q %q %v", c.Username, c.Password, c.Expires.UTC())
		}
		_, key, ok := turn.LongTermTURNRESTAuthHandler("north", nil)(&turn.RequestAttributes{Username: c.Username, Realm: "r"})
		if !ok || string(key) != string(turn.GenerateAuthKey(c.Username, "r", c.Password)) {
			t.Error("the server does not know it")
		}
		if c, err := SharedSecret("north", "", time.Millisecond)(t.Context()); err != nil || c.Username != "946684801" || c.expired(time.Now()) {
			t.Errorf("without a user, for a moment: %#v, %v", c, err)
		}
		for _, f := range []Credentials{SharedSecret("", "alice", time.Hour), SharedSecret("north", "alice", 0), SharedSecret("north", "alice", -1)} {
			if c, err := f(t.Context()); err == nil {
				t.Errorf("%#v", c)
			}
		}
	})
}

func TestCredentialHidesItsPassword(t *testing.T) {
	c := Credential{Username: "u", Password: "secret", Expires: time.Unix(1, 0)}
	e := Endpoint{URL: "turn:r.example", Credentials: Static("u", "secret")}
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{fmt.Sprintf("%v %+v %#v", c, c, c), c.LogValue().String(), string(text), fmt.Sprintf("%v %+v %#v", e, e, e), e.LogValue().String()} {
		if strings.Contains(s, "secret") {
			t.Errorf("a password is shown: %s", s)
		}
	}
}

func TestCredentialValidate(t *testing.T) {
	now := time.Unix(1000, 0)
	for name, c := range map[string]Credential{
		"no user":       {Password: "p"},
		"no password":   {Username: "u"},
		"long user":     {Username: strings.Repeat("u", MaxUsername+1), Password: "p"},
		"long password": {Username: "u", Password: strings.Repeat("p", MaxPassword+1)},
		"expired":       {Username: "u", Password: "p", Expires: now},
	} {
		if err := c.validate(now); err == nil {
			t.Errorf("%s is valid", name)
		}
	}
	good := Credential{Username: strings.Repeat("u", MaxUsername), Password: strings.Repeat("p", MaxPassword), Expires: now.Add(1)}
	if err := good.validate(now); err != nil {
		t.Error(err)
	}
}

func TestUsernameEnd(t *testing.T) {
	for name, want := range map[string]int64{
		"1700000000:alice": 1700000000, "alice:1700000000": 1700000000, "1700000000": 1700000000,
		"alice": 0, "4711": 0, "": 0, ":": 0, "99999999999:alice": 0, "-1700000000": 0,
		"500000000": 0, "500000001": 500000001, "3999999999": 3999999999, "4000000000": 0, "a:1:1700000000": 1700000000,
	} {
		got := usernameEnd(name)
		if want == 0 && !got.IsZero() || want != 0 && got.Unix() != want {
			t.Errorf("%q: %v", name, got)
		}
	}
}
