package keys

import (
	"errors"
	"strings"
	"testing"
)

// TestFoundInDirectories: what people give in place of a directory, or of a line of
// one, is named for what it is, in its line.
func TestFoundInDirectories(t *testing.T) {
	k := strings.TrimPrefix(rfcText, publicKeyPrefix)
	for name, tt := range map[string]struct {
		text         string
		line, column int
		want         string
	}{
		"byte order mark":              {"\ufeff# agents\nagent-a " + rfcText + "\n", 1, 1, "byte order mark"},
		"byte order mark, no comment":  {"\ufeffagent-a " + rfcText + "\n", 1, 1, "byte order mark"},
		"UTF-16":                       {inUTF16("agent-a "+rfcText+"\r\n", true), 1, 1, "UTF-16"},
		"UTF-16, no mark":              {inUTF16("agent-a "+rfcText+"\r\n", false), 1, 1, "UTF-16"},
		"Latin-1":                      {"# ok\n# M\xfcller\n", 2, 4, "not UTF-8"},
		"zeros":                        {"# ok\n#\x00\x00\n", 2, 2, "control character 0x00"},
		"authorized_keys":              {"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI agent-a\n", 1, 0, "an OpenSSH public key"},
		"OpenSSH key of an agent":      {"agent-a ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI\n", 1, 0, "an OpenSSH public key"},
		"known_hosts":                  {"agent-a ecdsa-sha2-nistp256 AAAA\n", 1, 0, "an OpenSSH public key"},
		"base64 of an OpenSSH key":     {"agent-a AAAAC3NzaC1lZDI1NTE5AAAAI\n", 1, 0, "an OpenSSH public key"},
		"fingerprint":                  {"agent-a " + rfcFingerprint + "\n", 1, 0, "a fingerprint, which holds no key"},
		"PEM":                          {"-----BEGIN PUBLIC KEY-----\n", 1, 0, "a PEM block"},
		"JSON":                         {"{\n", 1, 0, "JSON"},
		"key in front":                 {rfcText + " agent-a\n", 1, 0, "a key in front of the agent ID"},
		"no prefix":                    {"agent-a " + k + "\n", 1, 0, "43 characters without the prefix"},
		"prefix in capitals":           {"agent-a Ed25519:" + k + "\n", 1, 0, "the prefix in capitals"},
		"hexadecimal":                  {"agent-a " + strings.Repeat("0f", 32) + "\n", 1, 0, "hexadecimal"},
		"padding":                      {"agent-a " + rfcText + "=\n", 1, 0, "padding at byte 51"},
		"base64 of the other alphabet": {"agent-a ed25519:" + strings.Replace(k, "_", "/", 1) + "\n", 1, 0, "base64 in place of base64url"},
		"no-break space":               {"agent-a\u00a0" + rfcText + "\n", 1, 8, "shown as a space"},
		"no-break space further on":    {"agent-a " + rfcText + "\u00a0operator\n", 1, 9 + len(rfcText), "shown as a space"},
		"zero-width space":             {"\tagent\u200b-a " + rfcText + "\n", 1, 7, "shown as a space"},
		"line twice":                   {"agent-a " + rfcText + "\n# x\nagent-a " + rfcText + "\n", 3, 0, "on line 1 already"},
		"two names":                    {"\nagent-a " + rfcText + "\nagent-b " + rfcText + "\n", 3, 0, `"agent-b" has the key of agent "agent-a" on line 2`},
	} {
		_, err := ParseDirectory(strings.NewReader(tt.text))
		var all SyntaxErrors
		if !errors.As(err, &all) || all[0].Line != tt.line || all[0].Column != tt.column || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want line %d, byte %d, %s", name, err, tt.line, tt.column, tt.want)
		}
	}
	// What looks like another file and is a directory is one.
	for _, text := range []string{
		"ssh-rsa-bot " + rfcText + "\n", "{ " + rfcText + "\n", "-----BEGIN " + rfcText + "\r\n", rfcText + " " + rfcText + "\n",
		"\t agent-a\t \t" + rfcText + "\t # x\u00a0y\r\n\r\n#\r\n",
	} {
		if entries, err := ParseDirectory(strings.NewReader(text)); err != nil || len(entries) != 1 {
			t.Errorf("%q: %v, %v", text, entries, err)
		}
	}
}
