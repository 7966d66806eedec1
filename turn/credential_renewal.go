package turn

import "time"

// renewal says when to fetch the credential of one endpoint. It has no clock and
// calls nothing.
//
//	due ──fetch──▶ got ──▶ due ahead of its end, or never
//	 ▲              │ refused by the server: due after 1, 2, 4 … 30 s
//	 └── failed ────┘ due after 1, 2, 4 … 30 s; what there is serves to its end
//
// The end of a credential is a moment of the world, and the time that was left to it
// when it came is a time like any other. Whichever is over first, by its clock, ends
// it, and has it renewed: the wall clock alone would never, once it was set back, and
// the monotonic one stands still while a machine sleeps.
type renewal struct {
	cred     Credential
	version  int           // counts credentials; 0 while there is none
	since    time.Time     // when cred came
	life     time.Duration // that it had then
	due      time.Time     // by the monotonic clock; zero means never
	dueWall  time.Time     // by the wall clock; zero means never
	asked    bool          // a fetch has ended, well or badly
	failures int           // fetches in a row that failed
	refusals int           // answers in a row by which the server refused it
}

// got takes a credential that is valid at now, and reports whether it is another
// than before.
func (r *renewal) got(now instant, c Credential, spread float64) (changed bool) {
	c.Expires = c.Expires.Round(0)
	changed = r.version == 0 || c != r.cred
	r.asked, r.failures = true, 0
	r.due, r.dueWall = time.Time{}, time.Time{}
	if !c.Expires.IsZero() {
		life := c.Expires.Sub(now.wall)
		r.since, r.life = now.mono, life
		ahead := max(life/5, min(fetchAhead, life/2))
		// Earlier by up to a fifth of what is ahead, so that agents that began
		// together do not ask together.
		ahead += time.Duration(float64(ahead) * max(spread, 0))
		life -= min(ahead, life)
		r.due, r.dueWall = now.mono.Add(life), now.wall.Add(life)
	}
	if changed {
		r.cred = c
		r.version++
	} else if r.refusals > 0 {
		r.again(now.mono, r.refusals, spread) // it was refused: ask on, until there is another
	}
	return changed
}

// failed notes that the fetch failed.
func (r *renewal) failed(now instant, spread float64) {
	r.asked = true
	r.failures++
	r.due, r.dueWall = time.Time{}, time.Time{}
	r.again(now.mono, r.failures, spread)
}

// refused notes that the server refuses the credential: the secret may have
// changed.
func (r *renewal) refused(now instant, spread float64) {
	r.refusals++
	r.again(now.mono, r.refusals, spread)
}

// accepted notes that the server took it.
func (r *renewal) accepted() { r.refusals = 0 }

// again makes a fetch due after the backoff's step n, or earlier if it is due.
func (r *renewal) again(now time.Time, n int, spread float64) {
	r.due = earlier(r.due, now.Add(spreadBy(backoff(n), spread)))
}

// jumped notes that the clocks parted: whoever could not give a credential may have
// been judged by the wrong time, or asked by a machine that was about to sleep.
func (r *renewal) jumped(now instant) {
	if r.failures > 0 || r.version > 0 && !r.usable(now) {
		r.failures = 0
		r.due = now.mono
	}
}

// isDue reports whether it is time to fetch, and otherwise how long there is until
// then; negative means for ever.
func (r *renewal) isDue(now instant) (due bool, in time.Duration) {
	return first(now, r.due, r.dueWall)
}

// usable reports whether there is a credential at now.
func (r *renewal) usable(now instant) bool {
	return r.version > 0 && !r.cred.expired(now.wall) && (r.cred.Expires.IsZero() || now.mono.Sub(r.since) < r.life)
}

// left is how long the credential is usable still; negative means for ever.
func (r *renewal) left(now instant) time.Duration {
	if r.cred.Expires.IsZero() {
		return -1
	}
	_, in := first(now, r.since.Add(r.life), r.cred.Expires)
	return in
}

// first reports whether one of two times, of the monotonic and of the wall clock, has
// come, and otherwise how long there is until the earlier one; negative means for ever,
// which a time of zero is.
func first(now instant, mono, wall time.Time) (come bool, in time.Duration) {
	in = -1
	for _, left := range []struct{ at, now time.Time }{{mono, now.mono}, {wall, now.wall}} {
		if left.at.IsZero() {
			continue
		}
		d := max(left.at.Sub(left.now), 0)
		if in < 0 || d < in {
			in = d
		}
	}
	return in == 0, in
}

// backoff is step n of 1, 2, 4 … 30 s, counted from 1.
func backoff(n int) time.Duration {
	if n > 5 {
		return maxPause
	}
	return min(retryPause<<max(n-1, 0), maxPause)
}

// spreadBy changes d by at most jitter of it; spread is between -1 and 1.
func spreadBy(d time.Duration, spread float64) time.Duration {
	return d + time.Duration(float64(d)*jitter*spread)
}
