package keys

import (
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"
)

func TestComposeDecisions(t *testing.T) {
	// Every pair in both orders, and every triple by nesting.
	strongest := func(ds ...Decision) Decision { // Refused > Yes > Unknown, as the constants are numbered
		return slices.Max(ds)
	}
	all := []Decision{Unknown, Yes, Refused}
	for _, a := range all {
		for _, b := range all {
			if got := decision(t, Compose(says(a), says(b)), claim(t, "a", 1)); got != strongest(a, b) {
				t.Errorf("%v and %v: %v", a, b, got)
			}
			for _, c := range all {
				want := strongest(a, b, c)
				for name, trust := range map[string]Trust{
					"flat":  Compose(says(a), says(b), says(c)),
					"left":  Compose(Compose(says(a), says(b)), says(c)),
					"right": Compose(says(a), Compose(says(b), says(c))),
				} {
					if got := decision(t, trust, claim(t, "a", 1)); got != want {
						t.Errorf("%s: %v, %v and %v: %v", name, a, b, c, got)
					}
				}
			}
		}
	}
}

func TestComposeVerdicts(t *testing.T) {
	down := errors.New("down")
	writer, _, _ := newDirectory(t, listing(Entry{"a", testKey(t, 1), []string{"writer", "reader"}}))
	operator, _, _ := newDirectory(t, listing(Entry{"a", testKey(t, 1), []string{"operator", "reader"}}))
	other, _, _ := newDirectory(t, listing(Entry{"a", testKey(t, 2), []string{"operator"}}))
	king := policy{verdict: Verdict{Decision: Yes, Roles: []string{"king"}}}
	until := func(h time.Duration) policy {
		return policy{verdict: Verdict{Decision: Yes, Until: epoch.Add(h * time.Hour)}}
	}
	known := newTestFirstUse(t, t.TempDir())
	if err := known.Learn(t.Context(), claim(t, "a", 1)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		t    Trust
		want Verdict
		err  error
	}{
		{"nothing", Compose(), Verdict{}, nil},
		{"nil", Compose(nil), Verdict{Decision: Refused}, ErrNoTrust},
		{"yes and nil", Compose(TrustAny, nil), Verdict{Decision: Refused}, ErrNoTrust},
		{"yes and an error", Compose(TrustAny, policy{err: down}), Verdict{Decision: Refused}, down},
		{"the first reason counts", Compose(policy{err: down}, nil), Verdict{Decision: Refused}, down},
		{"union of roles", Compose(writer, operator), Verdict{Decision: Yes, Roles: []string{"operator", "reader", "writer"}}, nil},
		{"roles of a directory only", Compose(king, writer), Verdict{Decision: Yes, Roles: []string{"reader", "writer"}}, nil},
		{"roles of nobody", Compose(king, TrustAny), Verdict{Decision: Yes}, nil},
		{"roles through two", Compose(Compose(king, writer), known), Verdict{Decision: Yes, Roles: []string{"reader", "writer"}}, nil},
		{"roles through one that announces", Compose(Compose(TrustAny), writer), Verdict{Decision: Yes, Roles: []string{"reader", "writer"}}, nil},
		{"no roles with a refusal", Compose(writer, says(Refused)), Verdict{Decision: Refused}, ErrRefused},
		{"earliest end", Compose(until(3), until(1), until(2)), Verdict{Decision: Yes, Until: epoch.Add(time.Hour)}, nil},
		{"no end is later than any", Compose(TrustAny, until(2), TrustAny), Verdict{Decision: Yes, Until: epoch.Add(2 * time.Hour)}, nil},
		{"one has ended", Compose(TrustAny, until(0)), Verdict{Decision: Refused}, ErrExpired},
		{"remembered, and refused by a directory", Compose(known, other), Verdict{Decision: Refused}, ErrRefused},
		{"remembered, and unknown to a directory", Compose(known, says(Unknown)), Verdict{Decision: Yes}, nil},
	} {
		v, err := Check(t.Context(), tt.t, claim(t, "a", 1))
		if !reflect.DeepEqual(v, tt.want) || !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) {
			t.Errorf("%s: %v, %v; want %v, %v", tt.name, v, err, tt.want, tt.err)
		}
	}
}

func TestComposeOwnsItsList(t *testing.T) {
	list := []Trust{says(Refused)}
	c := Compose(list...)
	list[0] = TrustAny
	if got := decision(t, c, claim(t, "a", 1)); got != Refused {
		t.Errorf("a caller changed the composition: %v", got)
	}
}

func TestComposeLearns(t *testing.T) {
	var one, two []Claim
	failed := errors.New("failed")
	m1, m2 := member{learned: &one}, member{learned: &two}
	c := claim(t, "a", 1)

	if got, err := Learn(t.Context(), Compose(says(Unknown), Compose(m1, says(Unknown)), m2), c); !got || err != nil || len(one) != 1 || len(two) != 1 {
		t.Errorf("%v, %v, %v, %v", got, err, one, two)
	}
	one, two = nil, nil
	if err := Compose(m1).(Learner).Learn(t.Context(), c); err != nil || len(one) != 1 {
		t.Errorf("as a Learner: %v, %v", err, one)
	}
	one = nil
	for name, tt := range map[string]struct {
		t    Trust
		want error
	}{
		"nobody learns":     {Compose(says(Unknown)), nil},
		"nobody is there":   {Compose(), nil},
		"one says yes":      {Compose(m1, says(Yes)), nil},
		"one refuses":       {Compose(m1, says(Refused)), ErrRefused},
		"one has no answer": {Compose(m1, policy{err: failed}), failed},
		"one fails":         {Compose(member{err: failed}, m1), failed},
	} {
		got, err := Learn(t.Context(), tt.t, c)
		if got || len(one) > 0 || !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
			t.Errorf("%s: learned %v, %v, %v", name, got, err, one)
		}
	}
}

func TestComposeFinds(t *testing.T) {
	failed := errors.New("failed")
	k1, k2, k3 := testKey(t, 1), testKey(t, 2), testKey(t, 3)
	c := Compose(member{found: []PublicKey{k2, k1}}, TrustAny, Compose(member{found: []PublicKey{k1, k3}}))
	if got, err := Find(t.Context(), c, "a"); err != nil || !slices.Equal(got, []PublicKey{k2, k1, k3}) {
		t.Errorf("%v, %v", got, err)
	}
	c = Compose(member{found: []PublicKey{k1}}, member{err: failed})
	if got, err := Find(t.Context(), c, "a"); !errors.Is(err, failed) || got != nil {
		t.Errorf("%v, %v", got, err)
	}
}

func TestComposeAnnounces(t *testing.T) {
	one := member{changed: make(chan struct{})}
	two := member{changed: make(chan struct{})}
	for name, tt := range map[string]struct {
		t    Trust
		want bool
		ch   chan struct{}
	}{
		"nobody":                       {Compose(), true, nil},
		"never":                        {Compose(TrustAny, TrustAny), true, nil},
		"one":                          {Compose(TrustAny, one), true, one.changed},
		"nested":                       {Compose(Compose(one, TrustAny), TrustAny), true, one.changed},
		"two":                          {Compose(one, two), false, nil},
		"one that does not":            {Compose(one, says(Yes)), false, nil},
		"one that does not, but nil":   {Compose(nil), false, nil},
		"one that does not, but below": {Compose(Compose(says(Yes)), TrustAny), false, nil},
	} {
		a, ok := tt.t.(Announcer)
		if ok != tt.want {
			t.Errorf("%s: announces %v", name, ok)
		}
		if ok && a.Changed() != (<-chan struct{})(tt.ch) {
			t.Errorf("%s: another channel", name)
		}
	}
}
