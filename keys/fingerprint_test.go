package keys

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

// SHA-256 of "abc", FIPS 180-2 appendix B.1.
const abc = "BA:78:16:BF:8F:01:CF:EA:41:41:40:DE:5D:AE:22:23:B0:03:61:A3:96:17:7A:9C:B4:10:FF:61:F2:00:15:AD"

func TestFingerprint(t *testing.T) {
	f := FingerprintOf([]byte("abc"))
	if f.String() != abc {
		t.Errorf("got %v, want %s", f, abc)
	}
	for _, s := range []string{abc, strings.ToLower(abc)} {
		if got, err := ParseFingerprint(s); err != nil || got != f {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
	b, err := json.Marshal(f)
	if err != nil || string(b) != `"`+abc+`"` {
		t.Errorf("%s, %v", b, err)
	}
	var back Fingerprint
	if err := json.Unmarshal(b, &back); err != nil || back != f {
		t.Errorf("%v, %v", back, err)
	}
	if err := back.UnmarshalText([]byte("x")); !errors.Is(err, ErrBadFingerprint) || back != f {
		t.Errorf("%v, %v", back, err)
	}
}

func TestBadFingerprints(t *testing.T) {
	bad := []string{
		abc + ":", abc + ":00", ":" + abc[:94], strings.ReplaceAll(abc, ":", "-"), strings.ReplaceAll(abc, ":", ""),
		"sha-256 " + abc, strings.Replace(abc, "B", "G", 1), strings.Replace(abc, "BA", "+A", 1), strings.Replace(abc, ":", "é", 1)[:95],
	}
	for n := range len(abc) {
		bad = append(bad, abc[:n])
	}
	for _, s := range bad {
		if f, err := ParseFingerprint(s); !errors.Is(err, ErrBadFingerprint) || f != (Fingerprint{}) {
			t.Errorf("%q: %v, %v", s, f, err)
		}
	}
}

func FuzzParseFingerprint(f *testing.F) {
	f.Add(abc)
	f.Add(strings.ToLower(abc))
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := ParseFingerprint(s); err == nil && p.String() != strings.ToUpper(s) {
			t.Fatalf("%q is read as %v", s, p)
		}
	})
}
