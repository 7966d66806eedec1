package meshtest_test

import (
	"context"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/mesh/meshtest"
)

// TestHangNames: a process that runs goes on without name servers, with the addresses that
// it knows, and one that starts finds nobody.
func TestHangNames(t *testing.T) {
	t.Parallel()
	couple(t, meshtest.Config{Names: true, Relays: 1}, func(u *meshtest.Universe) {
		p := u.Lookup("a").Dial("b")
		u.HangNames("a")
		time.Sleep(time.Minute) // what was looked up is old
		u.LongestGap("a", "b")
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := p.Replace(ctx); err != nil {
			t.Error(err)
		}
		time.Sleep(5 * time.Second)
		if gap := u.LongestGap("a", "b"); gap > time.Second {
			t.Errorf("a gap of %v", gap)
		}
		u.Kill("a")
		u.Restart("a")
		if u.Lookup("a").Node() != nil {
			t.Error("a process started without a name server")
		}
		u.AnswerNames("a")
		u.Restart("a")
		if u.Lookup("a").Node() == nil {
			t.Error("no process started with a name server")
		}
		u.AwaitTraffic("a", "b")
		u.HangNames("b") // Mend ends it
		u.Kill("b")
	})
}
