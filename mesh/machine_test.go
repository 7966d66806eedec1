package mesh

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/witness"
)

func testMachine() machine {
	r, err := Recovery{}.withDefaults()
	if err != nil {
		panic(err)
	}
	p, err := Paths{}.withDefaults()
	if err != nil {
		panic(err)
	}
	return newMachine(r, p, func() float64 { return 0.5 }) // no jitter
}

// summary writes a step in a few words: states entered, events, and what to do.
func (st step) summary() string {
	var words []string
	for _, r := range st.reports {
		switch {
		case r.event != "":
			w := string(r.event)
			if r.wait > 0 {
				w += fmt.Sprintf(" %d in %v", r.attempt, r.wait)
			} else if r.event == witness.MeshHealingAttempt {
				w += fmt.Sprintf(" %d", r.attempt)
			}
			words = append(words, w)
		default:
			words = append(words, r.to.String())
		}
	}
	if st.abandon {
		words = append(words, "ABANDON")
	}
	if st.failed {
		words = append(words, "FAILED")
	}
	if st.attempt {
		words = append(words, "TRY "+st.why.String())
	}
	return strings.Join(words, ", ")
}

// TestMachine walks the diagram of State.
func TestMachine(t *testing.T) {
	start := time.Unix(1e9, 0)
	type move struct {
		after time.Duration // since start
		do    func(m *machine, now time.Time) step
		want  string
	}
	dial := func(busy bool) func(*machine, time.Time) step {
		return func(m *machine, _ time.Time) step { return m.dial(busy) }
	}
	attached := func(why Reason, relayed bool) func(*machine, time.Time) step {
		return func(m *machine, now time.Time) step { return m.attached(now, why, relayed, false) }
	}
	doubted := func(busy bool) func(*machine, time.Time) step {
		return func(m *machine, now time.Time) step {
			return m.doubted(now, now.Add(-3*time.Second), ReasonSilence, busy)
		}
	}
	answers := func(busy bool) func(*machine, time.Time) step {
		return func(m *machine, now time.Time) step { return m.answers(now, busy) }
	}
	lost := func(busy bool) func(*machine, time.Time) step {
		return func(m *machine, now time.Time) step { return m.lost(now, now, busy) }
	}
	wants := func(why Reason, busy bool) func(*machine, time.Time) step {
		return func(m *machine, _ time.Time) step { return m.wants(why, busy) }
	}
	failed := func(busy bool) func(*machine, time.Time) step {
		return func(m *machine, now time.Time) step { return m.failed(now, busy) }
	}
	hint := func(busy bool) func(*machine, time.Time) step {
		return func(m *machine, now time.Time) step { return m.hint(now, busy) }
	}
	wake := func(busy bool) func(*machine, time.Time) step {
		return func(m *machine, now time.Time) step { return m.wake(now, busy) }
	}
	ended := func(m *machine, _ time.Time) step { return m.ended() }
	s := func(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }

	for name, moves := range map[string][]move{
		"a dial that needs two attempts": {
			{0, dial(false), "TRY dial"},
			{s(10), failed(false), ""},
			{s(10.25), wake(false), "TRY dial"},
			{s(10.5), attached(ReasonDial, false), "connected"},
			{s(11), dial(false), ""},
			{s(12), ended, "closed"},
		},
		"a dial while the other side's offer is answered": {
			{0, dial(true), "TRY dial"},
			{s(1), failed(true), ""},
			{s(1.25), wake(true), "TRY dial"},
		},
		"a dial that fails": {
			{0, dial(false), "TRY dial"},
			{s(1), ended, "failed"},
		},
		"what the other side began is its own to try again": {
			{0, failed(false), ""},
			{s(1), wake(false), ""},
			{s(1), wants(ReasonNetwork, false), ""},
			{s(1), hint(false), ""},
		},
		"doubt, and the session answers first": {
			{0, attached(ReasonDial, false), "connected"},
			{s(5), doubted(false), "suspect, TRY silence"},
			{s(5.1), doubted(true), ""},
			{s(6), answers(true), "connected, ABANDON"},
		},
		"doubt, and a new session comes first": {
			{0, attached(ReasonDial, false), "connected"},
			{s(5), doubted(false), "suspect, TRY silence"},
			{s(5.3), attached(ReasonSilence, false), "connected"},
		},
		"doubt, and attempts fail": {
			{0, attached(ReasonDial, false), "connected"},
			{s(5), doubted(false), "suspect, TRY silence"},
			{s(15), failed(false), ""},
			{s(15.25), wake(false), "TRY silence"},
			{s(25), failed(true), ""}, // another one is under way
			{s(25.1), failed(false), ""},
			{s(25.35), wake(false), "TRY silence"},
			{s(32), wake(true), "recovering, mesh_partition_detected, mesh_reconnection_scheduled 1 in 1s, ABANDON"},
			{s(33), wake(false), "mesh_healing_attempt 1, TRY partition"},
			{s(43), failed(false), "mesh_reconnection_scheduled 2 in 2s"},
			{s(44), answers(false), "mesh_partition_healed, connected, ABANDON"},
		},
		"a lost session": {
			{0, attached(ReasonDial, false), "connected"},
			{s(5), lost(false), "recovering, TRY session lost"},
			{s(6), failed(false), ""},
			{s(6.25), wake(false), "TRY session lost"},
			{s(7), attached(ReasonLost, false), "connected"},
		},
		"a lost session while a replacement is under way": {
			{0, attached(ReasonDial, false), "connected"},
			{s(1), wants(ReasonRequested, false), "replacing, TRY requested"},
			{s(2), lost(true), "recovering"},
			{s(3), attached(ReasonRequested, false), "connected"},
		},
		"replacement": {
			{0, attached(ReasonDial, false), "connected"},
			{s(1), wants(ReasonRequested, false), "replacing, TRY requested"},
			{s(1), wants(ReasonRequested, true), ""},
			{s(2), attached(ReasonRequested, false), "connected"},
			{s(3), wants(ReasonRequested, false), "replacing, TRY requested"},
			{s(13), failed(false), "connected, FAILED"},
			{s(14), wants(ReasonNetwork, false), "replacing, ABANDON, TRY network changed"},
			{s(15), wants(ReasonNetwork, true), "ABANDON, TRY network changed"},
			{s(16), attached(ReasonNetwork, false), "connected"},
		},
		"replacement, doubt, and the old session answers": {
			{0, attached(ReasonDial, false), "connected"},
			{s(1), wants(ReasonRequested, false), "replacing, TRY requested"},
			{s(4), doubted(true), "suspect"},
			{s(5), answers(true), "connected, replacing"},
			{s(6), doubted(true), "suspect"},
			{s(7), failed(false), ""},
			{s(7.1), answers(false), "connected, FAILED"},
		},
		"replacement, by an attempt that began for something else": {
			{0, attached(ReasonDial, false), "connected"},
			{s(4), doubted(false), "suspect, TRY silence"},
			{s(5), answers(true), "connected, ABANDON"},
			{s(5), wants(ReasonRequested, true), "replacing"},
			{s(5.1), failed(false), "TRY requested"},
			{s(15.1), failed(false), "connected, FAILED"},
		},
		"replacement, wished in doubt, and the old session answers": {
			{0, attached(ReasonDial, false), "connected"},
			{s(4), doubted(false), "suspect, TRY silence"},
			{s(5), wants(ReasonRequested, true), ""},
			{s(6), failed(false), ""},
			{s(6.1), answers(false), "connected, replacing, TRY requested"},
			{s(16.1), failed(false), "connected, FAILED"},
		},
		"a relay, and a direct path in the end": {
			{0, attached(ReasonDial, true), "connected"},
			{s(30), wake(false), "replacing, TRY direct path"},
			{s(40), failed(false), "connected, FAILED"},
			{s(100), wake(false), "replacing, TRY direct path"},
			{s(100.3), attached(ReasonDirectPath, false), "connected"},
			{s(3600), wake(false), ""},
		},
		"a direct path is tried, and something better is wanted": {
			{0, attached(ReasonDial, true), "connected"},
			{s(30), wake(false), "replacing, TRY direct path"},
			{s(31), wants(ReasonRequested, true), "replacing, ABANDON, TRY requested"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := testMachine()
			for i, mv := range moves {
				if got := mv.do(&m, start.Add(mv.after)).summary(); got != mv.want {
					t.Fatalf("move %d, at %v: %q, want %q", i+1, mv.after, got, mv.want)
				}
			}
		})
	}
}

// TestMachineLadder: the attempts after a partition, to the end, and the way
// back.
func TestMachineLadder(t *testing.T) {
	m := testMachine()
	now := time.Unix(1e9, 0)
	m.attached(now, ReasonDial, false, false)
	m.doubted(now, now, ReasonSilence, false)
	now = now.Add(30 * time.Second)
	if got := m.wake(now, true).summary(); !strings.Contains(got, "mesh_reconnection_scheduled 1 in 1s") {
		t.Fatal(got)
	}
	waited := time.Duration(0)
	for n := 1; n <= 10; n++ {
		wait := m.next().Sub(now)
		if want := time.Second << (n - 1); wait != want {
			t.Errorf("attempt %d waits %v, want %v", n, wait, want)
		}
		waited += wait
		now = now.Add(wait)
		if got, want := m.wake(now, false).summary(), fmt.Sprintf("mesh_healing_attempt %d, TRY partition", n); got != want {
			t.Errorf("attempt %d: %q", n, got)
		}
		now = now.Add(10 * time.Second)
		got := m.failed(now, false).summary()
		if n < 10 && !strings.Contains(got, fmt.Sprintf("mesh_reconnection_scheduled %d", n+1)) {
			t.Errorf("after attempt %d: %q", n, got)
		}
		if n == 10 && got != "peer_permanently_unreachable, unreachable" {
			t.Errorf("after the last attempt: %q", got)
		}
	}
	if waited != 1023*time.Second {
		t.Errorf("all waits are %v", waited)
	}
	if due := m.next().Sub(now); due < unreachablePause || due > unreachablePause+time.Second {
		t.Errorf("unreachable, and an attempt is due after %v", due)
	}
	// Hints make attempts that do not count, at most one in five seconds.
	if got := m.hint(now, false).summary(); got != "connecting, TRY returned" {
		t.Errorf("hint: %q", got)
	}
	if got := m.failed(now.Add(time.Second), false).summary(); got != "unreachable" {
		t.Errorf("after the hint: %q", got)
	}
	if got := m.hint(now.Add(2*time.Second), false).summary(); got != "" {
		t.Errorf("another hint at once: %q", got)
	}
	if got := m.hint(now.Add(6*time.Second), false).summary(); got != "connecting, TRY returned" {
		t.Errorf("another hint: %q", got)
	}
	// One that comes during an attempt, which may be about to end, makes the next one.
	now = now.Add(6 * time.Second)
	if got := m.hint(now.Add(9*time.Second), true).summary(); got != "" {
		t.Errorf("a hint during an attempt: %q", got)
	}
	if got := m.failed(now.Add(10*time.Second), false).summary(); got != "TRY returned" {
		t.Errorf("after that attempt: %q", got)
	}
	if got := m.failed(now.Add(20*time.Second), false).summary(); got != "unreachable" {
		t.Errorf("after the one that the hint made: %q", got)
	}
	if got := m.hint(now.Add(30*time.Second), false).summary(); got != "connecting, TRY returned" {
		t.Errorf("another hint: %q", got)
	}
	if got := m.attached(now.Add(31*time.Second), ReasonReturned, false, false).summary(); got != "mesh_partition_healed, connected" {
		t.Errorf("back: %q", got)
	}
}

// TestMachineYoung: sessions that die young are as good as attempts that fail. From the
// second in a row on the next attempt waits, and a direct path is tried less often.
func TestMachineYoung(t *testing.T) {
	m := testMachine()
	m.recovery.PartitionAfter = time.Hour
	now := time.Unix(1e9, 0)
	m.attached(now, ReasonDial, false, false)
	for i, want := range []time.Duration{0, time.Second, 4 * time.Second, 16 * time.Second, 64 * time.Second,
		2 * time.Minute, 2 * time.Minute, 2 * time.Minute, 2 * time.Minute} {
		now = now.Add(4 * time.Second)
		st := m.doubted(now, now.Add(-3*time.Second), ReasonSilence, false)
		if st.attempt != (want == 0) || want > 0 && !m.next().Equal(now.Add(want)) {
			t.Fatalf("death %d: %s, the next attempt at %v, want it after %v", i+1, st.summary(), m.next(), want)
		}
		if want > 0 {
			now = now.Add(want)
			if got := m.wake(now, false).summary(); got != "TRY silence" {
				t.Fatalf("death %d: %q", i+1, got)
			}
		}
		m.attached(now, ReasonSilence, false, false)
	}
	// One that answers again was not dead, and one that lives on ends the row.
	m.doubted(now, now, ReasonSilence, false)
	m.answers(now, false)
	if m.young != 9 || m.burnt != 9 {
		t.Errorf("%d, of them %d direct ones", m.young, m.burnt)
	}
	now = now.Add(time.Minute)
	if got := m.doubted(now, now.Add(-3*time.Second), ReasonSilence, false).summary(); got != "suspect, TRY silence" || m.burnt != 0 {
		t.Errorf("after a minute: %q", got)
	}
	// Beside a relay.
	for _, want := range []time.Duration{30 * time.Second, 30 * time.Second, 30 * time.Second, 10 * time.Minute, 10 * time.Minute} {
		now = now.Add(time.Minute)
		m.attached(now, ReasonReturned, true, false)
		if got := m.next().Sub(now); got != want {
			t.Errorf("a direct path is tried after %v, want %v", got, want)
		}
		m.attached(now, ReasonDirectPath, false, false)
		m.lost(now, now, true)
	}
	m.attached(now, ReasonNetwork, true, false)
	if got := m.next().Sub(now); got != 30*time.Second {
		t.Errorf("in another network it is tried after %v", got)
	}
}

// TestMachineNeverStuck feeds random facts and checks after each that a Peer that
// wants a session has an attempt under way, or a time for the next.
func TestMachineNeverStuck(t *testing.T) {
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 0))
		m := testMachine()
		m.random = r.Float64
		now := time.Unix(1e9, 0)
		busy := false
		var story []string
		take := func(what string, st step) {
			if st.abandon {
				busy = false
			}
			if st.attempt {
				busy = true
			}
			story = append(story, what+": "+st.summary())
		}
		take("dial", m.dial(busy))
		for range 60 {
			now = now.Add(time.Duration(r.Int64N(int64(20 * time.Second))))
			switch k := r.IntN(9); {
			case k == 0 && busy:
				busy = false
				take("attached", m.attached(now, ReasonSilence, r.IntN(2) == 0, false))
			case k == 1 && m.state.carries():
				take("doubted", m.doubted(now, now, ReasonSilence, busy))
			case k == 2 && m.met:
				take("answers", m.answers(now, busy))
			case k == 3:
				take("lost", m.lost(now, now, busy))
			case k == 4:
				take("wants", m.wants([]Reason{ReasonRequested, ReasonNetwork, ReasonDirectPath}[r.IntN(3)], busy))
			case k == 5 && busy:
				busy = false
				take("failed", m.failed(now, busy))
			case k == 6:
				take("hint", m.hint(now, busy))
			case k == 7:
				take("dial", m.dial(busy))
			default:
				if at := m.next(); !at.IsZero() {
					if at.After(now) {
						now = at
					}
					take("wake", m.wake(now, busy))
				}
			}
			restless := m.state == StateConnecting || m.state == StateReplacing || m.state == StateSuspect || m.state == StateRecovering
			if restless && !busy && m.next().IsZero() {
				t.Fatalf("seed %d: %v, and nothing is due:\n%s", seed, m.state, strings.Join(story, "\n"))
			}
			if m.state == StateReplacing && !busy {
				t.Fatalf("seed %d: replacing without an attempt:\n%s", seed, strings.Join(story, "\n"))
			}
		}
	}
}

// TestPolicies: what a policy may be.
func TestPolicies(t *testing.T) {
	for field, cfg := range map[string]Config{
		"Recovery.SuspectAfter":   {Recovery: Recovery{SuspectAfter: time.Millisecond}},
		"Recovery.AckTimeout":     {Recovery: Recovery{AckTimeout: -1}},
		"Recovery.PartitionAfter": {Recovery: Recovery{SuspectAfter: time.Minute}},
		"Recovery.Backoff":        {Recovery: Recovery{Backoff: time.Millisecond}},
		"Recovery.Attempts":       {Recovery: Recovery{Attempts: 21}},
		"Paths.RelayAfter":        {Paths: Paths{RelayAfter: -5 * time.Second}},
		"Paths.DirectEvery":       {Paths: Paths{DirectEvery: -5 * time.Second}},
		"Paths.DirectMost":        {Paths: Paths{DirectEvery: time.Hour, DirectMost: time.Minute}},
	} {
		cfg.Identity, cfg.Signaling = newIdentity(t, "agent-a"), []string{"ws://s1/"}
		cfg.Trust = newBook()
		_, err := cfg.withDefaults()
		if ce, ok := err.(*ConfigError); !ok || ce.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	p, err := Paths{RelayAfter: AtOnce, DirectEvery: Never}.withDefaults()
	if err != nil || p.RelayAfter != 0 {
		t.Errorf("%+v, %v", p, err)
	}
}
