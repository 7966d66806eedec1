package meshtest

import (
	"context"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/infrafabric/agentmesh/keys"
)

// load is what an agent's program and machine have to do beside the usual. It may be
// set at any time.
type load struct {
	weight      atomic.Int64 // bytes of payload that its messages have more
	lingers     atomic.Int64 // nanoseconds that it takes for a message
	trustTakes  atomic.Int64 // nanoseconds
	recordTakes atomic.Int64 // nanoseconds
	exhausted   atomic.Bool
}

// ease ends all of it.
func (l *load) ease() {
	for _, v := range []*atomic.Int64{&l.weight, &l.lingers, &l.trustTakes, &l.recordTakes} {
		v.Store(0)
	}
	l.exhausted.Store(false)
}

// agent returns an agent, for a verb.
func (u *Universe) agent(verb, name string) *Agent {
	u.t.Helper()
	a := u.agents[name]
	if a == nil {
		u.fatal("%s: there is no agent %q", verb, name)
	}
	return a
}

// Weigh gives each message that an agent's traffic sends from now on a payload of so
// many bytes more; 0 ends it. A message that is too large for a window is refused by
// Send, counted as Refused, and sent without.
func (u *Universe) Weigh(name string, bytes int) {
	u.t.Helper()
	a := u.agent("weigh", name)
	u.Note("weigh the messages of %s with %d bytes", name, bytes)
	a.load.weight.Store(int64(bytes))
}

// Linger makes an agent's application take so long for each message that it receives; 0
// ends it.
func (u *Universe) Linger(name string, d time.Duration) {
	u.t.Helper()
	a := u.agent("linger", name)
	u.Note("linger %v over each message at %s", d, name)
	a.load.lingers.Store(int64(d))
}

// SlowTrust makes each question to an agent's trust policy take so long; 0 ends it. It
// has no effect on a policy that Configure has set.
func (u *Universe) SlowTrust(name string, d time.Duration) {
	u.t.Helper()
	a := u.agent("slow trust", name)
	u.Note("slow trust of %s by %v", name, d)
	a.load.trustTakes.Store(int64(d))
}

// SlowRecorder makes each event that an agent records take so long; 0 ends it.
func (u *Universe) SlowRecorder(name string, d time.Duration) {
	u.t.Helper()
	a := u.agent("slow recorder", name)
	u.Note("slow recorder of %s by %v", name, d)
	a.load.recordTakes.Store(int64(d))
}

// Exhaust lets an agent's process open no socket and list no interface, for want of
// file descriptors: each such call fails with EMFILE. What is open works on.
func (u *Universe) Exhaust(name string) {
	u.t.Helper()
	a := u.agent("exhaust", name)
	u.Note("exhaust the descriptors of %s", name)
	a.load.exhausted.Store(true)
	a.host.SetOpenError(errExhausted)
}

// Replenish ends what Exhaust began.
func (u *Universe) Replenish(name string) {
	u.t.Helper()
	a := u.agent("replenish", name)
	u.Note("replenish the descriptors of %s", name)
	a.load.exhausted.Store(false)
	a.host.SetOpenError(nil)
}

// Window gives the next processes of an agent, those that Restart starts, another
// mesh.Config.Window; 0 gives them the one that they had at first. Mend does not end it.
func (u *Universe) Window(name string, bytes uint64) {
	u.t.Helper()
	a := u.agent("window", name)
	u.Note("window of the next %s: %d bytes", name, bytes)
	a.window = bytes
}

var errExhausted = os.NewSyscallError("socket", syscall.EMFILE)

// client is an agent's client of HTTP, which needs descriptors and name servers as well.
func (a *Agent) client() *http.Client {
	c := a.pipes.HTTPClient()
	t := c.Transport.(*http.Transport) //nolint:forcetypeassert // as pipenet documents
	dial := t.DialContext
	t.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if a.load.exhausted.Load() {
			return nil, &net.OpError{Op: "dial", Net: network, Err: errExhausted}
		}
		if err := a.lookup(ctx, addr); err != nil {
			return nil, &net.OpError{Op: "dial", Net: network, Err: err}
		}
		return dial(ctx, network, addr)
	}
	return c
}

// slowTrust is the universe's trust policy as one agent has it.
type slowTrust struct {
	keys.Trust
	takes *atomic.Int64
}

func (t slowTrust) Check(ctx context.Context, c keys.Claim) (keys.Verdict, error) {
	if err := rest(ctx, t.takes); err != nil {
		return keys.Verdict{}, err
	}
	return t.Trust.Check(ctx, c)
}

// rest waits for so many nanoseconds or until ctx ends.
func rest(ctx context.Context, takes *atomic.Int64) error {
	d := time.Duration(takes.Load())
	if d == 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
