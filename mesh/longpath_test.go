package mesh

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/internal/virtual"
)

// TestLongPath: on a long path without any loss nothing is repeated, nobody is in doubt,
// and one session is enough, idle and in use. A round trip beyond a second is longer than
// the timeout that SCTP begins with: what is sent first goes out twice, and what did is
// not measured (RFC 9260 §6.3.1), so that it may stay so, and one doubt arise. A
// HEARTBEAT would measure it, but pion does not know the answer when it comes.
func TestLongPath(t *testing.T) {
	for _, rtt := range []time.Duration{50, 100, 300, 600, 1200} {
		rtt *= time.Millisecond
		beyond := rtt > time.Second
		inWorld(t, virtual.Config{RTT: rtt}, func(w *world) {
			noSTUN := func(c *Config) { c.STUN = nil }
			a, b := w.agent("agent-a", virtual.Open, noSTUN), w.agent("agent-b", virtual.Open, noSTUN)
			p, q := w.pair(a, b)
			here, there := stories(p), stories(q)
			time.Sleep(20 * time.Second)
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
			defer cancel()
			const n, size = 100, 10_000
			for _, d := range [][2]*Peer{{p, q}, {q, p}} {
				before, start := w.net.Datagrams(), time.Now()
				go func() {
					for range n {
						if d[0].Send(ctx, Message{Payload: digits(size)}) != nil {
							return
						}
					}
				}()
				for range n {
					if _, err := d[1].Receive(ctx); err != nil {
						w.t.Error(err)
						break
					}
				}
				took := time.Since(start)
				if err := d[0].Flush(ctx); err != nil {
					w.t.Error(err)
				}
				// With acknowledgements, answers and checks.
				sent := float64(w.net.Datagrams()-before) / (n * size / 1150)
				if most := map[bool]float64{false: 1.7, true: 3}[beyond]; sent > most {
					w.t.Errorf("RTT %v: %.2f datagrams for each full packet", rtt, sent)
				}
				if took > 6*rtt && !beyond {
					w.t.Errorf("RTT %v: a megabyte takes %v", rtt, took)
				}
			}
			time.Sleep(20 * time.Second)
			for _, stop := range []func() (int, int, bool){here, there} {
				if sessions, doubts, _ := stop(); sessions != 1 || doubts > 0 && !(beyond && doubts == 1) {
					w.t.Errorf("RTT %v: %d sessions, %d doubts", rtt, sessions, doubts)
				}
			}
		})
	}
}

// TestAckLimit: one long round trip, and the next record has the time for another.
func TestAckLimit(t *testing.T) {
	p := stillPeer(t)
	s := newSession(p.node, p.led, newDeadConn(), order{})
	for _, c := range []struct {
		rtt, least, most time.Duration
	}{
		{0, time.Second, time.Second}, // none is measured
		{20 * time.Millisecond, 500 * time.Millisecond, 500 * time.Millisecond},
		{600 * time.Millisecond, 900 * time.Millisecond, time.Second},
		{600 * time.Millisecond, 1100 * time.Millisecond, 1500 * time.Millisecond},
		{20 * time.Millisecond, 600 * time.Millisecond, 1500 * time.Millisecond},
	} {
		if c.rtt > 0 {
			s.measured(c.rtt, false)
		}
		if got := s.ackLimit(); got < c.least || got > c.most {
			t.Errorf("after a round trip of %v a record has %v, want %v to %v", c.rtt, got, c.least, c.most)
		}
	}
}

// TestPathGetsLonger: the round trip of a path that works grows. Nothing is lost, and so
// no session is made; a path that is silent for longer than a round trip ever was is in
// doubt until it answers.
func TestPathGetsLonger(t *testing.T) {
	for _, extra := range []time.Duration{150, 300, 600, 900} {
		extra *= time.Millisecond
		inWorld(t, virtual.Config{RTT: 20 * time.Millisecond}, func(w *world) {
			a, b, ha, _ := w.narrowPair(0, 0)
			p, q := w.pair(a, b)
			ctx, cancel := context.WithTimeout(context.Background(), 65*time.Second)
			defer cancel()
			var both sync.WaitGroup
			for _, x := range []*Peer{p, q} {
				both.Go(func() {
					for {
						if _, err := x.Receive(ctx); err != nil {
							return
						}
					}
				})
				both.Go(func() {
					for ctx.Err() == nil {
						_ = x.Send(ctx, Message{Payload: digits(200)})
						time.Sleep(100 * time.Millisecond)
					}
				})
			}
			time.Sleep(5 * time.Second)
			here, there := stories(p), stories(q)
			ha.SetDelay(extra)
			both.Wait()
			for _, stop := range []func() (int, int, bool){here, there} {
				sessions, doubts, _ := stop()
				if sessions != 1 || doubts > map[bool]int{false: 0, true: 2}[extra > 200*time.Millisecond] {
					w.t.Errorf("20 ms and %v more: %d sessions, %d doubts", 2*extra, sessions, doubts)
				}
			}
		})
	}
}
