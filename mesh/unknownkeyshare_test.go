package mesh

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
	"github.com/infrafabric/agentmesh/witness"
)

// An unknown key share (RFC 8844): agent-m is trusted by everybody and
// dishonest. It signs, as its own, a description that holds the certificate
// fingerprint and the ICE credentials of agent-a, and relays the answer. Every
// envelope is genuine, ICE and DTLS succeed, and the certificates are those
// that the envelopes announce: agent-a and agent-b are connected to each other,
// and both believe to speak with agent-m.

// keyShare is the dishonest agent. It has no connection of its own.
type keyShare struct {
	t        *testing.T
	h        *hub
	m        *keys.Identity
	instance signaling.Instance
	nodes    map[string]*Node

	mu   sync.Mutex
	legs map[string]*keyShareLeg // by victim
}

// keyShareLeg is the negotiation of one victim with agent-m, as it sees it.
type keyShareLeg struct{ offer, answer *signaling.Sealed }

func newKeyShare(t *testing.T, h *hub, a, b *Node) *keyShare {
	k := &keyShare{t: t, h: h, m: newIdentity(t, "agent-m"), instance: signaling.NewInstance(),
		nodes: map[string]*Node{a.ID(): a, b.ID(): b},
		legs:  map[string]*keyShareLeg{a.ID(): {}, b.ID(): {}}}
	trust := a.cfg.Trust.(*book)
	trust.mu.Lock()
	trust.keys["agent-m"] = k.m.PublicKey()
	trust.mu.Unlock()
	h.end("agent-m")
	return k
}

// other returns the victim at the far end.
func (k *keyShare) other(victim string) string {
	if victim == "agent-a" {
		return "agent-b"
	}
	return "agent-a"
}

func (k *keyShare) seal(e signaling.Envelope) *signaling.Sealed {
	e.Mesh, e.Instance = "default", k.instance
	s, err := signaling.Seal(k.m, e)
	if err != nil {
		k.t.Error(err)
	}
	return s
}

// relay is the attack through one offer: agent-a dials agent-m, which offers
// to agent-b.
func (k *keyShare) relay(e *signaling.Sealed, raw []byte) [][]byte {
	if e.To != "agent-m" {
		return [][]byte{raw}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	far := k.other(e.From)
	own, theirs := k.legs[e.From], k.legs[far]
	switch e.Kind {
	case signaling.Offer:
		if own.offer == nil || own.offer.Hash() != e.Hash() {
			own.offer = e
			theirs.offer = k.seal(signaling.Envelope{Kind: signaling.Offer, To: far, Generation: e.Generation, Body: e.Body})
		}
		k.h.inject(far, theirs.offer.Bytes())
	case signaling.Answer:
		if own.answer == nil || own.answer.Hash() != e.Hash() {
			own.answer = e
			theirs.answer = k.seal(signaling.Envelope{Kind: signaling.Answer, To: far, Generation: e.Generation,
				Ref: theirs.offer.Hash(), Body: e.Body})
		}
		k.h.inject(far, theirs.answer.Bytes())
	case signaling.Candidate:
		k.h.inject(far, k.seal(signaling.Envelope{Kind: signaling.Candidate, To: far, Generation: e.Generation,
			Ref: theirs.offer.Hash(), Body: e.Body}).Bytes())
	}
	return nil
}

// cross is the attack through two: both victims dial agent-m, which answers
// each with the description of the other.
func (k *keyShare) cross(e *signaling.Sealed, raw []byte) [][]byte {
	if e.To != "agent-m" {
		return [][]byte{raw}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	far := k.other(e.From)
	own, theirs := k.legs[e.From], k.legs[far]
	if e.Kind != signaling.Offer || own.answer != nil && own.offer.Hash() == e.Hash() {
		return nil
	}
	own.offer = e
	if theirs.offer == nil {
		return nil
	}
	for victim, leg := range k.legs {
		setup := "a=setup:active"
		if victim == e.From {
			setup = "a=setup:passive"
		}
		d, err := decodeDescription(k.legs[k.other(victim)].offer.Body)
		if err != nil {
			k.t.Error(err)
			return nil
		}
		d.SDP = strings.ReplaceAll(d.SDP, "a=setup:actpass", setup)
		leg.answer = k.seal(signaling.Envelope{Kind: signaling.Answer, To: victim, Generation: leg.offer.Generation,
			Ref: leg.offer.Hash(), Body: d.encode()})
		k.h.inject(victim, leg.answer.Bytes())
	}
	return nil
}

// hello is what a victim would have to be shown: a hello of agent-m over the
// victim's own view. Agent-m can sign it, but is not in the connection.
func (k *keyShare) hello(victim string) []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	node, leg := k.nodes[victim], k.legs[victim]
	frame, err := signHello(k.m, binding{
		mesh: "default", local: "agent-m", remote: victim,
		localInst: k.instance, remoteInst: node.instance,
		offer: leg.offer.Hash(), answer: leg.answer.Hash(),
		localCert: fingerprintNow(k.t, k.nodes[k.other(victim)]), remoteCert: fingerprintNow(k.t, node),
	}, memory{window: node.cfg.Window, credit: node.cfg.Window, state: 1}, "")
	if err != nil {
		k.t.Error(err)
	}
	return frame
}

// fingerprintNow is that of the certificate a node presents.
func fingerprintNow(t *testing.T, n *Node) keys.Fingerprint {
	t.Helper()
	c, err := n.certificate(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return c.Fingerprint()
}

// firstFrames is a connector whose connections keep the first frame that
// arrives, and may put another in its place: that takes the check of the hello
// away without touching the code that checks.
type firstFrames struct {
	connector
	instead func() []byte // nil leaves the frame as it is
	linger  time.Duration // before a connection is closed

	mu    sync.Mutex
	seen  [][]byte
	certs []keys.Fingerprint // presented by the other side
}

type tappedConn struct {
	conn
	of   *firstFrames
	done bool // owned by the reader
}

func (f *firstFrames) New(cert *keys.Certificate, o connOptions) (conn, error) {
	c, err := f.connector.New(cert, o)
	if err != nil {
		return nil, err
	}
	return &tappedConn{conn: c, of: f}, nil
}

func (c *tappedConn) Read(b []byte) (int, error) {
	n, err := c.conn.Read(b)
	if err != nil || c.done {
		return n, err
	}
	c.done = true
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	c.of.seen = append(c.of.seen, bytes.Clone(b[:n]))
	c.of.certs = append(c.of.certs, keys.FingerprintOf(c.conn.RemoteCertificate()))
	if c.of.instead != nil {
		n = copy(b, c.of.instead())
	}
	return n, nil
}

// Close lingers: both victims refuse the other's hello at one instant of virtual
// time, and two associations that end each other at once wait with a mutex
// held, which stops the clock of a bubble. Elsewhere it costs 200 ms.
func (c *tappedConn) Close() error {
	t := time.NewTimer(c.of.linger)
	defer t.Stop()
	<-t.C
	return c.conn.Close()
}

// presented returns the certificates that arrived with a first frame.
func (f *firstFrames) presented() []keys.Fingerprint {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.certs)
}

// attack begins the attack, in one of the two ways in which the victims can be
// brought to talk, and with the check of the hello or without.
func (k *keyShare) attack(check, crossed bool, a, b *Node) (atA, atB *firstFrames) {
	k.h.tamper = k.relay
	if crossed {
		k.h.tamper = k.cross
	}
	var watch [2]*firstFrames
	for i, n := range []*Node{a, b} {
		watch[i] = &firstFrames{connector: n.connector}
		if !check {
			watch[i].instead = func() []byte { return k.hello(n.ID()) }
		}
		n.connector = watch[i]
	}
	watch[1].linger = 100 * time.Millisecond
	return watch[0], watch[1]
}

// dialM makes the victims talk to agent-m.
func dialM(a, b *Node, crossed bool, patience time.Duration) (errA, errB error) {
	var wg sync.WaitGroup
	if crossed {
		wg.Go(func() { _, errB = dialFor(b, "agent-m", patience) })
	}
	_, errA = dialFor(a, "agent-m", patience)
	wg.Wait()
	return errA, errB
}

// TestUnknownKeyShareUnchecked shows that the attack is real: without the
// check of the hello both victims have a connected Peer "agent-m", and unsigned
// frames pass between them.
func TestUnknownKeyShareUnchecked(t *testing.T) {
	for _, crossed := range []bool{false, true} {
		log := new(hostileLog)
		inHub(t, func(t *testing.T, h *hub, a, b *Node) {
			k := newKeyShare(t, h, a, b)
			atA, atB := k.attack(false, crossed, a, b)
			if errA, errB := dialM(a, b, crossed, 5*time.Second); errA != nil || errB != nil {
				t.Fatalf("crossed %v: the attack does not work: %v, %v", crossed, errA, errB)
			}
			time.Sleep(3 * time.Second)
			for _, n := range []*Node{a, b} {
				if got := connectedTo(n); !slices.Equal(got, []string{"agent-m"}) {
					t.Errorf("crossed %v: %s is connected to %v", crossed, n.ID(), got)
					continue
				}
				p := n.lookup("agent-m")
				if p.Key() != k.m.PublicKey() {
					t.Errorf("crossed %v: %s believes in another key", crossed, n.ID())
				}
				rtt := make(chan int64, 1)
				p.post(func() { rtt <- p.sessions[0].rtt.Load() })
				if <-rtt == 0 {
					t.Errorf("crossed %v: no echo came back to %s", crossed, n.ID())
				}
			}
			if certs := atA.presented(); !slices.Equal(certs, []keys.Fingerprint{fingerprintNow(t, b)}) {
				t.Errorf("crossed %v: agent-a was shown %v", crossed, certs)
			}
			if certs := atB.presented(); !slices.Equal(certs, []keys.Fingerprint{fingerprintNow(t, a)}) {
				t.Errorf("crossed %v: agent-b was shown %v", crossed, certs)
			}
			// Messages have a second line of defence: their authors sign them.
			q := b.lookup("agent-m")
			if err := a.lookup("agent-m").Send(t.Context(), Message{Payload: json.RawMessage(`"for agent-m"`)}); err != nil {
				t.Error(err)
			}
			<-q.Context().Done()
			if cause := context.Cause(q.Context()); !errors.Is(cause, ErrProtocol) || !errors.Is(cause, keys.ErrBadSignature) {
				t.Errorf("crossed %v: a message of agent-a as agent-m's: %v", crossed, cause)
			}
			time.Sleep(time.Millisecond) // events come a moment later
			if log.charged(t, "agent-b", witness.SignatureVerificationFailed, "session") != 1 {
				t.Error("the message was not reported")
			}
		}, func(c *Config) { c.Recorder = log })
	}
}

// TestUnknownKeyShare: with the check, the same connections come up, and
// neither side ever has a Peer. Nothing is held against the victims, who reach
// each other afterwards.
func TestUnknownKeyShare(t *testing.T) {
	for _, crossed := range []bool{false, true} {
		log := new(hostileLog)
		inHub(t, func(t *testing.T, h *hub, a, b *Node) {
			atA, atB := newKeyShare(t, h, a, b).attack(true, crossed, a, b)
			errA, errB := dialM(a, b, crossed, 5*time.Second)
			var de *DialError
			if !errors.As(errA, &de) || !errors.Is(errA, context.DeadlineExceeded) {
				t.Errorf("crossed %v: dial of agent-m: %v", crossed, errA)
			}
			if crossed && (!errors.As(errB, &de) || !errors.Is(errB, context.DeadlineExceeded)) {
				t.Errorf("dial of agent-m by agent-b: %v", errB)
			}
			for _, n := range []*Node{a, b} {
				if got := connectedTo(n); len(got) != 0 {
					t.Errorf("crossed %v: %s is connected to %v", crossed, n.ID(), got)
				}
				if log.count(n.ID(), witness.WebRTCSessionEstablished) != 0 {
					t.Errorf("crossed %v: %s had a session", crossed, n.ID())
				}
			}
			// The connections did come up, to the wrong agent, and it was the
			// hello that ended them.
			seenA, seenB := atA.presented(), atB.presented()
			if len(seenA)+len(seenB) == 0 ||
				slices.ContainsFunc(seenA, func(c keys.Fingerprint) bool { return c != fingerprintNow(t, b) }) ||
				slices.ContainsFunc(seenB, func(c keys.Fingerprint) bool { return c != fingerprintNow(t, a) }) {
				t.Errorf("crossed %v: connections to %v and %v", crossed, seenA, seenB)
			}
			failed := log.charged(t, "agent-a", witness.SignatureVerificationFailed, "session") +
				log.charged(t, "agent-b", witness.SignatureVerificationFailed, "session")
			if failed != len(seenA)+len(seenB) {
				t.Errorf("crossed %v: %d connections and %d refused hellos", crossed, len(seenA)+len(seenB), failed)
			}
			p, err := dialFor(a, "agent-b", 5*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			if p.Key() != b.cfg.Identity.PublicKey() {
				t.Error("connected to another key")
			}
		}, func(c *Config) { c.Recorder = log })
	}
}
