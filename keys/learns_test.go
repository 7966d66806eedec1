package keys

import "testing"

func TestLearns(t *testing.T) {
	m := member{}
	for name, tt := range map[string]struct {
		t    Trust
		want bool
	}{
		"nil":                  {nil, false},
		"one that does":        {m, true},
		"one that does not":    {TrustAny, false},
		"empty composition":    {Compose(), false},
		"none of several":      {Compose(TrustAny, nil, Compose(says(Yes))), false},
		"last of several":      {Compose(TrustAny, m), true},
		"below":                {Compose(TrustAny, Compose(says(Yes), Compose(m))), true},
		"below an announcer":   {Compose(Compose(TrustAny), m), true},
		"within an announcing": {Compose(Compose(m), TrustAny), true},
	} {
		if got := Learns(tt.t); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
