package mesh

import (
	"testing"
	"time"
)

// TestNews: news of a path end waits and bring a direct path's try forward, now and
// then; a session that works stays, and what is under way is given up once.
func TestNews(t *testing.T) {
	began := time.Now()
	at := func(d time.Duration) time.Time { return began.Add(d) }
	fresh := func() machine {
		return newMachine(withDefault(Recovery{}.withDefaults()), withDefault(Paths{}.withDefaults()), func() float64 { return 0.5 })
	}
	m := fresh()
	m.attached(at(0), ReasonDial, false, false)
	if st := m.news(at(time.Second), false); st.attempt || st.abandon || len(st.reports) > 0 || !m.next().IsZero() {
		t.Errorf("on a direct path: %+v, next %v", st, m.next())
	}

	m = fresh()
	m.attached(at(0), ReasonDial, true, false)
	if next := m.next(); next != at(m.paths.DirectEvery) {
		t.Fatalf("next after %v", next.Sub(began))
	}
	for i := range 5 { // the second and further ones come too soon
		if st := m.news(at(time.Duration(1+i)*time.Second), false); st.attempt {
			t.Errorf("on a relay: %+v", st)
		}
	}
	if next := m.next(); next != at(time.Second+networkFollows) {
		t.Errorf("a direct path is tried after %v", next.Sub(began))
	}
	if st := m.wake(m.next(), false); !st.attempt || st.why != ReasonDirectPath {
		t.Errorf("then: %+v", st)
	}
	m.failed(at(5*time.Second), false)
	again := at(time.Second + m.paths.DirectEvery)
	if next := m.next(); !next.After(again) {
		t.Fatalf("after the failure next after %v", next.Sub(began))
	}
	m.news(again, false)
	if next := m.next(); next != again.Add(networkFollows) {
		t.Errorf("news after %v bring the next to %v", again.Sub(began), next.Sub(began))
	}

	m = fresh()
	m.attached(at(0), ReasonDial, false, false)
	m.doubted(at(0), at(0), ReasonSilence, false)
	for i := range 12 { // an attempt has its time
		want := i == 0 || i == int(attemptTimeout/time.Second)
		if st := m.news(at(time.Duration(3+i)*time.Second), true); st.attempt != want || st.abandon != want {
			t.Errorf("in doubt, %d s later: %+v", i, st)
		}
	}

	m = fresh()
	m.attached(at(0), ReasonDial, false, false)
	m.lost(at(0), at(0), true)
	if st := m.news(at(time.Second), false); !st.attempt {
		t.Errorf("without a session: %+v", st)
	}
	if st := m.news(at(2*time.Second), false); st.attempt {
		t.Errorf("without a session, again: %+v", st)
	}
}

func withDefault[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
