package mesh

import (
	"fmt"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/internal/virtual"
)

// TestShortSuspectAfter: the least that Recovery allows makes no doubt on a healthy link,
// idle or not, short or long, on one side or on both.
func TestShortSuspectAfter(t *testing.T) {
	for _, rtt := range []time.Duration{20, 100, 400, 900, 1500} {
		rtt *= time.Millisecond
		for _, both := range []bool{false, true} {
			t.Run(fmt.Sprint(rtt, both), func(t *testing.T) {
				log := &logged{}
				inCouple(t, rtt, func(t *testing.T, c *couple) {
					time.Sleep(2 * time.Second)
					first := [2]uint64{generation(c.p), generation(c.q)}
					time.Sleep(3 * time.Minute)
					if now := [2]uint64{generation(c.p), generation(c.q)}; now != first {
						t.Error("another session")
					}
					if n := log.count("peer suspect"); n > 0 {
						t.Errorf("%d doubts", n)
					}
					// And it is noticed when the link is gone.
					c.net.Block(c.ha, c.hb)
					c.net.Block(c.hb, c.ha)
					time.Sleep(2500*time.Millisecond + 2*rtt)
					if s := c.p.Status().State; both && s != StateSuspect {
						t.Errorf("nobody notices: %v", s)
					}
					c.net.Unblock(c.ha, c.hb)
					c.net.Unblock(c.hb, c.ha)
				}, func(cfg *Config) {
					cfg.Logger = log.logger()
					if both || cfg.Identity.ID() == "agent-a" {
						cfg.Recovery.SuspectAfter = time.Second
					}
				})
			})
		}
	}
}

// TestHealsDuringAttempt: the network between two agents is down when one dials, and
// heals after pion's own checks would have ended. The attempt under way gets through.
func TestHealsDuringAttempt(t *testing.T) {
	for _, heal := range []time.Duration{500, 1500, 2000, 4000, 8000} {
		heal *= time.Millisecond
		t.Run(heal.String(), func(t *testing.T) {
			inWorld(t, virtual.Config{RTT: 50 * time.Millisecond, STUN: true}, func(w *world) {
				var hosts []*virtual.Host
				keep := func(c *Config) { hosts = append(hosts, c.Net.(*virtual.Host)) }
				a := w.agent("agent-a", virtual.Open, keep)
				w.agent("agent-b", virtual.Open, keep)
				w.net.Block(hosts[0], hosts[1])
				w.net.Block(hosts[1], hosts[0])
				time.AfterFunc(heal, func() {
					w.net.Unblock(hosts[0], hosts[1])
					w.net.Unblock(hosts[1], hosts[0])
				})
				began := time.Now()
				if _, err := dialFor(a, "agent-b", time.Minute); err != nil {
					t.Error(err)
				}
				if took := time.Since(began) - heal; took > time.Second {
					t.Errorf("connected %v after the heal", took)
				}
			})
		})
	}
}
