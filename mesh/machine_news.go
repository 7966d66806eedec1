package mesh

import "time"

// news: there may be a path that there was not, but nothing is known against the one
// in use. A session that works stays; what waits for a path, or for a better one,
// looks for it. That may come again and again for no reason, so it is heeded now and
// then only.
func (m *machine) news(now time.Time, busy bool) (st step) {
	switch m.state {
	case StateRecovering, StateUnreachable:
		return m.hint(now, busy)
	case StateSuspect:
		if m.hinted.IsZero() || now.Sub(m.hinted) >= attemptTimeout {
			// What is under way does not know of it, but has its time.
			m.hinted = now
			st.abandon = true
			st.try(m.reason)
		}
	case StateConnected:
		if !m.direct.IsZero() && (m.heard.IsZero() || now.Sub(m.heard) >= m.paths.DirectEvery) {
			m.heard, m.pause = now, m.paths.DirectEvery
			if at := now.Add(networkFollows); at.Before(m.direct) {
				m.direct = at
			}
		}
	}
	return st
}
