package turn

import "time"

// renewal says when to fetch the credential of one endpoint. It has no clock and
// calls nothing.
//
//	due ──fetch──▶ got ──▶ due ahead of its end, or never
//	 ▲              │ refused by the server: due after 1, 2, 4 … 30 s
//	 └── failed ────┘ due after 1, 2, 4 … 30 s; what there is serves to its end
type renewal struct {
	cred     Credential
	version  int       // counts credentials; 0 while there is none
	due      time.Time // zero means never
	asked    bool      // a fetch has ended, well or badly
	failures int       // fetches in a row that failed
	refusals int       // answers in a row by which the server refused it
}

// got takes a credential that is valid at now, and reports whether it is another
// than before.
func (r *renewal) got(now time.Time, c Credential, spread float64) (changed bool) {
	c.Expires = c.Expires.Round(0) // the wall clock: it goes on while a computer sleeps
	changed = r.version == 0 || c != r.cred
	r.asked, r.failures = true, 0
	r.due = time.Time{}
	if !c.Expires.IsZero() {
		life := c.Expires.Sub(now)
		ahead := max(life/5, min(fetchAhead, life/2))
		// Earlier by up to a fifth of what is ahead, so that agents that began
		// together do not ask together.
		ahead += time.Duration(float64(ahead) * max(spread, 0))
		r.due = now.Add(life - min(ahead, life))
	}
	if changed {
		r.cred = c
		r.version++
	} else if r.refusals > 0 {
		r.again(now, r.refusals, spread) // it was refused: ask on, until there is another
	}
	return changed
}

// failed notes that the fetch failed.
func (r *renewal) failed(now time.Time, spread float64) {
	r.asked = true
	r.failures++
	r.due = time.Time{}
	r.again(now, r.failures, spread)
}

// refused notes that the server refuses the credential: the secret may have
// changed.
func (r *renewal) refused(now time.Time, spread float64) {
	r.refusals++
	r.again(now, r.refusals, spread)
}

// accepted notes that the server took it.
func (r *renewal) accepted() { r.refusals = 0 }

// again makes a fetch due after the backoff's step n, or earlier if it is due.
func (r *renewal) again(now time.Time, n int, spread float64) {
	at := now.Add(spreadBy(backoff(n), spread))
	if r.due.IsZero() || at.Before(r.due) {
		r.due = at
	}
}

// usable reports whether there is a credential at now.
func (r *renewal) usable(now time.Time) bool { return r.version > 0 && !r.cred.expired(now) }

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
