package mesh

import (
	"time"

	"github.com/infrafabric/agentmesh/witness"
)

// machine decides what a Peer does next; the diagram is that of State. It is
// pure: facts and the time go in, a step comes out, and the Peer's loop carries
// it out. The attempts themselves, their sessions and their order are the
// loop's; the machine knows only whether one is under way.
type machine struct {
	recovery Recovery
	paths    Paths
	random   func() float64 // in [0, 1)

	state     State
	reason    Reason
	met       bool          // there was a session once
	dialling  bool          // somebody waits for the first one
	replacing Reason        // why a replacement is under way; valid if replace
	replace   bool          // one is wanted beside the session that works
	joined    bool          // what is under way began for something else; valid if replace
	answered  time.Time     // when the other side last proved to be there
	due       time.Time     // when the next attempt begins; zero is none
	tried     int           // attempts since the partition was noticed
	missed    int           // attempts of a dial that failed since the last sign of the other side
	away      bool          // the last one because nobody is registered under the name
	parted    bool          // it was
	hinted    time.Time     // when a hint last began an attempt
	late      bool          // one came when an attempt was under way, perhaps at its end
	direct    time.Time     // when a direct path is tried; zero is never
	pause     time.Duration // before that
	heard     time.Time     // when news last brought that forward

	since   time.Time // when the session in use was attached
	relayed bool      // it is on a relay
	counted bool      // it counts among those that died young
	young   int       // sessions in a row that died young
	burnt   int       // direct ones, without one in between that did not
}

// step is what the loop has to do, in this order.
type step struct {
	abandon bool   // give up attempts that have not opened a connection yet
	attempt bool   // begin one, for the machine's reason
	why     Reason // that reason
	reports []report
	failed  bool // a wanted replacement did not come about
}

// report is something to tell the application, the log, the recorder and the
// instruments.
type report struct {
	from, to State
	reason   Reason
	event    witness.Name // of a partition, or ""
	attempt  int
	wait     time.Duration
	silent   time.Duration // how long nothing had been answered
}

func newMachine(r Recovery, p Paths, random func() float64) machine {
	return machine{recovery: r, paths: p, random: random, state: StateConnecting}
}

// to makes every transition.
func (m *machine) to(st *step, s State, why Reason) {
	if m.state == s && m.reason == why {
		return
	}
	st.reports = append(st.reports, report{from: m.state, to: s, reason: why})
	m.state, m.reason = s, why
}

func (m *machine) event(st *step, name witness.Name, wait, silent time.Duration) {
	st.reports = append(st.reports, report{from: m.state, to: m.state, reason: m.reason,
		event: name, attempt: m.tried, wait: wait, silent: silent})
}

func (st *step) try(why Reason) { st.attempt, st.why = true, why }

// dial: an application asks for the Peer.
func (m *machine) dial(busy bool) (st step) {
	switch {
	case !m.met:
		m.dialling, m.missed = true, 0
		st.try(ReasonDial)
	case !busy && (m.state == StateRecovering || m.state == StateUnreachable):
		m.comeback(&st)
	}
	return st
}

// attached: a session is established and carries the messages from now on.
// One in small packets has a direct path to look for as much as one on a relay.
func (m *machine) attached(now time.Time, why Reason, relayed, narrow bool) (st step) {
	switch why {
	case ReasonSilence, ReasonUnacknowledged, ReasonLost:
		m.count(now) // the other side may have been in doubt alone
	default:
		if !m.early(now) {
			m.count(now) // the one before lived
		}
	}
	m.met, m.dialling, m.replace = true, false, false
	m.since, m.relayed, m.counted = now, relayed, false
	if why == ReasonNetwork {
		m.young, m.burnt = 0, 0
	}
	m.answered, m.due = now, time.Time{}
	m.healed(&st, why)
	if len(st.reports) == 0 || st.reports[len(st.reports)-1].to != StateConnected || st.reports[len(st.reports)-1].event != "" {
		// It was connected, for the same reason: the path may be another.
		st.reports = append(st.reports, report{from: m.state, to: m.state, reason: why})
	}
	if !relayed && !narrow || m.paths.DirectEvery == Never {
		m.direct, m.pause = time.Time{}, 0
	} else if m.direct.IsZero() || why == ReasonNetwork {
		m.pause = m.directPause(m.burnt)
		m.direct = now.Add(m.jitter(m.pause))
	}
	return st
}

// directPause is how long after a session began a direct path is tried, when so many
// direct sessions died young. Two may be accidents; more are not.
func (m *machine) directPause(burnt int) time.Duration {
	if burnt > 2 && m.paths.DirectEvery != Never {
		return m.paths.DirectMost
	}
	return m.paths.DirectEvery
}

// early reports whether the session in use, which answered last then, is one that
// dies young.
func (m *machine) early(answered time.Time) bool { return answered.Sub(m.since) < youngSession }

// count notes that the session in use is dead, or in doubt. The answer is how long to
// wait before the next: on a path that lets only the beginning of each session pass,
// sessions come to nothing as fast as they can be made.
func (m *machine) count(answered time.Time) (wait time.Duration) {
	switch {
	case m.counted || !m.met:
	case m.early(answered):
		m.counted = true
		m.young++
		if !m.relayed {
			m.burnt++
		}
	default:
		m.young = 0
		if !m.relayed {
			m.burnt = 0
		}
	}
	if m.young < 2 {
		return 0
	}
	return m.jitter(min(m.recovery.Backoff<<min(2*(m.young-2), maxLadder), youngPauseMost))
}

// again begins the next attempt, or plans it.
func (m *machine) again(st *step, now time.Time, wait time.Duration, why Reason) {
	if wait > 0 {
		m.due = now.Add(wait)
	} else {
		st.try(why)
	}
}

// healed goes back to connected.
func (m *machine) healed(st *step, why Reason) {
	if m.parted {
		m.event(st, witness.MeshPartitionHealed, 0, 0)
	}
	m.parted, m.tried, m.hinted, m.late = false, 0, time.Time{}, false
	m.to(st, StateConnected, why)
}

// doubted: the session in use is silent, or does not acknowledge; answered is
// when the other side was there last.
func (m *machine) doubted(now, answered time.Time, why Reason, busy bool) (st step) {
	m.answered = answered
	m.noDirect()
	switch m.state {
	case StateConnected, StateReplacing:
		wait := m.count(answered)
		m.to(&st, StateSuspect, why)
		if !busy {
			m.again(&st, now, wait, why)
		}
	}
	return st
}

// noDirect: the attempt at a direct path, if there was one, is given up.
func (m *machine) noDirect() {
	if m.replacing == ReasonDirectPath {
		m.replace = false
	}
}

// answers: the other side answered on the session in use.
func (m *machine) answers(now time.Time, busy bool) (st step) {
	m.answered = now
	if m.counted { // it lives
		m.counted = false
		m.young--
		if !m.relayed {
			m.burnt--
		}
	}
	switch m.state {
	case StateSuspect, StateRecovering, StateUnreachable, StateConnecting:
		m.due = time.Time{}
		m.healed(&st, ReasonAnswers)
		switch {
		case m.replace && (busy || m.joined):
			m.to(&st, StateReplacing, m.replacing)
			if !busy {
				m.joined = false
				st.try(m.replacing)
			}
		case m.replace:
			m.replace, st.failed = false, true
		default:
			st.abandon = true
		}
	}
	return st
}

// lost: no session is left.
func (m *machine) lost(now, answered time.Time, busy bool) (st step) {
	m.answered = answered
	switch m.state {
	case StateConnected, StateReplacing, StateSuspect:
		wait := m.count(answered)
		m.direct = time.Time{}
		m.noDirect()
		m.to(&st, StateRecovering, ReasonLost)
		if !busy && m.due.IsZero() {
			m.again(&st, now, wait, ReasonLost)
		}
	}
	return st
}

// wants: a session above the present one is asked for, here or by the other
// side. A change of the network makes attempts under way pointless.
func (m *machine) wants(why Reason, busy bool) (st step) {
	if !m.met && !m.dialling {
		return st // the other side's to mend
	}
	if why == ReasonNetwork || m.replace && m.replacing == ReasonDirectPath && why != ReasonDirectPath {
		busy, st.abandon, st.why = false, true, why
	}
	if !m.replace {
		m.joined = busy
	}
	switch m.state {
	case StateConnected, StateReplacing:
		m.replace, m.replacing = true, why
		m.to(&st, StateReplacing, why)
		if !busy {
			st.try(why)
		}
	case StateSuspect:
		m.replace, m.replacing = true, why
		if !busy {
			st.try(why)
		}
	case StateRecovering, StateUnreachable:
		if !busy {
			m.comeback(&st)
		}
	case StateConnecting:
		if !busy {
			st.try(why)
		}
	}
	return st
}

// hint: the other side, or the way to it, may be back. Nobody has proved that,
// so it ends a wait only now and then.
func (m *machine) hint(now time.Time, busy bool) (st step) {
	if m.state == StateConnecting && m.dialling && !m.met {
		if !busy && !m.due.IsZero() && (m.hinted.IsZero() || now.Sub(m.hinted) >= hintPause) {
			m.hinted, m.due = now, time.Time{}
			st.try(ReasonDial)
		}
		return st
	}
	if busy && m.met && (m.state == StateUnreachable || m.state == StateRecovering || m.state == StateConnecting) {
		m.late = true // what is under way may end before it is any use
	}
	waits := m.state == StateUnreachable || m.state == StateRecovering
	if !waits || busy || !m.hinted.IsZero() && now.Sub(m.hinted) < hintPause {
		return st
	}
	m.hinted = now
	m.comeback(&st)
	return st
}

// relaysChanged: a relay that did not answer works again, or the attempt under way was
// on one that does not, as this side has seen itself.
func (m *machine) relaysChanged(busy bool) (st step) {
	switch {
	case busy:
	case m.state == StateUnreachable || m.state == StateRecovering:
		m.comeback(&st)
	case m.state == StateSuspect:
		st.try(m.reason)
	case m.state == StateConnecting && (m.met || m.dialling):
		st.try(m.reason)
	}
	return st
}

// comeback begins an attempt that does not count.
func (m *machine) comeback(st *step) {
	if m.state == StateUnreachable {
		m.due = time.Time{}
		m.to(st, StateConnecting, ReasonReturned)
	}
	st.try(ReasonReturned)
}

// failed: an attempt made no session. Others may be under way.
func (m *machine) failed(now time.Time, busy bool) (st step) {
	if m.late && !busy {
		m.late = false
		if m.state != StateReplacing && (m.hinted.IsZero() || now.Sub(m.hinted) >= hintPause) {
			m.hinted = now
			st.try(m.reason)
			return st
		}
	}
	switch m.state {
	case StateConnecting:
		switch {
		case m.met && !busy:
			m.give(&st, now)
		case m.dialling:
			// Also while an answer is under way: its offerer may have given up.
			m.due = now.Add(m.redial())
		}
	case StateReplacing:
		if busy {
			break
		}
		if m.joined {
			m.joined = false
			st.try(m.replacing)
			return st
		}
		if m.replacing == ReasonDirectPath && !m.direct.IsZero() {
			m.pause = min(2*m.pause, m.paths.DirectMost)
			m.direct = now.Add(m.jitter(m.pause))
		}
		m.replace, st.failed = false, true
		m.to(&st, StateConnected, ReasonFailed)
	case StateSuspect, StateRecovering:
		if busy || !m.due.IsZero() {
			break
		}
		switch {
		case !m.parted:
			m.due = now.Add(redialPause)
		case m.tried < m.recovery.Attempts:
			m.schedule(&st, now)
		default:
			m.event(&st, witness.PeerPermanentlyUnreachable, 0, now.Sub(m.answered))
			m.give(&st, now)
		}
	}
	return st
}

// redial is the pause before the next attempt of a dial. It grows while nobody answers:
// a sign of the other side ends it.
func (m *machine) redial() time.Duration {
	most := redialMost
	if m.away {
		most = absentMost
	}
	d := redialPause
	for i := 0; i < m.missed && d < most; i++ {
		d *= 2
	}
	m.missed++
	return m.jitter(min(d, most))
}

// undial: nobody here waits for the first session any more.
func (m *machine) undial() { m.dialling, m.due = false, time.Time{} }

// give gives up but for an attempt now and then: a relay or a path that is back
// makes no sign.
func (m *machine) give(st *step, now time.Time) {
	m.to(st, StateUnreachable, ReasonExhausted)
	m.due = now.Add(m.jitter(unreachablePause))
}

// schedule sets when the next attempt of the ladder begins.
func (m *machine) schedule(st *step, now time.Time) {
	wait := max(m.jitter(m.recovery.Backoff<<m.tried), m.due.Sub(now))
	m.due = now.Add(wait)
	m.tried++
	m.event(st, witness.MeshReconnectionScheduled, wait, 0)
	m.tried--
}

// jitter is d, give or take a fifth, so that the ends of a partition do not
// all come back at one instant.
func (m *machine) jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (1 + recoveryJitter*(2*m.random()-1)))
}

// wake: the time that next named has come.
func (m *machine) wake(now time.Time, busy bool) (st step) {
	if at := m.partitionAt(); !at.IsZero() && !now.Before(at) {
		m.parted, m.tried = true, 0
		m.to(&st, StateRecovering, ReasonPartition)
		m.event(&st, witness.MeshPartitionDetected, 0, now.Sub(m.answered))
		st.abandon = true
		m.schedule(&st, now)
		return st
	}
	if !m.due.IsZero() && !now.Before(m.due) {
		m.due = time.Time{}
		switch {
		case m.state == StateUnreachable && busy:
			m.due = now.Add(m.jitter(unreachablePause))
			return st
		case m.state == StateUnreachable:
			m.comeback(&st)
			return st
		case m.parted:
			m.tried++
			m.event(&st, witness.MeshHealingAttempt, 0, 0)
		}
		if !busy || !m.met {
			st.try(m.reason)
		}
	}
	if !m.direct.IsZero() && !now.Before(m.direct) && m.state == StateConnected {
		m.direct = now.Add(m.pause) // until the attempt ends
		m.replace, m.replacing, m.joined = true, ReasonDirectPath, false
		m.to(&st, StateReplacing, ReasonDirectPath)
		st.try(ReasonDirectPath)
	}
	return st
}

// partitionAt is when silence becomes a partition, zero for not.
func (m *machine) partitionAt() time.Time {
	if m.parted || m.state != StateSuspect && m.state != StateRecovering {
		return time.Time{}
	}
	return m.answered.Add(m.recovery.PartitionAfter)
}

// next is when wake wants to be called, zero for not.
func (m *machine) next() time.Time {
	at := m.due
	if p := m.partitionAt(); !p.IsZero() && (at.IsZero() || p.Before(at)) {
		at = p
	}
	if m.state == StateConnected && !m.direct.IsZero() && (at.IsZero() || m.direct.Before(at)) {
		at = m.direct
	}
	return at
}

// ended: the Peer is over.
func (m *machine) ended() (st step) {
	m.due, m.direct = time.Time{}, time.Time{}
	if m.met {
		m.to(&st, StateClosed, ReasonEnded)
	} else {
		m.to(&st, StateFailed, ReasonEnded)
	}
	return st
}
