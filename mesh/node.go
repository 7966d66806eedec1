package mesh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/infrafabric/agentmesh/internal/resolve"
	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
)

// signaler is what a Node needs of signaling; *signaling.Client is one.
type signaler interface {
	// WaitReady blocks until a server has accepted the registration.
	WaitReady(ctx context.Context) error
	// Wait blocks until the servers are as f wants them.
	Wait(ctx context.Context, f func([]signaling.ServerStatus) bool) error
	// Servers returns the state of every server.
	Servers() []signaling.ServerStatus
	// Send passes an envelope on by the route-th of the open ways.
	Send(ctx context.Context, envelope []byte, route int) (server string, err error)
	// Receive returns what comes next from any server.
	Receive(ctx context.Context) (signaling.Event, error)
	// SendTo is Send by the server of that name.
	SendTo(ctx context.Context, envelope []byte, server string) error
	// Refresh connects to every server anew, after a change of the network.
	Refresh()
	// Probe asks every server for a sign of life at once.
	Probe()
	Close() error
}

// Node is an agent's presence in one mesh: it is registered with the signaling
// servers, dials other agents and accepts their Peers. Its methods are safe
// for concurrent use. Close it to leave.
type Node struct {
	cfg       Config
	log       *slog.Logger
	obs       *observer
	instance  signaling.Instance
	start     time.Time
	connector connector
	signaler  signaler
	names     *resolve.Resolver // of STUN servers and relays
	stun      []resolve.Server
	rejects   *rate.Limiter
	probes    *rate.Limiter
	accepted  chan *Peer      // connected Peers that nobody dialled
	carried   chan handedOver // envelopes that peers handed over
	turns     chan struct{}   // one in it for each negotiation of its own under way
	answers   chan struct{}   // and for each that another began
	gate      *gate           // envelopes that are to be judged
	verdicts  *pastVerdicts   // what trust said lately
	newKeys   *rate.Limiter   // of signatures under keys that nobody knows
	stales    *rate.Limiter   // of signatures on envelopes whose time is off
	refusals  chan refusal    // that are to be signed and sent

	ctx    context.Context // ends when the Node closes
	cancel context.CancelCauseFunc
	work   sync.WaitGroup // the dispatchers, the watchers, the Peers' loops
	ended  chan struct{}
	// wanting is how many attempts wait for their turn.
	wanting atomic.Int64
	// nextChange blocks until the network has changed, nil for a network that does
	// not; closeNet ends the system's notices of changes, nil without.
	nextChange func(context.Context) (change, error)
	closeNet   func() error
	lost       []error // of the Peers that Close ended

	mu       sync.Mutex
	peers    map[string]*member
	ledgers  *ledgers
	incoming int // members that nobody dialled and that are not connected
	carrying int // members that carry messages now
	closed   bool
	cert     *keys.Certificate
	// displaced is closed while another process has this agent's place everywhere.
	displaced chan struct{}

	door sync.Mutex // guards what follows; nothing that blocks is called under it

	replays   *replayMemory            // envelopes of trusted keys
	strangers *replayMemory            // of keys that may be learned
	failures  *failures                // bad signatures
	awaited   map[signaling.Hash]*Peer // whose attempts' envelopes may be answered
}

// member is a Peer in the Node's books; the Node's mutex guards it.
type member struct {
	peer      *Peer
	waiters   int  // dials that wait for it
	dialled   bool // somebody here asked for it
	connected bool // it was, once
	carries   bool // messages travel now
	// unreachable is since when the Peer is, zero when it is not; probes says
	// that it has kept its last session then.
	unreachable time.Time
	probes      bool
	abandoned   bool // its last dial gave up
	// mail waits for the Peer's loop: at most maxAttempts offers and asks, and
	// attemptInbox of the rest. What comes while it closes is the next Peer's.
	mail []verified
}

// Listen joins the mesh: it registers the agent with the signaling servers and
// accepts Peers from then on. It returns when the first server has accepted the
// registration; ctx bounds that wait and nothing else. A Node survives the
// loss of every server and registers again when one returns.
//
// Errors: *ConfigError, the context's error together with what each server
// said, or signaling.ErrRefused when every server has refused for good.
func Listen(ctx context.Context, cfg Config) (*Node, error) {
	n, err := newNode(cfg)
	if err != nil {
		return nil, fmt.Errorf("mesh: listen: %w", errors.Join(err, closeListener(cfg.TCPListener)))
	}
	if n.cfg.Net == nil {
		n.cfg.Net = newHostNet()
	}
	n.watchHost()
	undo := func(err error) error {
		if n.closeNet != nil {
			err = errors.Join(err, n.closeNet())
		}
		return fmt.Errorf("mesh: listen: %w", err)
	}
	conns, err := newWebRTCConnector(connectorConfig{net: n.cfg.Net,
		tcp: n.cfg.TCP, listener: n.cfg.TCPListener, log: n.log})
	if err != nil {
		return nil, undo(err)
	}
	client, err := signaling.NewClient(signaling.ClientConfig{
		Identity: n.cfg.Identity, Mesh: n.cfg.Mesh, Instance: n.instance, URLs: n.cfg.Signaling,
		HTTPClient: n.cfg.HTTPClient, Logger: n.log, Recorder: n.obs.recorder(), Metrics: n.obs.ins, Time: n.cfg.Time,
	})
	if err != nil {
		return nil, undo(errors.Join(signalingField(err), conns.Close()))
	}
	n.run(conns, client)
	if err := client.WaitReady(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("mesh: listen: %w", err), n.Close())
	}
	return n, nil
}

// signalingField names the field of the Config that a client's configuration was
// made from.
func signalingField(err error) error {
	var ce *signaling.ConfigError
	if errors.As(err, &ce) {
		if at, ok := strings.CutPrefix(ce.Field, "URLs"); ok {
			return &ConfigError{"Signaling" + at, ce.Reason}
		}
	}
	return err
}

func closeListener(l net.Listener) error {
	if l == nil {
		return nil
	}
	return l.Close()
}

// newNode checks the configuration and makes a Node that does not run yet.
func newNode(cfg Config) (*Node, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	obs, err := newObserver(&cfg)
	if err != nil {
		return nil, err
	}
	n := &Node{
		cfg:      cfg,
		log:      cfg.Logger.With("agent", cfg.Identity.ID()),
		obs:      obs,
		instance: signaling.NewInstance(),
		start:    time.Now(),
		rejects:  rate.NewLimiter(rejectsPerSecond, rejectsPerSecond),
		probes:   rate.NewLimiter(rate.Every(probePause), 1),
		accepted: make(chan *Peer, acceptBacklog),
		carried:  make(chan handedOver, maxCarried),
		turns:    make(chan struct{}, maxNegotiating),
		answers:  make(chan struct{}, maxAnswering),
		ended:    make(chan struct{}),
		peers:    map[string]*member{},

		displaced: make(chan struct{}),

		ledgers: newLedgers(obs, cfg.Window, maxLedgers),
		replays: newReplayMemory(),

		strangers: newReplayMemory(),
		failures:  newFailures(maxFailureKeys),

		verdicts: newPastVerdicts(),
		newKeys:  rate.NewLimiter(newKeysPerSecond, 2*newKeysPerSecond),
		stales:   rate.NewLimiter(stalesPerSecond, 2*stalesPerSecond),
		refusals: make(chan refusal, maxRefusals),
		awaited:  map[signaling.Hash]*Peer{},
	}
	n.gate = newGate(n.judge)
	obs.log, obs.rec.log = n.log, n.log
	n.names = resolve.New(resolve.Config{Lookup: resolve.Of(cfg.Net), Logger: n.log})
	if n.stun, err = parseSTUN(cfg.STUN); err != nil {
		return nil, err
	}
	if cfg.NetworkChanged != nil {
		n.nextChange = n.asked()
	}
	n.ctx, n.cancel = context.WithCancelCause(context.Background())
	return n, nil
}

// run starts the Node with its connector and signaler.
func (n *Node) run(c connector, s signaler) {
	n.connector, n.signaler = c, s
	for _, s := range n.stun {
		n.names.Prefetch(s.Host)
	}
	if !n.obs.quiet {
		go n.obs.rec.run() // until leave
	}
	n.work.Go(n.dispatch)
	n.work.Go(n.carry)
	n.work.Go(n.sendRefusals)
	n.work.Go(n.watchTrust)
	n.work.Go(n.watchClock)
	n.work.Go(n.watchPlace)
	if n.nextChange != nil {
		n.work.Go(n.watchNetwork)
	}
	if n.cfg.TURN != nil {
		n.work.Go(n.watchRelays)
	}
}

// ID returns the agent's own ID.
func (n *Node) ID() string { return n.cfg.Identity.ID() }

// Context ends when the Node has closed.
func (n *Node) Context() context.Context { return n.ctx }

// Accept returns the next Peer that another agent has begun, connected and
// verified. A Peer that was dialled from here does not appear.
//
// Errors: the context's error, ErrHandler on a Node with a Handler, which
// needs no Accept, ErrReplaced while another process has this agent's place at every
// signaling server, so that nobody new can reach this one, or one that matches
// net.ErrClosed.
func (n *Node) Accept(ctx context.Context) (*Peer, error) {
	if n.cfg.Handler != nil {
		return nil, fmt.Errorf("mesh: accept: %w", ErrHandler)
	}
	select {
	case p := <-n.accepted: // first, whatever else is the case
		return p, nil
	default:
	}
	n.mu.Lock()
	displaced := n.displaced
	n.mu.Unlock()
	select {
	case p := <-n.accepted:
		return p, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("mesh: accept: %w", contextError(ctx))
	case <-displaced:
		return nil, fmt.Errorf("mesh: accept: %w", ErrReplaced)
	case <-n.ctx.Done():
		return nil, fmt.Errorf("mesh: accept: %w", net.ErrClosed)
	}
}

// Close leaves the mesh: it closes every Peer and waits for everything the
// Node started. Messages that were not acknowledged as delivered are reported
// as *UndeliveredError values, joined. Calling it again returns the same.
//
// It waits for Handlers that run. Called by a Handler it begins to close, does not
// wait for anything, and returns nil; a call from elsewhere waits and says what was
// not delivered.
func (n *Node) Close() error {
	n.mu.Lock()
	first := !n.closed
	n.closed = true
	peers := make([]*Peer, 0, len(n.peers))
	for _, m := range n.peers {
		peers = append(peers, m.peer)
	}
	n.mu.Unlock()
	if inHandler() {
		if first {
			go n.leave(peers) // ends with the Node, when the Handler has returned
		}
		return nil
	}
	if first {
		n.leave(peers)
	}
	<-n.ended
	return errors.Join(n.lost...)
}

// leave is Close's work, done once.
func (n *Node) leave(peers []*Peer) {
	defer close(n.ended)
	for _, p := range peers {
		p.shut(goodbyeClosed, &closedError{})
	}
	for _, p := range peers {
		<-p.ended
		if err := p.undelivered(); err != nil {
			n.lost = append(n.lost, err)
		}
	}
	n.cancel(net.ErrClosed)
	if err := n.signaler.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		n.log.Debug("close signaling", "error", err)
	}
	n.work.Wait()
	if !n.obs.quiet {
		n.obs.rec.close()
	}
	n.names.Close() // always nil
	if err := n.connector.Close(); err != nil {
		n.log.Debug("close connector", "error", err)
	}
	if n.closeNet != nil {
		if err := n.closeNet(); err != nil {
			n.log.Debug("close network watch", "error", err)
		}
	}
}

// certificate returns the DTLS certificate for a new session: one per Node,
// renewed well before it ends. One from a time when the clock was ahead is not valid
// yet for those whose clock is right.
func (n *Node) certificate(now time.Time) (*keys.Certificate, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cert == nil || now.Add(certificateAhead).After(n.cert.Leaf.NotAfter) || now.Add(-freshness).Before(n.cert.Leaf.NotBefore) {
		c, err := keys.NewCertificate(now)
		if err != nil {
			return nil, err
		}
		n.cert = c
	}
	return n.cert, nil
}

// keyOf returns the key to address an offer to, zero when the trust policy
// cannot name exactly one.
func (n *Node) keyOf(ctx context.Context, id string) keys.PublicKey {
	ctx, cancel := context.WithTimeout(ctx, trustTimeout)
	defer cancel()
	found, err := keys.Find(ctx, n.cfg.Trust, id)
	if err != nil || len(found) != 1 {
		return keys.PublicKey{}
	}
	return found[0]
}

// join makes a Peer and starts its loop. n.mu is held.
func (n *Node) join(id string, dialled bool) *member {
	led, tenancy := n.ledgers.acquire(id)
	p := newPeer(n, id, led, tenancy)
	m := &member{peer: p, dialled: dialled}
	n.peers[id] = m
	if !dialled {
		n.incoming++
	}
	n.obs.joined()
	n.work.Go(p.run)
	if n.cfg.Handler != nil {
		p.work.Go(p.handle)
	}
	return m
}

// connected notes a Peer's first session and offers it to Accept if nobody
// here asked for it. It reports false for a later session.
func (n *Node) connected(p *Peer) bool {
	n.mu.Lock()
	m := n.peers[p.id]
	if m.connected {
		n.mu.Unlock()
		return false
	}
	m.connected = true
	queue := !m.dialled && n.cfg.Handler == nil
	if !m.dialled {
		n.incoming--
	}
	n.mu.Unlock()
	if !queue {
		return true
	}
	select {
	case n.accepted <- p:
	default:
		p.shut(goodbyeClosed, fmt.Errorf("%w: nobody accepts", ErrTooMany))
	}
	return true
}

// stands notes a Peer's state: whether messages travel, for
// webrtc_agent_connected, which is 1 while they do to any, and for who may pass
// envelopes on; and whether it may give way to another.
func (n *Node) stands(p *Peer, s State) {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := n.peers[p.id]
	switch {
	case s != StateUnreachable:
		m.unreachable = time.Time{}
	case m.unreachable.IsZero():
		m.unreachable, m.probes = time.Now(), true
		n.limitProbes()
	}
	yes := s.carries()
	if m.carries == yes {
		return
	}
	m.carries = yes
	if yes {
		if n.carrying++; n.carrying == 1 {
			n.obs.ins.AgentConnected.Add(context.Background(), 1)
		}
	} else if n.carrying--; n.carrying == 0 {
		n.obs.ins.AgentConnected.Add(context.Background(), -1)
	}
}

// limitProbes has the Peer that is unreachable for the longest time let go of its
// last session when too many keep theirs. n.mu is held.
func (n *Node) limitProbes() {
	count := 0
	var oldest *member
	for _, m := range n.peers {
		if m.unreachable.IsZero() || !m.probes {
			continue
		}
		if count++; oldest == nil || m.unreachable.Before(oldest.unreachable) {
			oldest = m
		}
	}
	if count <= maxProbes {
		return
	}
	oldest.probes = false
	p := oldest.peer
	n.work.Go(func() { p.post(p.dropProbe) }) // its loop may wait for n.mu
}

// makeRoom closes the Peer that is unreachable for the longest time among those
// that nobody here dialled: agents that die without a word leave one behind each.
// n.mu is held.
func (n *Node) makeRoom() {
	var oldest *member
	for _, m := range n.peers {
		if !m.dialled && !m.unreachable.IsZero() && m.peer.ctx.Err() == nil &&
			(oldest == nil || m.unreachable.Before(oldest.unreachable)) {
			oldest = m
		}
	}
	if oldest != nil {
		oldest.peer.shut(goodbyeClosed, errGaveWay)
	}
}

// errGaveWay ends an unreachable Peer when there are maxPeers.
var errGaveWay = fmt.Errorf("%w: it was unreachable and gave way", ErrTooMany)

// allPeers returns every Peer.
func (n *Node) allPeers() []*Peer {
	n.mu.Lock()
	defer n.mu.Unlock()
	peers := make([]*Peer, 0, len(n.peers))
	for _, m := range n.peers {
		peers = append(peers, m.peer)
	}
	return peers
}

// forget takes a Peer that has ended out of the books.
func (n *Node) forget(p *Peer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := n.peers[p.id]
	if !m.connected && !m.dialled {
		n.incoming--
	}
	delete(n.peers, p.id)
	n.ledgers.release(p.led)
	m.mail = slices.DeleteFunc(m.mail, func(v verified) bool {
		gone := n.parted(v.Sealed)
		if gone {
			n.refuse(refusalOf(v.Sealed), rejectClosed, "")
		}
		return gone
	})
	if !n.closed && slices.ContainsFunc(m.mail, func(v verified) bool { return begins(v.Sealed) }) {
		next := n.join(p.id, false)
		next.mail = m.mail
		next.peer.post(next.peer.takeMail)
	}
}

// lookup returns the Peer of an agent, nil when there is none.
func (n *Node) lookup(id string) *Peer {
	n.mu.Lock()
	defer n.mu.Unlock()
	if m := n.peers[id]; m != nil {
		return m.peer
	}
	return nil
}

// watchTrust asks the policy again about every connected Peer: when it
// announces a change, and every trustInterval when it cannot.
func (n *Node) watchTrust() {
	announcer, _ := n.cfg.Trust.(keys.Announcer)
	announced := func() <-chan struct{} {
		if announcer == nil {
			return nil
		}
		return announcer.Changed()
	}
	tick := time.NewTicker(trustInterval)
	defer tick.Stop()
	changed := announced()
	for {
		select {
		case <-changed:
			changed = announced() // before asking, so that no change is missed
			n.verdicts.forget()
		case <-tick.C: // a verdict may end by time alone
		case <-n.ctx.Done():
			return
		}
		n.mu.Lock()
		peers := make([]*Peer, 0, len(n.peers))
		for _, m := range n.peers {
			if m.connected {
				peers = append(peers, m.peer)
			}
		}
		n.mu.Unlock()
		// Side by side, so that a slow answer about one agent does not stretch the
		// time within which another loses its Peer.
		var asking sync.WaitGroup
		turns := make(chan struct{}, maxRechecks)
		for _, p := range peers {
			turns <- struct{}{}
			asking.Go(func() { n.recheck(p); <-turns })
		}
		asking.Wait()
	}
}

// recheck closes a Peer whose key is no longer trusted, and drops what waits for the
// application and was signed by a former key of the agent that is not.
func (n *Node) recheck(p *Peer) {
	key := p.Key()
	if err := n.stillTrusted(p.id, key); err != nil {
		p.revoke(key)
		p.shut(goodbyeUntrusted, err)
		return
	}
	for _, former := range p.led.authors(key) {
		if n.stillTrusted(p.id, former) != nil {
			p.revoke(former)
		}
	}
}

// stillTrusted asks about a key once more. While the Node closes it says nothing.
func (n *Node) stillTrusted(id string, key keys.PublicKey) error {
	ctx, cancel := context.WithTimeout(n.ctx, trustTimeout)
	defer cancel()
	err := checkTrust(ctx, n.cfg.Trust, keys.Claim{ID: id, Key: key, Time: n.now()})
	if n.ctx.Err() != nil {
		return nil
	}
	return err
}
