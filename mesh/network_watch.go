package mesh

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/pion/transport/v5"
	"github.com/pion/transport/v5/netchange"
)

// notices are what the operating system tells of its network;
// *netchange.Detector is some.
type notices interface {
	// Check blocks until an interface or an address has changed, or ctx ends.
	Check(ctx context.Context) ([]netchange.Change, error)
	Close() error
}

// openNotices asks the operating system for its notices.
func openNotices() (notices, error) {
	d, err := netchange.NewDetector()
	if err != nil {
		return nil, err
	}
	// The first check tells what is there, at once.
	if _, err := d.Check(context.Background()); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// hostWatch finds out what changes about the operating system's network. Notices say
// when to look; what counts are the addresses that are there then. Where there are no
// notices, or while there are none, it looks every networkPoll: a sandbox may forbid
// netlink, and a socket or a descriptor may be missing for a while. One goroutine
// calls next.
type hostWatch struct {
	net host // whose addresses matter: the system's, or what a filter leaves of them
	log *slog.Logger

	notices notices // nil without
	told    bool    // that there are none
	reopen  time.Time
	wait    time.Duration // before the next try to open them after a failure
	looked  time.Time     // when it looked last
	follows bool          // something has just changed: what belongs to it may come yet
	failing bool          // the last look failed
	reduced bool          // it was said that not all addresses are known
	known   bool          // before is valid
	before  survey
}

// host is a network whose addresses are the operating system's.
type host interface {
	transport.Net
	// refresh makes the next call of Interfaces list them anew.
	refresh()
	// shortOf says why not every address is known, nil when all are.
	shortOf() error
	// notices asks the system to tell of changes.
	notices() (notices, error)
}

// newHostWatch begins to watch the operating system's network.
func newHostWatch(n host, log *slog.Logger) *hostWatch {
	w := &hostWatch{net: n, log: log, wait: networkRetry}
	w.tryOpen()
	w.look()
	return w
}

// next blocks until the network has changed, or ctx ends.
func (w *hostWatch) next(ctx context.Context) (change, error) {
	for {
		if err := w.pause(ctx); err != nil {
			return change{}, err
		}
		if c := w.look(); !c.none() {
			return c, nil
		}
	}
}

// pause blocks until it is time to look.
func (w *hostWatch) pause(ctx context.Context) error {
	// However many notices come, the interfaces are not listed all the time.
	if err := sleepUntil(ctx, w.looked.Add(networkPause)); err != nil {
		return err
	}
	if w.notices == nil && !time.Now().Before(w.reopen) {
		w.tryOpen()
	}
	at := w.looked.Add(networkLook)
	if w.follows {
		at = w.looked.Add(networkFollows)
	}
	if w.notices == nil {
		return sleepUntil(ctx, w.looked.Add(networkPoll))
	}
	soon, cancel := context.WithDeadline(ctx, at)
	defer cancel()
	_, err := w.notices.Check(soon)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case soon.Err() != nil:
		w.follows = false
	case err != nil:
		w.lose(err)
	default:
		w.follows = true
	}
	return nil
}

// tryOpen opens the notices, or says when to try again.
func (w *hostWatch) tryOpen() {
	src, err := w.net.notices()
	if err != nil {
		w.without(err)
		return
	}
	w.notices, w.wait = src, networkRetry
	if w.told {
		w.told = false
		w.log.Info("changes of the network are told again")
	}
}

// lose gives up notices that have failed.
func (w *hostWatch) lose(err error) {
	err = errors.Join(err, w.notices.Close())
	w.notices = nil
	w.without(err)
}

func (w *hostWatch) without(err error) {
	if !w.told {
		w.told = true
		w.log.Warn("the system does not tell of changes of the network: it is asked now and then", "every", networkPoll, "error", err)
	}
	w.reopen = time.Now().Add(w.wait)
	w.wait = min(2*w.wait, networkRetryMost)
}

// look compares the network with what it was.
func (w *hostWatch) look() change {
	w.looked = time.Now()
	w.net.refresh()
	now, err := surveyOf(w.net)
	if err != nil {
		if !w.failing {
			w.failing = true
			w.log.Warn("interfaces cannot be listed", "error", err)
		}
		return change{}
	}
	failed := w.failing
	w.failing = false
	if err := w.net.shortOf(); err != nil && !w.reduced {
		w.reduced = true
		w.log.Warn("interfaces cannot be listed: only the addresses of the default routes are known", "error", err)
	}
	if !w.known {
		w.known, w.before = true, now
		return change{all: failed} // what was there before is not known
	}
	c := compare(w.before, now)
	w.before = now
	return c
}

// close ends the notices, after the last call of next.
func (w *hostWatch) close() error {
	if w.notices == nil {
		return nil
	}
	return w.notices.Close()
}

// sleepUntil blocks until then, or ctx ends.
func sleepUntil(ctx context.Context, then time.Time) error {
	t := time.NewTimer(time.Until(then))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
