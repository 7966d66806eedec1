package mesh

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/turn"
)

// TestStandbyChaos: whatever happens to two relayed agents and their standby sessions, in
// the end they are connected, messages arrive once and in order, and nothing is left.
func TestStandbyChaos(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inWorld(t, relayedNet, func(w *world) {
				r := rand.New(rand.NewPCG(seed, 1))
				var pools []*turningRelays
				var all []turn.Relay
				a, b, relays := w.relayed(func(c *Config) {
					all = c.TURN.(fixedRelays)
					pool := newTurningRelays(all...)
					pools = append(pools, pool)
					c.TURN = pool
					c.Paths.StandbyAfter = 100 * time.Millisecond
				})
				p, q := meet(t, a, b)
				peers := []*Peer{p, q}
				const n = 300
				got := make(chan error, 2)
				for i, x := range peers {
					y := peers[1-i]
					go func() {
						for k := range n {
							ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
							m, err := y.Receive(ctx)
							cancel()
							if err != nil || m.ID != fmt.Sprint(k) {
								got <- fmt.Errorf("message %d: %q, %v", k, m.ID, err)
								return
							}
						}
						got <- nil
					}()
					go func() {
						for k := range n {
							tell(t, x, fmt.Sprint(k))
							time.Sleep(100 * time.Millisecond)
						}
					}()
				}
				down := -1
				for range 40 {
					x := peers[r.IntN(2)]
					switch r.IntN(8) {
					case 0:
						go func() {
							ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
							defer cancel()
							_ = x.Replace(ctx)
						}()
					case 1:
						x.post(func() { x.promote(ReasonSilence) })
					case 2:
						x.post(func() { x.networkChanged(&change{all: true}) })
					case 3:
						if down < 0 {
							down = r.IntN(2)
							relays[down].Kill()
						}
					case 4, 5:
						if down >= 0 {
							if err := relays[down].Start(); err != nil {
								t.Error(err)
							}
							down = -1
						}
					case 6:
						pool := pools[r.IntN(2)]
						list := append([]turn.Relay(nil), all...)
						if r.IntN(2) == 0 {
							list = list[r.IntN(2):][:1]
						} else if r.IntN(2) == 0 {
							list[r.IntN(2)].Down = true
						}
						pool.set(list...)
					case 7:
						for _, x := range peers {
							x.post(func() { x.promote(ReasonSilence) })
						}
					}
					time.Sleep(time.Duration(r.IntN(1500)) * time.Millisecond)
				}
				if down >= 0 {
					if err := relays[down].Start(); err != nil {
						t.Error(err)
					}
				}
				for _, pool := range pools {
					pool.set(all...)
				}
				for range 2 {
					if err := <-got; err != nil {
						t.Error(err)
					}
				}
				time.Sleep(3 * time.Minute)
				for _, x := range peers {
					c := x.Status()
					held, attempts := holds(t, x), look(t, x, func() (n int) {
						for _, a := range x.attempts {
							if a.why != ReasonDirectPath {
								n++
							}
						}
						return n
					})
					if c.State != StateConnected && (c.State != StateReplacing || c.Reason != ReasonDirectPath) {
						t.Errorf("%s: %v", x.ID(), c.State)
					}
					if !held || attempts != 1 {
						t.Errorf("%s: %v %v held %v, %d attempts", x.ID(), c.State, c.Reason, held, attempts)
					}
				}
			})
		})
	}
}
