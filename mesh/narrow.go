package mesh

import (
	"sync/atomic"
	"time"
)

// A path is good when it carries full packets. Some lose those in silence, mostly a
// tunnel whose ICMP messages get lost (a black hole, RFC 4821 §1): checks, handshake
// and small frames pass, and nothing that fills a packet ever arrives. So each hello
// fills one, and a session whose hello was not taken in is none. Either side finds
// out by itself, as the path may be narrow one way only:
//
//	the other side's hello   and this side's hello     so
//	has not come             is not acknowledged,      narrow both ways
//	                         and nothing else came
//	has not come             is acknowledged           narrow this way
//	has come                 is not acknowledged,      narrow that way: the session
//	                         and no frame followed     ends, however it was used
//
// That the path is there is shown by its own checks, which are small.

// proof is how a session learns whether its path carries full packets.
type proof struct {
	session  *session
	hello    uint64        // bytes of this side's
	answered uint64        // checks that were when it left
	received uint64        // packets likewise
	due      time.Time     // when a path that works has proved it
	rtt      time.Duration // of the last check
	found    atomic.Int32  // a finding
}

// A finding is what a proof has come to.
const (
	findingOpen    = iota // nothing yet
	findingGreeted        // the other side's hello has come
	findingNarrow         // the path does not carry full packets
)

// greet takes note that the other side's hello has come. It reports false when that was
// too late: the path has been found narrow, and the connection is being closed.
func (p *proof) greet() bool { return p.found.CompareAndSwap(findingOpen, findingGreeted) }

// begin starts the time for the proof, before this side's hello leaves.
func (p *proof) begin(s *session, hello int) {
	p.session, p.hello = s, uint64(hello)
	p.answered, p.rtt = s.conn.Checks()
	_, p.received = s.conn.Packets()
	wait := helloWait + helloRoundTrips*min(p.rtt, maxRTT)
	p.due = time.Now().Add(wait)
	time.AfterFunc(wait, p.look)
}

// look decides, ends the connection if the path is narrow, and looks again if the path
// may be gone, which others find out.
func (p *proof) look() {
	select {
	case <-p.session.conn.Done():
		return
	default:
	}
	found := p.found.Load()
	switch narrow, open := p.judge(found == findingGreeted); {
	case narrow && found == findingGreeted && p.session.why != ReasonDial:
		// The other side may have it for good and have closed the one before: it may
		// be loss that kept its acknowledgements back. If it has not, it ends it.
	case narrow && p.found.CompareAndSwap(found, findingNarrow):
		p.session.conn.Close()
	case narrow || open: // or a hello has come just now
		time.AfterFunc(helloAgain, p.look)
	}
}

// judge reports whether the path is narrow as far as can be seen, or whether that is
// still open.
func (p *proof) judge(greeted bool) (narrow, open bool) {
	s := p.session
	acknowledged := s.conn.Queued() < p.hello
	_, received := s.conn.Packets()
	switch {
	case s.confirmed.Load() || greeted && acknowledged:
		return false, false // a hello has arrived whose taker may need its time
	case !greeted && s.why == ReasonStandby:
		return false, true // it may be about to ask trust, and has a time of its own
	case !greeted && !acknowledged && received != p.received:
		return false, true // the other side has not opened yet, and repeats its handshake
	}
	answered, _ := s.conn.Checks()
	return answered > p.answered, true
}

// until is when the proof has come or the verdict is known, if the path is there.
func (p *proof) until() time.Time { return p.due.Add(helloAgain) }

// pending reports whether the session is not to be doubted yet, because the proof is
// still on its way.
func (p *proof) pending(now time.Time) bool {
	return p.session != nil && now.Before(p.until()) && !p.session.confirmed.Load() && p.session.conn.Queued() >= p.hello
}

// verdict is why a read failed. The other side may have judged a moment before, and
// have ended what this side was about to.
func (p *proof) verdict(err error) error {
	if p.found.Load() == findingNarrow {
		return ErrNarrowPath
	}
	if p.session == nil || p.session.confirmed.Load() || time.Until(p.due).Abs() > p.rtt+helloAgain {
		return err
	}
	if answered, _ := p.session.conn.Checks(); answered > p.answered {
		return ErrNarrowPath
	}
	return err
}
