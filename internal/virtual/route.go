package virtual

import (
	"net"
	"time"
)

// route is what one datagram meets between its socket and the core.
type route struct {
	lane   lane
	copies int // how often it is sent: 0 if it is lost
	copy   [2]hold
	queues bool // at the other end, behind the delay
}

// hold is for how long a copy is held back.
type hold struct {
	extra time.Duration // like all that goes this way, which stays in order
	late  time.Duration // beside the others
}

// route decides for a datagram. It goes nowhere if the socket was left behind by a
// move.
func (w *wire) route(c *conn, dst *net.UDPAddr, size int) route {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c.at.gone {
		return route{}
	}
	from, to := c.host, w.hosts[ip4Of(dst.IP)]
	r := route{lane: lane{from, to}, copies: 1}
	if w.odd == 0 || to == from {
		return r
	}
	now := time.Now()
	extra, twice := from.extra, from.twice.hit()
	if to != nil {
		extra += to.extra
		twice = to.twice.hit() || twice
		r.queues = !to.down.idle(now)
	}
	if twice {
		r.copies = 2
	}
	for i := range r.copies {
		through, ok := from.up.pass(now, size)
		if !ok {
			r.copies = i
			break
		}
		h := &r.copy[i]
		h.extra, h.late = extra+through.Sub(now), from.late.draw()
		if to != nil {
			h.late += to.late.draw()
		}
	}
	return r
}

// enter passes a datagram through the queue before its receiver and reports when
// it is through, and whether there was room.
func (w *wire) enter(to *Host, now time.Time, size int) (through time.Time, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return to.down.pass(now, size)
}

// count notes whether route has to look at a host; w.mu is held. One that had a rate
// counts for ever, for what still waits for it.
func (w *wire) count(h *Host) {
	odd := h.extra > 0 || h.twice.percent > 0 || h.late.percent > 0 || h.up != throttle{} || h.down != throttle{}
	if odd && !h.odd {
		w.odd++
	}
	if !odd && h.odd {
		w.odd--
	}
	h.odd = odd
}
