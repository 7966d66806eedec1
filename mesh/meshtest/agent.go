package meshtest

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/transport/v5"

	"github.com/infrafabric/agentmesh/internal/pipenet"
	"github.com/infrafabric/agentmesh/internal/virtual"
	"github.com/infrafabric/agentmesh/internal/wallclock"
	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/mesh"
	"github.com/infrafabric/agentmesh/turn"
	"github.com/infrafabric/agentmesh/witness"
)

// Agent is an agent of a universe: a machine with an address, and on it one
// process at a time.
type Agent struct {
	u     *Universe
	name  string
	nat   NAT
	id    *keys.Identity
	host  *virtual.Host
	pipes *pipenet.Client
	http  *http.Client
	moved chan struct{} // capacity 1: the network has changed

	answers bool          // its Handler answers
	extra   time.Duration // by which it is slow
	stopped bool
	gone    chan struct{} // closed when the last killed process has left; nil before

	process *process // nil while there is none

	load   load
	window uint64 // of the next process; 0 as configured
	clock  wallclock.Clock
	off    time.Duration // by which the clock is ahead
}

// process is one run of an agent's program.
type process struct {
	agent       *Agent
	incarnation int
	window      uint64        // its mesh.Config.Window
	ready       chan struct{} // closed when what follows is there
	node        *mesh.Node
	pool        *turn.Pool      // of relays; nil without
	ctx         context.Context // ends when it is killed
	cancel      context.CancelFunc
	work        sync.WaitGroup

	mu      sync.Mutex
	accepts bool // somebody takes the Peers that others begin
	adopted map[*mesh.Peer]*adopted
	latest  map[string]*adopted // the last of each agent's
}

// Agent starts an agent on a machine of its own behind such a NAT and returns when
// it is registered with a server.
func (u *Universe) Agent(name string, nat NAT) *Agent {
	u.t.Helper()
	switch {
	case len(u.agents) == MaxAgents:
		u.fatal("more than %d agents", MaxAgents)
	case u.known(name):
		u.fatal("two hosts are called %q", name)
	}
	a := &Agent{
		u: u, name: name, nat: nat, id: u.identity(name), moved: make(chan struct{}, 1),
		answers: slices.Contains(u.cfg.Answers, name),
	}
	host, err := u.net.Host(nat.virtual())
	if err != nil {
		u.fatal("agent %s: %v", name, err)
	}
	a.host, a.pipes = host, u.pipes.Client(name)
	a.http = a.client()
	u.trust.add(a.id)
	u.agents[name] = a
	u.names = append(u.names, name)
	u.separate()
	if err := a.start(); err != nil {
		u.fatal("start %s: %v", name, err)
	}
	return a
}

// Lookup returns the agent of that name, nil when there is none.
func (u *Universe) Lookup(name string) *Agent { return u.agents[name] }

// Name returns the agent's ID.
func (a *Agent) Name() string { return a.name }

// Node returns the agent's running Node, nil while it is killed.
func (a *Agent) Node() *mesh.Node {
	if a.process == nil {
		return nil
	}
	return a.process.node
}

// Pool returns the agent's pool of relays, nil while it is killed or without one of the
// universe's.
func (a *Agent) Pool() *turn.Pool {
	if a.process == nil {
		return nil
	}
	return a.process.pool
}

// Host returns the agent's network, as its processes have it.
func (a *Agent) Host() transport.Net { return a.host }

// Dial returns the agent's Peer for another one, and fails the test when there is
// none within a minute.
func (a *Agent) Dial(to string) *mesh.Peer {
	a.u.t.Helper()
	n := a.Node()
	if n == nil {
		a.u.fatal("%s, which is killed, dials %s", a.name, to)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	p, err := n.Dial(ctx, to)
	if err != nil {
		a.u.fatal("%v", err)
	}
	return p
}

// start starts a process.
func (a *Agent) start() error {
	u := a.u
	cfg := mesh.Config{
		Trust: slowTrust{&u.trust, &a.load.trustTakes}, STUN: []string{u.stun()}, Net: a.host,
	}
	for i := range len(u.servers) {
		cfg.Signaling = append(cfg.Signaling, u.servers[serverName(i)].url())
	}
	if u.cfg.Configure != nil {
		u.cfg.Configure(a.name, &cfg)
	}
	cfg.Identity, cfg.Net, cfg.HTTPClient, cfg.NetworkChanged = a.id, a.host, a.http, a.networkChanged
	cfg.Recorder = &recorder{line: &u.line, also: cfg.Recorder, takes: &a.load.recordTakes}
	cfg.Time = a.clock.Now
	if a.window > 0 {
		cfg.Window = a.window
	}
	p := &process{agent: a, window: cmp.Or(cfg.Window, mesh.DefaultWindow), ready: make(chan struct{}), adopted: map[*mesh.Peer]*adopted{}, latest: map[string]*adopted{}}
	if a.answers {
		cfg.Handler = p.handle
	}
	select {
	case <-a.moved: // the process begins with what is
	default:
	}
	var pool *turn.Pool
	if len(u.relays) > 0 && cfg.TURN == nil {
		var err error
		if pool, err = u.pool(a.name, a.host, cfg.Recorder); err != nil {
			return err
		}
		cfg.TURN = pool
	}
	ctx, cancel := context.WithTimeout(context.Background(), listenTime)
	defer cancel()
	n, err := mesh.Listen(ctx, cfg)
	if err != nil {
		if pool != nil {
			err = errors.Join(err, pool.Close())
		}
		return err
	}
	p.incarnation, p.node, p.pool = u.books.started(a.name), n, pool
	p.ctx, p.cancel = context.WithCancel(context.Background())
	close(p.ready)
	a.process = p
	u.books.run(p)
	return nil
}

func (a *Agent) networkChanged(ctx context.Context) error {
	select {
	case <-a.moved:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// kill ends the process without a word: first nothing of it gets out any more.
func (a *Agent) kill() {
	p := a.process
	if p == nil {
		return
	}
	a.process = nil
	a.host.Unplug()
	a.pipes.Stall()
	a.pipes.Reset()
	p.cancel()
	gone := make(chan struct{})
	a.gone = gone
	a.u.work.Go(func() {
		defer close(gone)
		p.leave()
	})
}

// leave closes the process's Node and waits for what it did.
func (p *process) leave() {
	var lost *mesh.UndeliveredError
	if err := p.node.Close(); err != nil && !errors.As(err, &lost) {
		p.agent.u.t.Errorf("close %s: %v", p.agent.name, err)
	}
	if p.pool != nil {
		if err := p.pool.Close(); err != nil {
			p.agent.u.t.Errorf("close the pool of %s: %v", p.agent.name, err)
		}
	}
	p.work.Wait()
}

// restart starts the next process when the last one has left. Without a server
// that it reaches it does not come up, and stays dead.
func (a *Agent) restart() {
	if a.process != nil {
		return
	}
	if a.gone != nil {
		<-a.gone
		// Its last words must not get out now, however slow the way is.
		wait := a.u.cfg.RTT
		for _, x := range a.u.agents {
			wait = max(wait, a.u.cfg.RTT+a.extra+x.extra)
		}
		for _, r := range a.u.relays {
			wait += r.extra
		}
		time.Sleep(wait)
	}
	a.pipes.Resume()
	a.host.Plug()
	a.stopped = false
	a.u.separate()
	if err := a.start(); err != nil {
		a.u.Note("  %s does not start: %v", a.name, err)
		a.host.Unplug()
		a.pipes.Stall()
	}
}

// stop makes the machine deaf and dumb.
func (a *Agent) stop() {
	a.stopped = true
	a.host.Unplug()
	a.u.separate()
}

func (a *Agent) proceed() {
	a.stopped = false
	if a.process != nil {
		a.host.Plug()
	}
	a.u.separate()
}

// halt ends the agent for good, politely.
func (a *Agent) halt() {
	if a.process != nil {
		p := a.process
		a.process = nil
		p.cancel()
		p.leave()
	}
	a.http.CloseIdleConnections()
}

// recorder writes what matters of an agent's events into the timeline.
type recorder struct {
	line  *timeline
	also  witness.Recorder
	takes *atomic.Int64 // nanoseconds
}

func (r *recorder) Record(ctx context.Context, e witness.Event) {
	_ = rest(context.WithoutCancel(ctx), r.takes)
	if r.also != nil {
		r.also.Record(ctx, e)
	}
	switch e.Name {
	case witness.ConnectionStateChanged:
		r.line.add("  " + e.AgentID + " → " + e.PeerID + ": " + text(e, "state") + ", " + text(e, "reason") + ", " + text(e, "path"))
	case witness.MeshPartitionDetected, witness.MeshPartitionHealed, witness.PeerPermanentlyUnreachable,
		witness.SignalingConnectionLost, witness.SignalingFailover, witness.IFMessageFailed,
		witness.SignatureVerificationFailed, witness.ReplayRejected, witness.UnauthorizedConnectionAttempt:
		r.line.add("  " + e.AgentID + ": " + string(e.Name) + " " + e.PeerID + text(e, "server") + text(e, "error"))
	case witness.TURNServerMarkedUnhealthy, witness.TURNServerHealthCheckSuccess, witness.AllTURNServersUnhealthy:
		r.line.add("  " + e.AgentID + ": " + string(e.Name) + " " + text(e, "url"))
	case witness.PeerDisconnected:
		r.line.add("  " + e.AgentID + " → " + e.PeerID + ": " + string(e.Name) + ", " + text(e, "reason"))
	}
}

func text(e witness.Event, key string) string {
	s, _ := e.Metadata[key].(string)
	return s
}
