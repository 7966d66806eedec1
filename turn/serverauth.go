package turn

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"strconv"
	"strings"
	"time"

	"github.com/pion/stun/v4"
)

// credentials verifies who a client is. It keeps keys (RFC 8489 §9.2.2), not the
// passwords of users.
type credentials struct {
	realm   string
	secrets [][]byte
	users   map[string]stun.MessageIntegrity
	now     func() time.Time
}

func newCredentials(c ServerConfig) *credentials {
	k := &credentials{realm: c.Realm, now: c.Time, users: make(map[string]stun.MessageIntegrity, len(c.Users))}
	for _, s := range c.Secrets {
		k.secrets = append(k.secrets, []byte(s))
	}
	for name, password := range c.Users {
		k.users[name] = stun.NewLongTermIntegrity(name, c.Realm, password)
	}
	return k
}

// find returns whose credential a request names, and the key that its
// MESSAGE-INTEGRITY must verify under, which is for the caller to check; the
// server's realm is part of it, whatever the request says. It is not ok when there
// is no such credential, or no longer.
func (k *credentials) find(username string, request []byte) (user string, key stun.MessageIntegrity, ok bool) {
	if len(username) > maxUsername {
		return "", nil, false
	}
	if key, ok := k.users[username]; ok {
		return username, key, true
	}
	user, expires, ok := parseRESTUser(username)
	if !ok || len(k.secrets) == 0 || k.now().Unix() > expires {
		return "", nil, false
	}
	for _, secret := range k.secrets {
		mac := hmac.New(sha1.New, secret)
		mac.Write([]byte(username))
		key = stun.NewLongTermIntegrity(username, k.realm, base64.StdEncoding.EncodeToString(mac.Sum(nil)))
		if len(k.secrets) == 1 || verifies(request, key) {
			break
		}
	}
	return user, key, true
}

// verifies reports whether a request was signed with key.
func verifies(request []byte, key stun.MessageIntegrity) bool {
	m := &stun.Message{Raw: append([]byte(nil), request...)}
	return m.Decode() == nil && key.Check(m) == nil
}

// parseRESTUser takes a user name of draft-uberti-behave-turn-rest-00 §2.2 apart:
// "EXPIRES:USER", or "EXPIRES" for somebody without a name.
func parseRESTUser(name string) (user string, expires int64, ok bool) {
	stamp, user, _ := strings.Cut(name, ":")
	seconds, err := strconv.ParseUint(stamp, 10, 63) // takes no sign
	return user, int64(seconds), err == nil
}
