package mesh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
	"github.com/infrafabric/agentmesh/turn"
	"github.com/infrafabric/agentmesh/witness"
)

// attempt is the negotiation of one session, from the connection's creation to
// the verified hello. It runs in one goroutine of its Peer and is fed by the
// Peer's loop through its inbox.
//
//	offerer:  offer ─► wait for answer ─► open ─► hello ─► session
//	answerer: answer ──────────────────► open ─► hello ─► session
//	asker:    ask ─► until an offer comes, which is answered
//	standby:  as the first two, with a wait before hello
//
// Until the connection opens each side repeats its description, unchanged and
// by the next route, so a lost envelope costs half a second and a duplicate
// is recognised.
type attempt struct {
	peer    *Peer
	order   order
	offerer bool
	asks    bool // it only asks for an offer
	started time.Time

	why      Reason   // the session is made
	replaces bool     // the Peer had a session before
	relayed  bool     // and the last was on a relay
	shunned  []string // relays, ways to them and kinds of paths that did not help lately
	narrow   []string // those of them that do not carry full packets
	avoid    avoid    // what the other side is told of that
	beside   *session // a standby is offered beside
	carrier  string   // the neighbour through which the other side's envelope came
	heard    string   // the way by which it came: that one works

	inbox chan verified // answers, candidates, rejects
	nudge chan struct{} // capacity 1: repeat the description now

	// The Peer's loop owns these.
	known  signaling.Hash          // ref, once it can be heard of
	keyed  bool                    // an offer to one key
	cancel context.CancelCauseFunc // ends the attempt
	taking bool                    // it was a standby, and says hello now
	late   bool                    // and has no answer for so long that another is tried

	absent []string // servers that do not know the other side

	told    chan struct{} // closed when it has failed and DialError can say how
	opened  atomic.Bool   // the connection has opened
	using   atomic.Pointer[turn.Relay]
	ref     signaling.Hash    // the offer's hash; names the negotiation
	answers *signaling.Sealed // the other side's offer, nil when this side offers

	conn  conn
	bind  binding
	key   keys.PublicKey // the other side's
	learn bool           // trust did not know the key: learn it after the hello
	err   error          // why it failed; set before the loop hears of it

	relay      *turn.Relay     // that this side uses, nil for none
	unnamed    error           // names of relays and STUN servers that could not be looked up
	relayWait  time.Duration   // for a direct path, before it is used
	theirRelay string          // the server that the other side uses, "" for none
	relayOnly  bool            // no other candidates are used
	slim       bool            // the session is in small packets
	kinds      []string        // of the path, once it has opened
	fellBack   bool            // no direct path was found in time
	promoted   chan struct{}   // closed when a standby is to take over
	hello      chan firstFrame // capacity 1: what a standby read; nil for others

	outgoing []*signaling.Sealed // the description and the candidates after it

	// For errors that say what was tried.
	server        string // the description's last way
	localTypes    candidateTypes
	remoteTypes   candidateTypes
	remote        remoteCandidates
	answered      bool
	connectedPath bool
}

func newAttempt(p *Peer, o order, offerer bool) *attempt {
	return &attempt{
		peer: p, order: o, offerer: offerer, started: time.Now(),
		inbox: make(chan verified, attemptInbox), nudge: make(chan struct{}, 1), promoted: make(chan struct{}), told: make(chan struct{}),
		localTypes: candidateTypes{}, remoteTypes: candidateTypes{},
	}
}

// below reports whether a session of that order makes the attempt pointless.
func (a *attempt) below(o order) bool {
	if a.asks {
		return a.order.generation < o.generation
	}
	return a.order.compare(o) < 0
}

// deliver hands a verified envelope to the attempt without blocking.
func (a *attempt) deliver(e verified) {
	select {
	case a.inbox <- e:
	default:
		a.peer.node.log.Debug("negotiation inbox full", "peer", a.peer.id, "kind", e.Kind.String())
	}
}

// repeat asks for the description to be sent again at once.
func (a *attempt) repeat() {
	select {
	case a.nudge <- struct{}{}:
	default:
	}
}

// newConn creates the connection and the parts of the binding known so far.
func (a *attempt) newConn(ctx context.Context) error {
	n := a.peer.node
	cert, err := n.certificate(n.now())
	if err != nil {
		return err
	}
	o, err := a.options(ctx)
	if err != nil {
		return err
	}
	c, err := n.connector.New(cert, o)
	if err != nil {
		return err
	}
	a.conn = c
	a.bind = binding{mesh: n.cfg.Mesh, local: n.cfg.Identity.ID(), remote: a.peer.id,
		localInst: n.instance, localCert: cert.Fingerprint()}
	return nil
}

// seal signs an envelope to the other side.
func (a *attempt) seal(kind signaling.Kind, body []byte) (*signaling.Sealed, error) {
	n := a.peer.node
	return signaling.Seal(n.cfg.Identity, signaling.Envelope{
		Kind: kind, Mesh: n.cfg.Mesh, To: a.peer.id, ToKey: a.key, Instance: n.instance,
		Generation: a.order.generation, Time: n.now(), Ref: a.ref, Body: body,
	})
}

// offer makes the offer. The Peer must know the attempt by its hash before the
// offer leaves, so sending it is left to connect.
func (a *attempt) offer(ctx context.Context) (*signaling.Sealed, error) {
	if err := a.newConn(ctx); err != nil {
		return nil, err
	}
	sdp, err := a.conn.Offer(ctx)
	if err != nil {
		return nil, err
	}
	a.localTypes.addSDP(sdp)
	env, err := a.seal(signaling.Offer, a.describe(sdp))
	if err != nil {
		return nil, err
	}
	a.ref = env.Hash()
	a.bind.offer = a.ref
	return env, nil
}

// describe is the body of this side's description.
func (a *attempt) describe(sdp string) []byte {
	return (&descriptionBody{SDP: sdp, Fingerprint: a.bind.localCert, Reason: a.why, Relay: a.relayName(), Avoid: a.avoid}).encode()
}

// answer answers a verified offer.
func (a *attempt) answer(ctx context.Context, offer *signaling.Sealed, d *descriptionBody) (*signaling.Sealed, error) {
	a.theirRelay = d.Relay
	if a.why == ReasonStandby && (!a.replaces || a.peer.node.cfg.Paths.StandbyAfter == Never) {
		return nil, errNoStandby
	}
	if err := a.newConn(ctx); err != nil {
		return nil, err
	}
	if a.answerSlim(d.Avoid); a.slim {
		a.avoid = avoidFull
	}
	a.bind.offer = a.ref
	a.bind.remoteInst, a.bind.remoteCert = offer.Instance, d.Fingerprint
	sdp, err := a.conn.Answer(ctx, a.described(d))
	if err != nil {
		return nil, err
	}
	a.localTypes.addSDP(sdp)
	env, err := a.seal(signaling.Answer, a.describe(sdp))
	if err != nil {
		return nil, err
	}
	a.bind.answer = env.Hash()
	a.answered = true
	return env, nil
}

// accept takes the answer to this attempt's offer.
func (a *attempt) accept(e verified) error {
	d, err := decodeDescription(e.Body)
	if err != nil {
		return err
	}
	a.bind.answer = e.Hash()
	a.bind.remoteInst, a.bind.remoteCert = e.Instance, d.Fingerprint
	a.key, a.learn, a.theirRelay = e.Key, e.learn, d.Relay
	a.answered, a.slim = true, d.Avoid&avoidFull != 0
	return a.conn.Accept(a.described(d))
}

// connect sends the description until the connection opens and exchanges
// candidates meanwhile.
func (a *attempt) connect(ctx context.Context, description *signaling.Sealed) error {
	var (
		round      int
		nudges     int
		wait       = resendFirst
		timer      = time.NewTimer(wait)
		candidates = a.conn.Candidates()
		early      []verified // candidates that overtook the answer
		fallback   = a.fallback()
		allocation = time.NewTimer(allocationWait)
		yield      = time.NewTicker(yieldAfter)
	)
	defer yield.Stop()
	defer timer.Stop()
	defer allocation.Stop()
	a.outgoing = []*signaling.Sealed{description}
	a.send(ctx, round)
	for {
		select {
		case <-a.conn.Opened():
			return nil
		case <-a.conn.Done():
			return fmt.Errorf("%w: the connection failed before it opened", ErrConnectionLost)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-timer.C:
			round++
			a.send(ctx, round)
			wait = min(2*wait, resendMax)
			timer.Reset(wait)
		case <-yield.C:
			if a.offerer && !a.answered && a.peer.node.wanting.Load() > 0 {
				return errYielded
			}
		case <-a.nudge:
			if nudges++; nudges <= maxNudges {
				round++ // perhaps it is at another server
				a.send(ctx, round)
			}
		case c, ok := <-candidates:
			if !ok {
				candidates = nil
				continue
			}
			if err := a.sendCandidates(ctx, c, candidates, round); err != nil {
				return err
			}
		case <-fallback:
			a.fallBack(ctx)
		case <-allocation.C:
			if a.relay != nil && a.localTypes["relay"] == 0 {
				a.peer.node.cfg.TURN.Doubt(*a.relay)
			}
		case e := <-a.inbox:
			a.heard, a.carrier = e.via, e.carrier
			switch e.Kind {
			case signaling.Answer:
				if !a.offerer || a.answered {
					continue
				}
				if err := a.accept(e); err != nil {
					return err
				}
				a.peer.node.obs.sdpEvent(ctx, witness.WebRTCAnswerReceived, a.peer.id, e.Hash().String())
				for _, c := range early {
					a.addCandidates(c)
				}
				early = nil
				fallback = a.fallback()
			case signaling.Candidate:
				if a.answered {
					a.addCandidates(e)
				} else if len(early) < maxRemoteCandidates {
					early = append(early, e)
				}
			case signaling.Reject:
				return rejected(e.Sealed)
			}
		}
	}
}

// establish runs from the open connection to the verified hello.
func (a *attempt) establish(ctx context.Context) (*session, *helloBody, error) {
	s := newSession(a.peer.node, a.peer.led, a.conn, a.order)
	s.bind, s.remoteKey, s.peer, s.why, s.first = a.bind, a.key, a.peer, a.why, a.hello
	s.own, s.fellBack, s.slim, s.kinds = a.relay, a.fellBack, a.slim, a.kinds
	if a.why == ReasonStandby {
		// Trust may have ended while it waited.
		claim := keys.Claim{ID: a.peer.id, Key: a.key, Time: a.peer.node.now()}
		if err := checkTrust(ctx, a.peer.node.cfg.Trust, claim); err != nil {
			return nil, nil, err
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	a.peer.work.Go(func() { a.heed(ctx, cancel) })
	h, err := s.handshake(ctx)
	if err != nil {
		return nil, nil, err
	}
	if a.learn {
		claim := keys.Claim{ID: a.peer.id, Key: a.key, Time: a.peer.node.now()}
		if _, err := keys.Learn(ctx, a.peer.node.cfg.Trust, claim); err != nil {
			return nil, nil, fmt.Errorf("%w: %w: %w", ErrUntrusted, errNotLearned, err)
		}
		if err := checkTrust(ctx, a.peer.node.cfg.Trust, claim); err != nil {
			return nil, nil, err
		}
	}
	return s, h, nil
}

// heed ends ctx when the other side, which may have closed its Peer and never
// say hello, withdraws.
func (a *attempt) heed(ctx context.Context, cancel context.CancelCauseFunc) {
	for {
		select {
		case e := <-a.inbox:
			if e.Kind != signaling.Reject || e.Key != a.key || e.Instance != a.bind.remoteInst {
				continue
			}
			cancel(rejected(e.Sealed))
		case <-ctx.Done():
			return
		}
	}
}

// close ends a connection that became no session.
func (a *attempt) close() {
	if a.conn != nil {
		if err := a.conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			a.peer.node.log.Debug("close connection", "peer", a.peer.id, "error", err)
		}
	}
}

// story says in one sentence how far a failed attempt came.
func (a *attempt) story() string {
	who := "answer to its offer"
	switch {
	case a.offerer:
		who = "offer"
	case a.asks:
		who = "wish for an offer"
	}
	via := "not sent"
	if a.server != "" {
		via = "sent through " + a.server
	}
	if errors.Is(a.err, ErrAbsent) || errors.Is(a.err, errYielded) {
		return a.err.Error()
	}
	waited := errors.Is(a.err, context.DeadlineExceeded) || errors.Is(a.err, errAttemptTimeout) || errors.Is(a.err, errAbandoned)
	switch {
	case a.connectedPath:
		return fmt.Sprintf("connected, but %v", a.err)
	case a.answered:
		return fmt.Sprintf("%s %s; no path found between local candidates (%s) and remote ones (%s), and %s",
			who, via, a.localTypes, a.remoteTypes, a.relayStory())
	case waited:
		return fmt.Sprintf("%s %s; no answer within %v", who, via, time.Since(a.started).Round(time.Millisecond))
	}
	return fmt.Sprintf("%s %s; %v", who, via, a.err)
}

// errYielded ends an attempt that nobody has answered when others wait for their turn.
var errYielded = errors.New("no answer yet; others are tried first")

// errAttemptTimeout is the cause of an attempt's context after attemptTimeout.
var errAttemptTimeout = fmt.Errorf("no session within %v", attemptTimeout)
