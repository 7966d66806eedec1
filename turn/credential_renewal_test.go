package turn

import (
	"testing"
	"time"
)

// TestRenewalDue: how long before its end a credential is renewed.
func TestRenewalDue(t *testing.T) {
	now := time.Unix(1000, 0)
	for life, ahead := range map[time.Duration]time.Duration{
		24 * time.Hour:    288 * time.Minute,
		10 * time.Minute:  2 * time.Minute,
		5 * time.Minute:   time.Minute,
		3 * time.Minute:   time.Minute,
		100 * time.Second: 50 * time.Second,
		10 * time.Second:  5 * time.Second,
	} {
		for _, spread := range []float64{-1, 0, 1} {
			var r renewal
			r.got(now, Credential{Username: "u", Password: "p", Expires: now.Add(life)}, spread)
			least, most := ahead, ahead
			if spread > 0 {
				most = 2 * ahead
			}
			if got := now.Add(life).Sub(r.due); got < least || got > most || r.due.Before(now) {
				t.Errorf("a life of %v, spread %v: %v ahead, want %v", life, spread, got, ahead)
			}
		}
	}
	var r renewal
	r.due = now
	if r.got(now, Credential{Username: "u", Password: "p"}, 0); !r.due.IsZero() {
		t.Errorf("one that never ends is due at %v", r.due)
	}
}

// TestRenewalSteps: failures and refusals back off, each by itself.
func TestRenewalSteps(t *testing.T) {
	now := time.Unix(1000, 0)
	first := Credential{Username: "u", Password: "p"}
	var r renewal
	if r.usable(now) || r.asked {
		t.Error("usable before there is one")
	}
	for _, want := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		if r.failed(now, 0); r.due.Sub(now) != want*time.Second || !r.asked {
			t.Errorf("failed: due after %v, want %d s", r.due.Sub(now), want)
		}
	}
	if !r.got(now, first, 0) || !r.usable(now) || r.version != 1 {
		t.Errorf("%+v", r)
	}
	for _, want := range []time.Duration{1, 2, 4} {
		r.refused(now, 0)
		if r.due.Sub(now) != want*time.Second {
			t.Errorf("refused: due after %v, want %d s", r.due.Sub(now), want)
		}
		if r.got(now, first, 0) || r.version != 1 || !r.due.IsZero() {
			t.Errorf("the same is another: %+v", r)
		}
	}
	r.accepted()
	if r.refused(now, 0); r.due.Sub(now) != time.Second {
		t.Errorf("after success: due after %v", r.due.Sub(now))
	}
	if r.failed(now, 0); r.due.Sub(now) != time.Second {
		t.Errorf("the first failure: due after %v", r.due.Sub(now))
	}
}
