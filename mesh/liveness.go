package mesh

import (
	"context"
	"time"
)

// How a session knows that the other side is there. Only an answer shows that both
// directions work: a pong, a position that acknowledges something, the transport's
// own acknowledgements. That short frames come says nothing about whether this side's
// arrive; long ones cannot come for long unless the other side is acknowledged.

// prove notes that the other side has answered: it hears this side, and this
// side hears it. Only an answer shows both, be it the transport's.
func (s *session) prove() {
	s.proved.Store(int64(time.Since(s.node.start)))
	if !s.doubted.Load() || s.peer == nil {
		return
	}
	s.led.forgive(time.Now()) // before the loop may doubt it again
	s.cleared.Store(s.micros())
	if s.doubted.CompareAndSwap(true, false) {
		s.peer.post(func() { s.peer.answers(s) })
	}
}

// answered is when that was last.
func (s *session) answered() time.Time { return s.node.start.Add(time.Duration(s.proved.Load())) }

// echoed answers a ping and measures a pong. The answer is a ping of its own when
// one is due, and the greater key's answer to that travels with its next ping: two
// idle sides exchange two frames a second.
func (s *session) echoed(f *echoFrame) error {
	s.theirSent.Store(f.Sent)
	s.theirReceived.Store(f.Received)
	if f.Pong != 0 {
		if rtt := s.micros() - f.Pong - f.Held; rtt < uint64(maxRTT/time.Microsecond) {
			s.measured(time.Duration(max(rtt, 1))*time.Microsecond, f.Pong <= s.cleared.Load() || s.doubted.Load())
			s.prove()
		}
	}
	if p := s.peer; p != nil && f.Ping != 0 && p.session() != s {
		p.post(p.aside)
	}
	switch {
	case f.Ping == 0:
		return nil
	case f.Pong != 0 && s.greater() && s.unanswered.CompareAndSwap(nil, &heldPing{f.Ping, s.micros()}):
		return nil
	}
	var ping uint64
	if time.Since(s.node.start)-time.Duration(s.pinged.Load()) >= s.pingEvery()/2 {
		ping = s.micros()
	}
	return s.echo(ping, f.Ping, 0)
}

// heldPing is a ping of the other side that is answered with the next of this one.
type heldPing struct{ ping, at uint64 }

// measured smooths the round trip as RFC 6298 §2 does. That of a ping which left before
// a doubt was over counts only as the last one: the path may have been gone meanwhile, and
// what was sent was repeated (§3).
func (s *session) measured(rtt time.Duration, repeated bool) {
	switch old := time.Duration(s.rtt.Load()); {
	case old == 0:
		s.rtt.Store(int64(rtt))
		s.rttVar.Store(int64(rtt / 2))
	case !repeated:
		s.rttVar.Store((3*s.rttVar.Load() + int64((old - rtt).Abs())) / 4)
		s.rtt.Store(int64((7*old + rtt) / 8))
	}
	s.rttLast.Store(int64(rtt))
	s.node.obs.roundTrip(s.node.ctx, s, rtt)
}

// ackLimit is how long a record may stay unacknowledged: four smoothed round trips, and
// enough for one that has just grown, of which the last one and the variation tell before
// the smoothed one does.
func (s *session) ackLimit() time.Duration {
	rtt, variation, last := time.Duration(s.rtt.Load()), time.Duration(s.rttVar.Load()), time.Duration(s.rttLast.Load())
	if rtt == 0 {
		rtt = firstRTT
	}
	return max(4*rtt, rtt+4*variation, last+last/2, s.node.cfg.Recovery.AckTimeout)
}

// ping sends an echo that the other side answers.
func (s *session) ping() error {
	now := s.micros()
	if h := s.unanswered.Swap(nil); h != nil {
		return s.echo(now, h.ping, now-h.at)
	}
	return s.echo(now, 0, 0)
}

// nextPing is when the next ping is due. The greater key's come first, and the
// other side's travel with the answers.
func (s *session) nextPing() time.Time {
	at := s.node.start.Add(time.Duration(s.pinged.Load()) + s.pingEvery())
	if !s.greater() {
		at = at.Add(min(echoSlack, s.pingEvery()/4))
	}
	return at
}

// pingEvery is the pause between two pings: three times within what may be silent.
func (s *session) pingEvery() time.Duration {
	return min(echoInterval, s.node.cfg.Recovery.SuspectAfter/3)
}

// silentLimit is how long the other side may answer nothing, on a long path two round
// trips. Before the first of those it could be any.
func (s *session) silentLimit() time.Duration {
	rtt := time.Duration(s.rtt.Load())
	if rtt == 0 {
		return max(s.node.cfg.Recovery.SuspectAfter, defaultSuspectAfter)
	}
	return max(s.node.cfg.Recovery.SuspectAfter, s.pingEvery()+2*rtt)
}

// greater reports whether this side has the greater key.
func (s *session) greater() bool { return s.node.cfg.Identity.PublicKey().Compare(s.remoteKey) > 0 }

// echo says nothing while the queue is long: then the other side hears enough,
// or does not listen, and what it asks for would pile up here. On a session in
// doubt a queue of any length is long: what is in it is repeated by SCTP, which
// is probe enough.
func (s *session) echo(ping, pong, held uint64) error {
	if ping != 0 {
		s.pinged.Store(int64(time.Since(s.node.start))) // or it was not worth while
	}
	if s.conn.Wait(ended) != nil || s.doubted.Load() && s.conn.Queued() > 0 {
		return nil
	}
	sent, received := s.conn.Packets()
	return s.put((&echoFrame{Ping: ping, Pong: pong, Held: held, Sent: sent, Received: received}).encode())
}

// ended is a context whose time is over.
var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// micros is this side's clock for echoes; it is never 0.
func (s *session) micros() uint64 { return uint64(time.Since(s.node.start)/time.Microsecond) + 1 }

// stuck looks at the transport and reports whether it has handed over nothing
// since it was looked at last, with something to hand over. While it does, the
// other side is there, however long a record takes on a thin line.
func (s *session) stuck(now time.Time) bool {
	s.checked = now
	written := s.written.Load()
	if c, ok := s.conn.(*slimConn); ok {
		written += c.extra.Load()
	}
	queued := int64(s.conn.Queued())
	if queued == 0 {
		return false
	}
	moves := written-queued > s.moved
	s.moved = max(s.moved, written-queued)
	return !moves
}
