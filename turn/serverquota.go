package turn

import (
	"errors"
	"time"

	"golang.org/x/time/rate"
)

// errCapacity is why no allocation is made; pion/turn answers it with 508.
var errCapacity = errors.New("insufficient capacity")

// account is what one user has at the server. Accounts live in Server.accounts,
// which Server.mu guards.
type account struct {
	user        string
	allocations int           // guarded by Server.mu; places kept for them included
	limit       *rate.Limiter // of payload bytes, both directions
}

// take reports whether a payload may be relayed now, and charges it.
func (a *account) take(bytes int) bool { return a.limit.AllowN(time.Now(), bytes) }

// idle reports whether nothing is known of the account that a new one would not
// have.
func (a *account) idle() bool { return a.limit.Tokens() >= float64(a.limit.Burst()) }

// reserve keeps a place for one more allocation of a user, or returns nil when he
// has as many as he may. Checking and counting are one step, or requests that
// come at once by several sockets would all pass.
func (s *Server) reserve(user string) *account {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.accounts[user]
	if a == nil {
		a = s.open(user)
	}
	if a.allocations >= s.cfg.MaxAllocationsPerUser {
		return nil
	}
	a.allocations++
	return a
}

// open makes an account; s.mu is held. Accounts without allocations stay until
// their limit is as good as new, so that nobody gets a burst per allocation; when
// there are too many of them, they are forgotten all the same.
func (s *Server) open(user string) *account {
	if len(s.accounts) >= 2*s.cfg.MaxAllocations {
		for name, a := range s.accounts {
			if a.allocations == 0 {
				delete(s.accounts, name)
			}
		}
	}
	perSecond := s.cfg.BytesPerSecond
	a := &account{user: user, limit: rate.NewLimiter(rate.Limit(perSecond), max(perSecond/burstPart, minBurst))}
	s.accounts[user] = a
	return a
}

// occupy takes a place among all allocations.
func (s *Server) occupy() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining || s.total >= s.cfg.MaxAllocations {
		return errCapacity
	}
	s.total++
	return nil
}

// vacate gives up the place that occupy took.
func (s *Server) vacate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total--
	s.checkDrained()
}

// release gives up the place that reserve kept.
func (s *Server) release(a *account) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a.allocations--
	if a.allocations == 0 && a.idle() && s.accounts[a.user] == a {
		delete(s.accounts, a.user)
	}
}
