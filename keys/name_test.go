package keys

import (
	"errors"
	"strings"
	"testing"
)

func TestNames(t *testing.T) {
	for kind, check := range map[string]func(string) error{"agent ID": CheckAgentID, "mesh name": CheckMesh} {
		for _, name := range []string{"a", "agent-a", "if://agent/swarm/legal-1@1.2.0", "!~#\\\"", strings.Repeat("x", MaxNameSize)} {
			if err := check(name); err != nil {
				t.Errorf("%s %q: %v", kind, name, err)
			}
		}
		for _, name := range []string{"", " ", "a b", "a\t", "a\n", "*", "a>b", "ä", "a\x7f", "a\x00", strings.Repeat("x", MaxNameSize+1)} {
			var e *NameError
			if err := check(name); !errors.As(err, &e) || e.Kind != kind || e.Name != name || e.Reason == "" {
				t.Errorf("%s %q: got %v, want a NameError about it", kind, name, err)
			}
		}
	}
	for c := range 256 {
		name := string([]byte{byte(c)})
		want := c > 0x20 && c < 0x7f && c != '*' && c != '>'
		if got := CheckAgentID(name) == nil; got != want {
			t.Errorf("agent ID of byte %#02x: allowed %v, want %v", c, got, want)
		}
	}
}

func TestNameErrorIsBounded(t *testing.T) {
	if n := len(CheckAgentID(strings.Repeat("\x00", 1<<20)).Error()); n > 5*MaxNameSize {
		t.Errorf("error of %d bytes for a name of a megabyte", n)
	}
}
