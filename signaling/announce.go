package signaling

// announcement is what the broker knows of a registration.
type announcement struct {
	present bool // what it was told last
	busy    bool // somebody is telling it
	again   bool // and has to look once more
}

// announce brings the broker up to date about r. Connections of one key can come
// and go at the same time: one of them tells the broker, and the others leave it to
// that one to look again, so that the last word is the true one. Nothing is locked
// while the broker is called: one that hangs keeps nobody else.
func (s *Server) announce(r Registration) {
	if s.broker == nil {
		return
	}
	s.announcing.Lock()
	defer s.announcing.Unlock()
	a := s.announced[r]
	if a == nil {
		a = new(announcement)
		s.announced[r] = a
	}
	if a.busy {
		a.again = true
		return
	}
	a.busy = true
	for looking := true; looking; looking = a.again {
		a.again = false
		present := s.reg.isLocal(r)
		if present == a.present {
			continue
		}
		a.present = present
		s.announcing.Unlock()
		err := s.broker.Announce(r, present)
		s.announcing.Lock()
		if err != nil {
			s.cfg.Logger.Error("broker does not take an announcement", "agent", r.Agent, "error", err)
		}
	}
	a.busy = false
	if !a.present {
		delete(s.announced, r)
	}
}
