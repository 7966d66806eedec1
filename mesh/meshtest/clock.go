package meshtest

import "time"

// SetClock sets the wall clock of an agent's machine, so that it is ahead of the
// world's by off, or behind when off is negative. No timer notices. The clock goes on
// being wrong through Kill and Restart; Mend sets it right.
func (u *Universe) SetClock(name string, off time.Duration) {
	u.t.Helper()
	a := u.agent("set clock", name)
	u.Note("set the clock of %s %v ahead", name, off)
	a.setClock(off)
}

// Sleep puts an agent's machine to sleep until Wake: nothing comes from it and nothing
// reaches it, as with Stop. Its timers run on, as there is one clock for all timers in a
// bubble.
func (u *Universe) Sleep(name string) {
	u.t.Helper()
	a := u.agent("sleep", name)
	u.Note("sleep %s", name)
	a.stop()
}

// Wake ends what Sleep began, and the machine's wall clock is so much further ahead: the
// two clocks of the process have parted, as after a sleep that long. An agent whose clock
// was behind by as much has the right time then.
func (u *Universe) Wake(name string, slept time.Duration) {
	u.t.Helper()
	a := u.agent("wake", name)
	u.Note("wake %s after %v", name, slept)
	a.setClock(a.off + slept)
	a.proceed()
}

// setClock makes the clock wrong by off.
func (a *Agent) setClock(off time.Duration) {
	a.clock.Step(off - a.off)
	a.off = off
}
