package signaling

import (
	"errors"
	"time"

	"github.com/infrafabric/agentmesh/keys"
)

// recheckLoop asks the trust policy about every registered agent, at intervals
// and when the policy announces a change, and ends the registrations that it no
// longer admits.
func (s *Server) recheckLoop() {
	tick := time.NewTicker(s.cfg.RecheckInterval)
	defer tick.Stop()
	changed := s.trustChanged()
	for {
		select {
		case <-tick.C:
		case <-changed:
		case <-s.drain:
			return
		}
		changed = s.trustChanged() // before asking, so that no change falls between
		s.recheck()
	}
}

func (s *Server) trustChanged() <-chan struct{} {
	if a, ok := s.cfg.Trust.(keys.Announcer); ok {
		return a.Changed()
	}
	return nil
}

func (s *Server) recheck() {
	s.mu.Lock()
	conns := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		if s.ctx.Err() != nil {
			return
		}
		var ne *NoticeError
		if err := c.checkTrust(s.ctx); errors.As(err, &ne) {
			c.finish(ne.Notice.Code, ne.Notice.Text)
		}
	}
}
