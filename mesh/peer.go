package mesh

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/turn"
)

// Peer is the association with one other agent. It is made by Dial or taken
// from Accept; there is at most one per remote agent and Node.
//
// A Peer outlives its sessions: when the other side is out of reach it makes a
// new one, as Config.Recovery says, and goes on where it was. It ends only when a
// side closes it, when trust ends, or when the other side breaks a rule.
// Status and Changes tell where it stands.
//
// Its methods are safe for concurrent use. Messages to one Peer arrive in the
// order in which Send accepted them, each once, as long as both processes live.
type Peer struct {
	node    *Node
	id      string
	led     *ledger
	tenancy int // of the ledger

	ctx     context.Context // ends when the Peer closes; its cause says why
	cancel  context.CancelCauseFunc
	theirs  *rate.Limiter  // of negotiations that the other side wants
	tasks   chan func()    // run by the loop, one at a time
	alarm   chan struct{}  // capacity 1: something is to be watched
	work    sync.WaitGroup // attempts, sessions, the handler: everything but the loop
	stopped chan struct{}  // closed when the loop has run its last task
	ended   chan struct{}  // closed when nothing of the Peer runs any more
	up      chan struct{}  // closed when the first session is attached

	closing  sync.Once
	owns     atomic.Bool // closing the Peer closes the Node: package-level Dial
	watching atomic.Bool // the loop has a timer for acknowledgements
	changes  changeLog

	// agreed is the generation of the last session that carried messages: the other
	// side knows it too, and makes no session below it.
	agreed atomic.Uint64

	mu         sync.Mutex
	tried      []string       // sentences about what was tried, for DialError
	distrusted error          // why the last answer that was not trusted was not
	refusal    error          // what the other side last said for why it does not answer
	narrow     error          // of the last attempt whose path was narrow
	key        keys.PublicKey // of the highest session
	way        *session       // the session in use, nil when there is none
	live       []*session     // every one that is attached, the highest first

	// Owned by the loop.

	machine   machine
	attempts  []*attempt
	waiters   []replaceWaiter
	missing   []chan error   // calls of TryDial: what ends them, capacity 1
	deferred  *deferredOffer // the losing offer of a glare
	early     []verified     // candidates before their offer, at most maxEarly
	sessions  []*session     // in order, the highest last; those below a confirmed one are retired
	lastGen   uint64         // highest generation seen or used
	lastErr   error          // why the last attempt or session ended
	relayed   bool           // the last session that carried messages was on a relay
	spare     standby        // the session beside one on a relay
	ranked    []turn.Relay   // as the relays last were
	renew     time.Time      // when the session is replaced for its relay; zero for never
	shun      shunned        // relays, and kinds of paths, that did not help lately
	narrows   []string       // kinds of paths that do not carry full packets
	keyless   bool           // the next offer is to the name, whatever its key
	replyCode goodbyeCode    // what goodbye will say
	lost      []string       // IDs given up when the Peer ended
}

func newPeer(n *Node, id string, led *ledger, tenancy int) *Peer {
	p := &Peer{
		node:    n,
		id:      id,
		led:     led,
		tenancy: tenancy,
		theirs:  rate.NewLimiter(negotiationsPerSecond, maxNegotiationsBurst),
		tasks:   make(chan func(), maxTasks),
		alarm:   make(chan struct{}, 1),
		machine: newMachine(n.cfg.Recovery, n.cfg.Paths, rand.Float64),
		stopped: make(chan struct{}),
		ended:   make(chan struct{}),
		up:      make(chan struct{}),
		shun:    shunned{},
	}
	p.ctx, p.cancel = context.WithCancelCause(context.Background())
	p.changes.add(Change{Time: n.now(), From: StateConnecting, State: StateConnecting})
	return p
}

// ID returns the remote agent's ID.
func (p *Peer) ID() string { return p.id }

// Key returns the public key under which the remote agent speaks now. Another
// key of the same agent may follow when it comes back with one that trust accepts.
func (p *Peer) Key() keys.PublicKey {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.key
}

// Context ends when the Peer has closed; context.Cause tells why: net.ErrClosed
// after Close, or an error that matches ErrPeerClosed, ErrReplaced,
// ErrUntrusted, ErrRefused, ErrProtocol, ErrTooMany or ErrHandlerExit.
func (p *Peer) Context() context.Context { return p.ctx }

// Send signs a message and hands it to the association. It returns when the
// message has its place in the send window: from then on it will arrive, in
// order and once, or its ID is reported by Close. It blocks while the window
// is full, until ctx ends or the Peer closes; while the other side is out of reach
// the window fills. What becomes of ctx after the return does not call the message
// back: one that is of no use after a time carries that time in its Payload. The message
// is not changed; its slices may be reused after the return.
//
// Calls wait in the order in which they came. A Send by a Handler, with the context
// that it was given or one derived from it, has another window's worth of room and
// goes before them, so that two agents whose Handlers answer each other's messages
// do not wait for each other.
//
// Errors: *MessageError for an invalid message; *TooLargeError, which matches
// ErrTooLarge, for one that exceeds MaxMessage or either side's Config.Window;
// one that matches the context's error, and its cause, when it has ended, be it
// before the call; or one that matches net.ErrClosed.
func (p *Peer) Send(ctx context.Context, m Message) error {
	out, err := m.prepare(ctx, p.node.cfg.Identity.ID(), p.id, p.node.now(), p.node.cfg.TraceID)
	if err == nil {
		err = p.led.push(ctx, p.tenancy, &out, handling(ctx, p))
	}
	if err != nil {
		p.node.obs.messageError(ctx, "send")
		return fmt.Errorf("mesh: send to %s: %w", p.id, err)
	}
	p.node.obs.sent(ctx, &out)
	return nil
}

// Receive returns the next message from the other agent, verified. The message
// counts as delivered when Receive returns it. It blocks until one arrives, ctx
// ends or the Peer closes; what had arrived before the closing is still
// returned first, unless its key has lost trust, or the Peer that came after this
// one, when the other side has dialled again, has returned it.
//
// With a context that has ended it returns what is there and does not wait.
//
// Everybody who dials the agent has the same Peer, and each message goes to one caller of
// Receive. Where several parts of a program talk to one agent, one of them receives and
// gives each message to whom it is for, by its ConversationID.
//
// Errors: one that matches the context's error and its cause; ErrHandler on a Node
// with a Handler; or one that matches net.ErrClosed.
func (p *Peer) Receive(ctx context.Context) (Message, error) {
	if p.node.cfg.Handler != nil {
		return Message{}, fmt.Errorf("mesh: receive from %s: %w", p.id, ErrHandler)
	}
	in, err := p.led.pop(ctx, p.tenancy, true)
	if err != nil {
		return Message{}, fmt.Errorf("mesh: receive from %s: %w", p.id, err)
	}
	p.node.obs.received(ctx, in.msg)
	return *in.msg, nil
}

// Flush waits until every message that Send had accepted before is delivered:
// handed to the other application, not merely to its process.
//
// Errors: one that matches the context's error and its cause; one that matches
// net.ErrClosed, always on a Peer that was closed before the call; ErrOutcomeUnknown,
// from then on, when the other side has forgotten what it had delivered; or
// ErrTooLarge, from then on, when it came back with a Window that what was sent does
// not fit into. Close reports which messages are meant.
func (p *Peer) Flush(ctx context.Context) error {
	if err := p.led.flush(ctx, p.tenancy); err != nil {
		return fmt.Errorf("mesh: flush to %s: %w", p.id, err)
	}
	return nil
}

// Close ends the association, tells the other side, and waits for everything
// the Peer started. It does not wait for deliveries: call Flush before. If
// messages were not acknowledged as delivered, the error is an
// *UndeliveredError with their IDs. Calling it again returns the same.
//
// Another side that is out of reach learns of it when it comes back.
//
// It waits for a Handler that runs. Called by a Handler it begins to close, does not
// wait for anything, and returns nil; a call from elsewhere waits and says what was
// not delivered.
func (p *Peer) Close() error {
	p.shut(goodbyeClosed, &closedError{})
	if inHandler() {
		if p.owns.Load() {
			return p.node.Close()
		}
		return nil
	}
	<-p.ended
	if p.owns.Load() {
		return errors.Join(p.undelivered(), p.node.Close())
	}
	return p.undelivered()
}

// Packets are counts of one session's present path: what this side sent and
// received, and what the other side had sent and received by its last echo, at
// most about a second ago. Their growth over some seconds tells the loss in each
// direction. The other side's counts are its own word.
type Packets struct {
	Sent, Received         uint64
	PeerSent, PeerReceived uint64
}

// Packets returns the counts of the session in use, zero when there is none.
func (p *Peer) Packets() Packets {
	s := p.session()
	if s == nil {
		return Packets{}
	}
	sent, received := s.conn.Packets()
	return Packets{Sent: sent, Received: received,
		PeerSent: s.theirSent.Load(), PeerReceived: s.theirReceived.Load()}
}

// RTT returns the smoothed round-trip time of the session in use, zero before
// the first is measured.
func (p *Peer) RTT() time.Duration {
	s := p.session()
	if s == nil {
		return 0
	}
	return time.Duration(s.rtt.Load())
}

// Replace makes a new session and moves to it, with new keys and perhaps by
// another path, while the present one goes on until then. It returns when the new
// one has taken over. Simultaneous calls, here and at the other side, make one
// session.
//
// Errors: what made the attempt fail, the present session being as good as before;
// one that matches the context's error and its cause, which does not end the attempt;
// or one that matches net.ErrClosed.
func (p *Peer) Replace(ctx context.Context) error {
	done := make(chan error, 1)
	err := contextError(ctx)
	if err != nil {
		return fmt.Errorf("mesh: replace session with %s: %w", p.id, err)
	}
	p.post(func() { p.replace(done) })
	select {
	case err = <-done:
	case <-ctx.Done():
		err = contextError(ctx)
	case <-p.ctx.Done():
		err = &closedError{context.Cause(p.ctx)}
	}
	if err != nil {
		return fmt.Errorf("mesh: replace session with %s: %w", p.id, err)
	}
	return nil
}

// undelivered words what was lost; the Peer has ended.
func (p *Peer) undelivered() error {
	if len(p.lost) == 0 {
		return nil
	}
	e := &UndeliveredError{Peer: p.id, IDs: p.lost}
	if cause := context.Cause(p.ctx); cause != nil {
		if c, ok := cause.(*closedError); !ok || c.cause != nil {
			e.Err = cause
		}
	}
	return e
}

// shut makes the loop end. The first cause counts.
func (p *Peer) shut(code goodbyeCode, cause error) {
	p.closing.Do(func() {
		p.replyCode = code
		p.cancel(cause)
	})
}

// note adds a sentence to what a DialError tells.
func (p *Peer) note(sentence string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.tried); n > 0 && p.tried[n-1] == sentence {
		return
	}
	if len(p.tried) == maxTried {
		p.tried = append(p.tried[:0], p.tried[1:]...)
	}
	p.tried = append(p.tried, sentence)
}

// distrust notes an answer whose author is not trusted.
func (p *Peer) distrust(why error, via string) {
	p.note(fmt.Sprintf("an answer through %s: %v", via, why))
	p.mu.Lock()
	p.distrusted = why
	p.mu.Unlock()
	p.post(func() { p.miss(why) })
}

// noteEnd tells how a failed attempt went, before the loop, and whoever dials, can hear
// that it has ended.
func (p *Peer) noteEnd(a *attempt) {
	defer close(a.told)
	if errors.Is(a.err, errSuperseded) || a.why == ReasonStandby {
		return
	}
	if !errors.Is(a.err, ErrAbsent) { // which each server has said
		p.note(a.story())
	}
	var r *rejectedError
	if errors.As(a.err, &r) {
		p.mu.Lock()
		p.refusal = r
		p.mu.Unlock()
	}
	if errors.Is(a.err, ErrNarrowPath) {
		p.narrowed(a.err)
	}
}

// dialError is what a dial of the Peer returns.
func (p *Peer) dialError(err error) *DialError {
	p.mu.Lock()
	defer p.mu.Unlock()
	return &DialError{Peer: p.id, Tried: slices.Clone(p.tried), Err: err, refusal: p.refusal}
}

// narrowed notes that a path was narrow.
func (p *Peer) narrowed(why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.narrow = why
}

// because joins the reason why a dial ended with the last distrusted answer, and with
// the last narrow path.
func (p *Peer) because(err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, why := range []error{p.distrusted, p.narrow} {
		if why != nil {
			err = fmt.Errorf("%w; %w", err, why)
		}
	}
	return err
}

// history returns what was tried so far.
func (p *Peer) history() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.tried...)
}

// revoke drops what waits for the application and was signed by a key that has lost
// trust.
func (p *Peer) revoke(key keys.PublicKey) {
	if n := p.led.revoke(key); n > 0 {
		p.node.log.Warn("messages of a key that has lost trust are not handed out",
			"peer", p.id, "key", key.Fingerprint(), "count", n)
	}
}

// post runs f in the loop. It reports false when the Peer has ended.
func (p *Peer) post(f func()) bool {
	select {
	case p.tasks <- f:
		return true
	case <-p.ctx.Done():
		return false
	}
}
