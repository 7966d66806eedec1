package keys

import (
	"slices"
	"strings"
	"testing"
)

// TestIsRole: each character that a role may have, at each place, and no other.
func TestIsRole(t *testing.T) {
	for c := range 256 {
		may := strings.Contains("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:/", string([]byte{byte(c)}))
		for _, role := range []string{string([]byte{byte(c)}), "a" + string([]byte{byte(c)}), string([]byte{byte(c)}) + "a"} {
			if isRole(role) != may {
				t.Errorf("%q: %v", role, !may)
			}
		}
	}
	for size, want := range map[int]bool{0: false, 1: true, MaxRoleSize: true, MaxRoleSize + 1: false} {
		if isRole(strings.Repeat("r", size)) != want {
			t.Errorf("%d bytes: %v", size, !want)
		}
	}
}

// TestPEMLabels: labels of up to 64 bytes, of at most four blocks.
func TestPEMLabels(t *testing.T) {
	long := strings.Repeat("L", 64)
	for text, want := range map[string][]string{
		"":                                   nil,
		beginPEM + long + "-----":            {long},
		beginPEM + long + "L-----":           {""},
		beginPEM + "A-----" + beginPEM + "B": {"A", ""},
		strings.Repeat(beginPEM+"A-----", 5): {"A", "A", "A", "A"},
	} {
		if got := pemLabels([]byte(text)); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
