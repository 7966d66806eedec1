package turn

import (
	"context"
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // what the draft says
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"
)

// Credential is a long-term credential of RFC 8489 §9.2. Its password shows in no
// log, error or JSON.
type Credential struct {
	Username string
	Password string `json:"-"`
	// Expires is when it ends, by the clocks of the world; zero means never.
	Expires time.Time
}

// String returns the user name alone.
func (c Credential) String() string { return c.Username }

// GoString returns the user name and the end.
func (c Credential) GoString() string {
	return fmt.Sprintf("turn.Credential{Username: %q, Expires: %v}", c.Username, c.Expires)
}

// LogValue returns the user name alone.
func (c Credential) LogValue() slog.Value { return slog.StringValue(c.Username) }

// validate says what is wrong with a credential that was fetched.
func (c Credential) validate(now time.Time) error {
	switch {
	case c.Username == "" || c.Password == "":
		return errors.New("without a user name or a password")
	case len(c.Username) > MaxUsername:
		return fmt.Errorf("a user name of more than %d bytes", MaxUsername)
	case len(c.Password) > MaxPassword:
		return fmt.Errorf("a password of more than %d bytes", MaxPassword)
	case c.expired(now):
		return fmt.Errorf("%w: it ended at %s, and by the clock here it is %s", ErrExpired,
			c.Expires.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return nil
}

func (c Credential) expired(now time.Time) bool { return !c.Expires.IsZero() && !c.Expires.After(now) }

// Credentials returns what to authenticate with at a TURN server: a function that
// asks a service of its own, or [Static] or [SharedSecret].
//
// A Pool calls it when an endpoint is added, ahead of the end of what it returned
// (at four fifths of its life, and at least a minute before), when a server
// refuses the credential, after an error again, at first a second later, and at once
// when the machine has slept past that, or its clock was set. It is
// never called twice at a time for one endpoint; it is for several, so it must be
// safe for that. It must return soon after ctx ends, which is after 10 s at the
// latest: Close waits for it. Its error is logged and recorded, so it must hold no
// secret.
type Credentials func(ctx context.Context) (Credential, error)

// Static returns Credentials that never change or expire.
func Static(username, password string) Credentials {
	return func(context.Context) (Credential, error) {
		return Credential{Username: username, Password: password}, nil
	}
}

// SharedSecret returns Credentials that are computed here from a secret that is
// shared with the server, such as coturn's static-auth-secret
// (draft-uberti-behave-turn-rest-00 §2.2): the user name is the end of its life in
// seconds since 1970, a colon and user, the password the base64 of its HMAC-SHA1
// under the secret. Life is counted in whole seconds, rounded up; Credentials fail
// if it is not positive or the secret is empty. Who holds the secret can make
// credentials for everybody: give it to servers, not to agents in the hands of
// others.
func SharedSecret(secret, user string, life time.Duration) Credentials {
	return func(context.Context) (Credential, error) {
		switch {
		case secret == "":
			return Credential{}, errors.New("turn: shared secret: empty")
		case life <= 0:
			return Credential{}, errors.New("turn: shared secret: life is not positive")
		}
		end := time.Now().Add(life + time.Second - 1).Unix()
		name := strconv.FormatInt(end, 10)
		if user != "" {
			name += ":" + user
		}
		mac := hmac.New(sha1.New, []byte(secret))
		mac.Write([]byte(name))
		return Credential{
			Username: name,
			Password: base64.StdEncoding.EncodeToString(mac.Sum(nil)),
			Expires:  time.Unix(end, 0),
		}, nil
	}
}

// usernameEnd is the timestamp in a user name of the draft above, which some
// write after the colon. It is zero without one, and for numbers that are no time
// between 1985 and 2096: a user may be called 4711.
func usernameEnd(username string) time.Time {
	for part := range strings.SplitSeq(username, ":") {
		if n, err := strconv.ParseInt(part, 10, 64); err == nil && n > 5e8 && n < 4e9 {
			return time.Unix(n, 0)
		}
	}
	return time.Time{}
}
