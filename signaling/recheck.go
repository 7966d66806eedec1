package signaling

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/infrafabric/agentmesh/internal/wallclock"
	"github.com/infrafabric/agentmesh/keys"
)

// watchTrust asks the trust policy about every registered agent, at intervals,
// when the policy announces a change and when the clocks part, and ends the
// registrations that it no longer admits. It ends when the server drains.
func (s *Server) watchTrust() {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	defer closeWith(s.drain, cancel)()
	parted := make(chan struct{}, 1)
	s.wg.Go(func() {
		wallclock.Watch(ctx, s.cfg.Time, clockTick, func(by time.Duration) {
			s.cfg.Logger.Info("the wall clock left the monotonic one", "by", by)
			select {
			case parted <- struct{}{}:
			default:
			}
		})
	})
	tick := time.NewTicker(s.cfg.RecheckInterval)
	defer tick.Stop()
	changed := s.trustChanged()
	for {
		select {
		case <-tick.C:
		case <-changed:
		case <-parted:
		case <-ctx.Done():
			return
		}
		changed = s.trustChanged() // before asking, so that no change falls between
		s.recheck(ctx)
	}
}

func (s *Server) trustChanged() <-chan struct{} {
	if a, ok := s.cfg.Trust.(keys.Announcer); ok {
		return a.Changed()
	}
	return nil
}

// recheck asks about every agent. An answer may take as long as one to a newcomer.
func (s *Server) recheck(ctx context.Context) {
	s.mu.Lock()
	conns := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		if ctx.Err() != nil {
			return
		}
		within, cancel := context.WithTimeout(ctx, s.cfg.Limits.Handshake)
		err := c.checkTrust(within)
		cancel()
		var ne *NoticeError
		switch {
		case !errors.As(err, &ne):
			c.asked = time.Now()
		case ctx.Err() != nil:
			return
		case ne.Notice.Code == CodeUnavailable && time.Since(c.asked) < trustGrace:
		default:
			c.finish(ne.Notice.Code, ne.Notice.Text)
		}
	}
}

// passing reports whether a trust policy failed because it could not look, and not
// because of what it saw: its time was over, or the machine is short of something.
// Nothing else is: an error that nobody understands is a refusal.
func passing(err error) bool {
	var ne net.Error
	var errno syscall.Errno
	switch {
	case err == nil:
		return false
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.Is(err, os.ErrDeadlineExceeded):
		return true
	case errors.As(err, &errno):
		return !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission)
	case errors.As(err, &ne):
		return true
	}
	return false
}
