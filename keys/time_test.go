package keys

import (
	"context"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// asked is a policy that keeps what it was asked.
type asked struct {
	until time.Time
	got   *Claim
}

func (a asked) Check(_ context.Context, c Claim) (Verdict, error) {
	*a.got = c
	return Verdict{Decision: Yes, Until: a.until}, nil
}

// TestTimesOfTheWorld: times with a reading of the process's clock are compared by
// that reading, which stands still in a machine that sleeps; so none is left
// where a policy compares them, or its asker does.
func TestTimesOfTheWorld(t *testing.T) {
	now := time.Now()
	if !strings.Contains(now.String(), " m=") {
		t.Fatalf("%v has no reading", now)
	}
	var got Claim
	policy := asked{now.Add(time.Minute), &got}
	c := claim(t, "a", 1)
	c.Time = now
	for name, trust := range map[string]Trust{"alone": policy, "composed": Compose(policy), "twice": Compose(Compose(policy))} {
		v, err := Check(t.Context(), trust, c)
		if err != nil || !v.Until.Equal(policy.until) || !got.Time.Equal(now) {
			t.Errorf("%s: %v, %v, asked at %v", name, v, err, got.Time)
		}
		if text := v.Until.String() + got.Time.String(); strings.Contains(text, " m=") {
			t.Errorf("%s: a reading is left: %s", name, text)
		}
	}
}

// TestDirectoryAfterTheClockWasSetBack: a file whose time lies in the future is
// read each time, and one whose time went back is another file.
func TestDirectoryAfterTheClockWasSetBack(t *testing.T) {
	d, path, _ := newDirectory(t, listing(Entry{"a", testKey(t, 1), nil}))
	ahead, back := time.Now().Add(time.Hour), time.Now().Add(-24*365*time.Hour)
	for n, mtime := range []time.Time{ahead, ahead, back, ahead} {
		key := testKey(t, byte(n+2))
		writeFile(t, path, listing(Entry{"a", key, nil})) // always of one size
		if err := os.Chtimes(path, mtime, mtime); err != nil {
			t.Fatal(err)
		}
		if got := decision(t, d, Claim{ID: "a", Key: key, Time: epoch}); got != Yes || d.Err() != nil {
			t.Errorf("change %d was missed: %v, %v", n, got, d.Err())
		}
	}
}

// TestFileAheadOfTheClockSettles: it is not read for each question for as long as
// the clock takes to catch up.
func TestFileAheadOfTheClockSettles(t *testing.T) {
	d, path, _ := newDirectory(t, listing(Entry{"a", testKey(t, 1), nil}))
	ahead := time.Now().Add(time.Hour)
	write := func(n byte, mtime time.Time) {
		t.Helper()
		writeFile(t, path, listing(Entry{"a", testKey(t, n), nil}))
		if err := os.Chtimes(path, mtime, mtime); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) { // its clock stands decades behind that of the file system
		expect := func(step string, n byte) {
			t.Helper()
			if got := decision(t, d, claim(t, "a", n)); got != Yes {
				t.Errorf("%s: %v", step, got)
			}
		}
		write(1, ahead)
		expect("at first", 1)
		time.Sleep(settleTime - time.Millisecond)
		write(2, ahead)
		expect("a write without a trace, in time", 2)
		time.Sleep(time.Millisecond)
		expect("settles", 2)
		write(3, ahead) // shows whether it is read
		expect("not read again", 2)
		write(3, ahead.Add(time.Millisecond))
		expect("a change", 3)
	})
}
