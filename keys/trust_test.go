package keys

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// policy answers always the same.
type policy struct {
	verdict Verdict
	err     error
}

func (p policy) Check(context.Context, Claim) (Verdict, error) { return p.verdict, p.err }

func says(d Decision) policy { return policy{verdict: Verdict{Decision: d}} }

// member is a policy that does everything a policy may do.
type member struct {
	policy
	learned *[]Claim
	found   []PublicKey
	changed chan struct{}
	err     error
}

func (m member) Learn(_ context.Context, c Claim) error {
	if m.err == nil {
		*m.learned = append(*m.learned, c)
	}
	return m.err
}

func (m member) Find(context.Context, string) ([]PublicKey, error) { return m.found, m.err }

func (m member) Changed() <-chan struct{} { return m.changed }

func badClaims(t testing.TB) map[string]Claim {
	good := claim(t, "a", 1)
	with := func(change func(*Claim)) Claim { c := good; change(&c); return c }
	return map[string]Claim{
		"zero":              {},
		"no ID":             with(func(c *Claim) { c.ID = "" }),
		"bad ID":            with(func(c *Claim) { c.ID = "a b" }),
		"no key":            with(func(c *Claim) { c.Key = PublicKey{} }),
		"no time":           with(func(c *Claim) { c.Time = time.Time{} }),
		"too much evidence": with(func(c *Claim) { c.Evidence = make([][]byte, MaxEvidence+1) }),
		"large evidence":    with(func(c *Claim) { c.Evidence = [][]byte{make([]byte, MaxEvidenceSize), {0}} }),
	}
}

func TestCheckRefusesBadClaims(t *testing.T) {
	for name, c := range badClaims(t) {
		v, err := Check(t.Context(), TrustAny, c)
		var e *NameError
		if v.Decision != Refused || !errors.Is(err, ErrRefused) || !errors.Is(err, ErrBadClaim) && !errors.As(err, &e) {
			t.Errorf("%s: %v, %v", name, v, err)
		}
	}
	c := claim(t, "a", 1)
	c.Evidence = make([][]byte, MaxEvidence)
	c.Evidence[0] = make([]byte, MaxEvidenceSize)
	if got := decision(t, TrustAny, c); got != Yes {
		t.Errorf("evidence at the limit: %v", got)
	}
}

func TestCheckVerdicts(t *testing.T) {
	down := errors.New("down")
	yesUntil := func(u time.Time) policy { return policy{verdict: Verdict{Decision: Yes, Until: u}} }
	for _, tt := range []struct {
		name string
		t    Trust
		want Verdict
		err  error
	}{
		{"yes", says(Yes), Verdict{Decision: Yes}, nil},
		{"unknown", says(Unknown), Verdict{}, nil},
		{"refused", says(Refused), Verdict{Decision: Refused}, ErrRefused},
		{"no such decision", says(7), Verdict{Decision: Refused}, ErrRefused},
		{"zero", policy{}, Verdict{}, nil},
		{"any", TrustAny, Verdict{Decision: Yes}, nil},
		{"nil", nil, Verdict{Decision: Refused}, ErrNoTrust},
		{"yes with an error", policy{Verdict{Decision: Yes}, down}, Verdict{Decision: Refused}, down},
		{"unknown with an error", policy{Verdict{}, down}, Verdict{Decision: Refused}, down},
		{"refused with a reason", policy{Verdict{Decision: Refused}, down}, Verdict{Decision: Refused}, down},
		{"yes for a while", yesUntil(epoch.Add(1)), Verdict{Decision: Yes, Until: epoch.Add(1)}, nil},
		{"yes until now", yesUntil(epoch), Verdict{Decision: Refused}, ErrExpired},
		{"yes until before", yesUntil(epoch.Add(-time.Hour)), Verdict{Decision: Refused}, ErrExpired},
		{"roles from anybody", policy{verdict: Verdict{Decision: Yes, Roles: []string{"operator"}}}, Verdict{Decision: Yes}, nil},
		{"unknown with more", policy{verdict: Verdict{Roles: []string{"operator"}, Until: epoch}}, Verdict{}, nil},
		{"refused with more", policy{verdict: Verdict{Decision: Refused, Roles: []string{"operator"}}}, Verdict{Decision: Refused}, ErrRefused},
	} {
		v, err := Check(t.Context(), tt.t, claim(t, "a", 1))
		if !reflect.DeepEqual(v, tt.want) || !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) {
			t.Errorf("%s: %v, %v; want %v, %v", tt.name, v, err, tt.want, tt.err)
		}
		if err != nil && (!errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), `"a"`) || strings.Count(err.Error(), "keys:") != 1) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// A policy that embeds a Directory is not one: its roles do not count.
func TestRolesAreNotInherited(t *testing.T) {
	d, _, _ := newDirectory(t, listing(Entry{"a", testKey(t, 1), []string{"operator"}}))
	type mine struct{ *Directory }
	if v, err := Check(t.Context(), mine{d}, claim(t, "a", 1)); err != nil || v.Decision != Yes || v.Roles != nil {
		t.Errorf("%v, %v", v, err)
	}
}

func TestCheckWithEndedContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("why")
	cancel(why)
	if v, err := Check(ctx, TrustAny, claim(t, "a", 1)); v.Decision != Refused || !errors.Is(err, why) {
		t.Errorf("%v, %v", v, err)
	}
}

func TestDecisionString(t *testing.T) {
	for d, want := range map[Decision]string{Unknown: "unknown", Yes: "yes", Refused: "refused", 9: "Decision(9)"} {
		if d.String() != want {
			t.Errorf("%d is %s, want %s", d, d, want)
		}
	}
	if (Verdict{}).Decision == Yes {
		t.Error("the zero verdict is yes")
	}
}

func TestLearn(t *testing.T) {
	failed := errors.New("failed")
	for _, tt := range []struct {
		name    string
		verdict policy
		err     error
		want    bool
		wantErr error
	}{
		{"unknown", says(Unknown), nil, true, nil},
		{"known", says(Yes), nil, false, nil},
		{"refused", says(Refused), nil, false, ErrRefused},
		{"fails", says(Unknown), failed, false, failed},
	} {
		var learned []Claim
		got, err := Learn(t.Context(), member{policy: tt.verdict, learned: &learned, err: tt.err}, claim(t, "a", 1))
		if got != tt.want || (len(learned) == 1) != tt.want || !errors.Is(err, tt.wantErr) || (err == nil) != (tt.wantErr == nil) {
			t.Errorf("%s: %v, %v, %v", tt.name, got, err, learned)
		}
	}
	if got, err := Learn(t.Context(), says(Unknown), claim(t, "a", 1)); got || err != nil {
		t.Errorf("a policy that does not learn: %v, %v", got, err)
	}
	if _, err := Learn(t.Context(), nil, claim(t, "a", 1)); !errors.Is(err, ErrNoTrust) {
		t.Errorf("nil: %v", err)
	}
}

func TestFind(t *testing.T) {
	failed := errors.New("failed")
	want := []PublicKey{testKey(t, 1)}
	if got, err := Find(t.Context(), member{found: want}, "a"); err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := Find(t.Context(), TrustAny, "a"); err != nil || got != nil {
		t.Errorf("a policy that cannot find: %v, %v", got, err)
	}
	if _, err := Find(t.Context(), member{err: failed}, "a"); !errors.Is(err, failed) {
		t.Errorf("%v", err)
	}
	if _, err := Find(t.Context(), nil, "a"); !errors.Is(err, ErrNoTrust) {
		t.Errorf("nil: %v", err)
	}
	var e *NameError
	if _, err := Find(t.Context(), TrustAny, ""); !errors.As(err, &e) {
		t.Errorf("no ID: %v", err)
	}
}
