package meshtest_test

import (
	"flag"
	"fmt"
	"runtime"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/mesh"
	"github.com/infrafabric/agentmesh/mesh/meshtest"
)

var (
	idle  = flag.Int("idle", 10, "how many idle peers TestCostOfSilence has")
	lasts = flag.Duration("silence", 10*time.Minute, "for how long, in virtual time")
)

// TestCostOfSilence: an agent with many peers that say nothing. It prints what that
// costs, and fails when there is more traffic than two echoes a second, their
// acknowledgements and ICE's own checks explain.
//
// Per pair and second: two echo frames (a ping that answers the last one, and an
// answer that is a ping as well), one SCTP acknowledgement for each that no data leaves with in time, and
// every two seconds an ICE consent check and its answer each way (RFC 7675).
func TestCostOfSilence(t *testing.T) {
	meshtest.Run(t, meshtest.Config{RTT: rtt}, func(u *meshtest.Universe) {
		hub := u.Agent("hub", meshtest.Open)
		var peers []*mesh.Peer
		for i := range *idle {
			name := fmt.Sprint("idle", i)
			u.Agent(name, meshtest.Open)
			peers = append(peers, hub.Dial(name))
		}
		time.Sleep(10 * time.Second) // whatever is left of the dials
		packets := func() (n uint64) {
			for _, p := range peers {
				c := p.Packets()
				n += c.Sent + c.Received
			}
			return n
		}
		datagrams, data, cpu, began := u.Datagrams(), packets(), cpuSeconds(), time.Now()
		goroutines := runtime.NumGoroutine()
		time.Sleep(*lasts)
		seconds := time.Since(began).Seconds()
		perSecond := float64(u.Datagrams()-datagrams) / seconds / float64(*idle)
		dtls := float64(packets()-data) / seconds / float64(*idle)
		spent := cpuSeconds() - cpu
		fmt.Printf("%d idle peers for %v: %.2f packets per second and pair, both ways (%.2f of them DTLS, the rest ICE); "+
			"%.1f CPU seconds for both ends and the virtual network, %.2f %% of a core; %d goroutines\n",
			*idle, *lasts, perSecond, dtls, spent, 100*spent/seconds, goroutines)
		if perSecond > 6.5 {
			t.Errorf("%.2f packets per second and pair", perSecond)
		}
		for _, p := range peers {
			if c := p.Status(); c.State != mesh.StateConnected || c.Reason != mesh.ReasonDial {
				t.Errorf("%s: %+v", p.ID(), c)
			}
		}
	})
}

// cpuSeconds is the processor time that this process has used.
func cpuSeconds() float64 {
	runtime.GC() // brings the figures up to date
	s := []metrics.Sample{{Name: "/cpu/classes/total:cpu-seconds"}, {Name: "/cpu/classes/idle:cpu-seconds"}}
	metrics.Read(s)
	return s[0].Value.Float64() - s[1].Value.Float64()
}
