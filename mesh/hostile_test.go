package mesh

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/transport/v5"

	"github.com/infrafabric/agentmesh/internal/virtual"
	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
	"github.com/infrafabric/agentmesh/witness"
)

// These tests are attacks by a signaling server that lies. It may delay and
// drop. Whatever else it tries is refused or ignored and charged to it, and a
// dial that it lets through beside its forgeries succeeds.

var hostileNet = virtual.Config{RTT: 20 * time.Millisecond}

// wantDial dials, and wants it to take no longer than an honest dial does.
func wantDial(t *testing.T, n *Node, id string) *Peer {
	t.Helper()
	start := time.Now()
	p, err := dialFor(n, id, 9*time.Second)
	if err != nil {
		t.Fatalf("honest dial: %v", err)
	}
	if took := time.Since(start); took > resendFirst {
		t.Errorf("honest dial took %v", took)
	}
	return p
}

// wantNoDial dials, and wants it to end with the context's error and to leave
// nobody connected.
func wantNoDial(t *testing.T, n, to *Node, patience time.Duration) {
	t.Helper()
	var de *DialError
	_, err := dialFor(n, to.ID(), patience)
	if !errors.As(err, &de) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("dial through forgeries alone: %v", err)
	}
	for _, x := range []*Node{n, to} {
		if got := connectedTo(x); len(got) != 0 {
			t.Errorf("%s is connected to %v", x.ID(), got)
		}
	}
}

// swapFingerprint returns a description with another certificate in its SDP.
func swapFingerprint(t *testing.T, body []byte, signedToo bool) []byte {
	t.Helper()
	d, err := decodeDescription(body)
	if err != nil {
		t.Error(err)
		return body
	}
	fake := keys.Fingerprint{1, 2, 3}
	d.SDP = strings.ReplaceAll(d.SDP, d.Fingerprint.String(), fake.String())
	if signedToo {
		d.Fingerprint = fake
	}
	return d.encode()
}

// TestHostileAlteredEnvelope: the server changes one field of an offer or of
// an answer. Alone, the forgery connects nobody; before and after the genuine
// envelope, it changes nothing.
func TestHostileAlteredEnvelope(t *testing.T) {
	mallory := newIdentity(t, "agent-a")
	const (
		none    = witness.Name("")             // of no negotiation here: not told from a late one
		foreign = witness.Name("misdelivered") // counted, not witnessed
	)
	ago := func(d time.Duration) uint64 { return uint64(time.Now().Add(-d).UnixMilli()) }
	for _, c := range []struct {
		kind   signaling.Kind
		what   string
		change func(t *testing.T, f []any)
		event  witness.Name
	}{
		{signaling.Offer, "fingerprint in the SDP", func(t *testing.T, f []any) {
			f[fieldBody] = swapFingerprint(t, f[fieldBody].([]byte), false)
		}, witness.SignatureVerificationFailed},
		{signaling.Offer, "fingerprint and its copy", func(t *testing.T, f []any) {
			f[fieldBody] = swapFingerprint(t, f[fieldBody].([]byte), true)
		}, witness.SignatureVerificationFailed},
		{signaling.Offer, "from to a trusted agent", func(_ *testing.T, f []any) { f[fieldFrom] = "agent-c" }, witness.SignatureVerificationFailed},
		{signaling.Offer, "from to nobody", func(_ *testing.T, f []any) { f[fieldFrom] = "agent-x" }, witness.SignatureVerificationFailed},
		{signaling.Offer, "from to the recipient", func(_ *testing.T, f []any) { f[fieldFrom] = "agent-b" }, foreign},
		{signaling.Offer, "to", func(_ *testing.T, f []any) { f[fieldTo] = "agent-c" }, foreign},
		{signaling.Offer, "to key", func(_ *testing.T, f []any) { f[fieldToKey] = mallory.PublicKey().Bytes() }, foreign},
		{signaling.Offer, "key", func(_ *testing.T, f []any) { f[fieldKey] = mallory.PublicKey().Bytes() }, witness.SignatureVerificationFailed},
		{signaling.Offer, "mesh", func(_ *testing.T, f []any) { f[fieldMesh] = "other" }, foreign},
		{signaling.Offer, "instance", func(_ *testing.T, f []any) { f[fieldInstance] = bytes.Repeat([]byte{7}, 16) }, witness.SignatureVerificationFailed},
		{signaling.Offer, "generation", func(_ *testing.T, f []any) { f[fieldGeneration] = f[fieldGeneration].(uint64) + 1 }, witness.SignatureVerificationFailed},
		{signaling.Offer, "generation of next year", func(_ *testing.T, f []any) { f[fieldGeneration] = ago(-365 * 24 * time.Hour) }, foreign},
		{signaling.Offer, "nonce", func(_ *testing.T, f []any) { f[fieldNonce] = bytes.Repeat([]byte{7}, 16) }, witness.SignatureVerificationFailed},
		{signaling.Offer, "time", func(_ *testing.T, f []any) { f[fieldTime] = ago(-time.Second) }, witness.SignatureVerificationFailed},
		{signaling.Offer, "time long ago", func(_ *testing.T, f []any) { f[fieldTime] = ago(freshness + time.Second) }, witness.SignatureVerificationFailed},
		{signaling.Offer, "time in the year 9999", func(_ *testing.T, f []any) { f[fieldTime] = uint64(253402300799999) }, witness.SignatureVerificationFailed},
		{signaling.Answer, "fingerprint in the SDP", func(t *testing.T, f []any) {
			f[fieldBody] = swapFingerprint(t, f[fieldBody].([]byte), false)
		}, witness.SignatureVerificationFailed},
		{signaling.Answer, "from", func(_ *testing.T, f []any) { f[fieldFrom] = "agent-c" }, none},
		{signaling.Answer, "key", func(_ *testing.T, f []any) { f[fieldKey] = mallory.PublicKey().Bytes() }, witness.SignatureVerificationFailed},
		{signaling.Answer, "ref", func(_ *testing.T, f []any) { f[fieldRef] = bytes.Repeat([]byte{7}, 32) }, witness.SignatureVerificationFailed},
		{signaling.Answer, "instance", func(_ *testing.T, f []any) { f[fieldInstance] = bytes.Repeat([]byte{7}, 16) }, witness.SignatureVerificationFailed},
		{signaling.Answer, "to a refusal", func(_ *testing.T, f []any) {
			f[fieldKind], f[fieldBody] = 4, (&rejectBody{Code: rejectUntrusted, Text: "go away"}).encode()
		}, witness.SignatureVerificationFailed},
	} {
		t.Run(c.kind.String()+" "+c.what, func(t *testing.T) {
			inWorld(t, hostileNet, func(w *world) {
				l := newLiar(w, "liar.example")
				defer l.stop()
				meter := newHostileMeter()
				a, b := l.agent("agent-a"), l.agent("agent-b", meter.config)
				w.trust.mu.Lock()
				w.trust.keys["agent-c"] = newIdentity(t, "agent-c").PublicKey()
				w.trust.mu.Unlock()
				victim := "agent-b"
				if c.kind == signaling.Answer {
					victim = "agent-a"
				}
				forge := func(beside bool) liarHook {
					return onEnvelopes(func(agent string, e *signaling.Sealed) [][]byte {
						if e.Kind != c.kind {
							return [][]byte{e.Bytes()}
						}
						forged := alter(e.Bytes(), func(f []any) { c.change(t, f) })
						if !beside {
							return [][]byte{forged}
						}
						return [][]byte{forged, e.Bytes(), forged}
					})
				}
				l.set(nil, forge(false))
				wantNoDial(t, a, b, 1200*time.Millisecond)
				if c.event == foreign {
					if meter.count(t, "webrtc_signaling_errors_total") == 0 {
						t.Error("the envelope was not counted")
					}
				} else if c.event != none && l.log.charged(t, victim, c.event, l.url) == 0 {
					t.Errorf("no event %s of %s", c.event, victim)
				}
				l.set(nil, forge(true))
				p := wantDial(t, a, "agent-b")
				q, err := b.Accept(w.t.Context())
				if err != nil {
					t.Fatal(err)
				}
				w.say(p, q, "after all")
			})
		})
	}
}

// TestHostileReplacedEnvelope: the server answers and offers with a key of its
// own under the names of both agents, correctly signed.
func TestHostileReplacedEnvelope(t *testing.T) {
	inWorld(t, hostileNet, func(w *world) {
		l := newLiar(w, "liar.example")
		defer l.stop()
		a, b := l.agent("agent-a"), l.agent("agent-b")
		fakes := map[string]*keys.Identity{"agent-a": newIdentity(t, "agent-a"), "agent-b": newIdentity(t, "agent-b")}
		replace := func(beside bool) liarHook {
			return onEnvelopes(func(_ string, e *signaling.Sealed) [][]byte {
				own := e.Envelope
				own.Nonce = signaling.Nonce{}
				out := [][]byte{reseal(t, fakes[e.From], own)}
				if e.Kind == signaling.Answer { // and a refusal in its place
					own.Kind, own.Body = signaling.Reject, (&rejectBody{Code: rejectUntrusted}).encode()
					out = append(out, reseal(t, fakes[e.From], own))
				}
				if beside {
					out = append(out, e.Bytes())
				}
				return out
			})
		}
		l.set(nil, replace(false))
		wantNoDial(t, a, b, 1200*time.Millisecond)
		offers := l.log.charged(t, "agent-b", witness.UnauthorizedConnectionAttempt, l.url)
		l.set(nil, replace(true))
		p := wantDial(t, a, "agent-b")
		if p.Key() != b.cfg.Identity.PublicKey() {
			t.Error("connected to another key")
		}
		answers := l.log.charged(t, "agent-a", witness.UnauthorizedConnectionAttempt, l.url)
		if offers == 0 || answers == 0 {
			t.Errorf("%d offers and %d answers of the wrong key were reported", offers, answers)
		}
	})
}

func reseal(t *testing.T, id *keys.Identity, e signaling.Envelope) []byte {
	t.Helper()
	s, err := signaling.Seal(id, e)
	if err != nil {
		t.Error(err)
		return nil
	}
	return s.Bytes()
}

// TestHostileReplay: the server keeps everything and plays it again: while the
// session lives, after it has ended, to a process that was restarted, from
// another mesh, and after the freshness window.
func TestHostileReplay(t *testing.T) {
	inWorld(t, hostileNet, func(w *world) {
		l := newLiar(w, "liar.example")
		defer l.stop()
		a, b := l.agent("agent-a"), l.agent("agent-b")
		p := wantDial(t, a, "agent-b")
		q, err := b.Accept(w.t.Context())
		if err != nil {
			t.Fatal(err)
		}
		replay := func() {
			l.mu.Lock()
			all := append([]*signaling.Sealed(nil), l.seen...)
			l.mu.Unlock()
			for _, e := range all {
				l.inject(e.To, e.Bytes())
			}
			time.Sleep(time.Second)
		}
		replay()
		w.say(p, q, "still the same session")
		if err := p.Flush(w.t.Context()); err != nil {
			t.Error(err)
		}
		if n := l.log.count("agent-b", witness.WebRTCSessionEstablished); n != 1 {
			t.Errorf("%d sessions after a replay", n)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		replay()
		if x := b.lookup("agent-a"); x != nil {
			t.Error("an offer played again made a Peer")
		}

		// The process that comes after b remembers no envelope. It answers an
		// old offer, which is fresh; nobody is there to finish it. Meanwhile
		// and afterwards agents reach each other.
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		b = w.agentAs(b.cfg.Identity, virtual.Open, l.only)
		replay()
		if len(l.sent("agent-b", signaling.Answer)) < 2 {
			t.Error("the restarted agent did not answer the old offer: this test shows nothing")
		}
		if got := connectedTo(b); len(got) != 0 {
			t.Errorf("an old offer connects a restarted agent to %v", got)
		}
		p = wantDial(t, b, "agent-a")
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		time.Sleep(attemptTimeout)
		p = wantDial(t, a, "agent-b")
		if err := p.Close(); err != nil {
			t.Error(err)
		}

		time.Sleep(freshness + time.Second)
		before := l.log.charged(t, "agent-b", witness.ReplayRejected, l.url)
		replay()
		if n := l.log.charged(t, "agent-b", witness.ReplayRejected, l.url); n <= before {
			t.Error("stale envelopes were not reported")
		}
		if b.lookup("agent-a") != nil || a.lookup("agent-b") != nil {
			t.Error("a stale envelope made a Peer")
		}
	})
}

// TestHostileReplayFromAnotherMesh: one key is in two meshes, and the server
// plays an offer of one in the other, as it is and with the mesh changed.
func TestHostileReplayFromAnotherMesh(t *testing.T) {
	inWorld(t, hostileNet, func(w *world) {
		l := newLiar(w, "liar.example")
		defer l.stop()
		b := l.agent("agent-b")
		other := l.agent("agent-a", func(c *Config) { c.Mesh = "other" })
		if _, err := dialFor(other, "agent-b", 700*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dial of an agent in another mesh: %v", err)
		}
		offers := l.sent("agent-a", signaling.Offer)
		if len(offers) == 0 {
			t.Fatal("no offer was sent")
		}
		changed := alter(offers[0].Bytes(), func(f []any) { f[fieldMesh] = "default" })
		l.inject("agent-b", offers[0].Bytes(), changed)
		time.Sleep(time.Second)
		if b.lookup("agent-a") != nil {
			t.Error("an offer of another mesh made a Peer")
		}
		if n := l.log.charged(t, "agent-b", witness.SignatureVerificationFailed, l.url); n != 1 {
			t.Errorf("%d failed signatures were reported", n)
		}
	})
}

// TestHostileDelay: envelopes that are held back beyond the freshness window
// are refused; those held back for less than an attempt lasts are not.
func TestHostileDelay(t *testing.T) {
	inWorld(t, hostileNet, func(w *world) {
		l := newLiar(w, "liar.example")
		defer l.stop()
		a, b := l.agent("agent-a"), l.agent("agent-b")
		hold := func(d time.Duration) liarHook {
			return onEnvelopes(func(agent string, e *signaling.Sealed) [][]byte {
				time.AfterFunc(d, func() { l.inject(agent, e.Bytes()) })
				return nil
			})
		}
		l.set(nil, hold(freshness+time.Second))
		wantNoDial(t, a, b, 5*time.Second)
		l.set(nil, nil)
		time.Sleep(freshness + time.Minute)
		if l.log.charged(t, "agent-b", witness.ReplayRejected, l.url) == 0 || b.lookup("agent-a") != nil {
			t.Error("an offer of five minutes ago was accepted")
		}
		l.set(nil, hold(3*time.Second))
		if _, err := dialFor(a, "agent-b", 9*time.Second); err != nil {
			t.Errorf("dial through a slow server: %v", err)
		}
		l.set(nil, nil)
	})
}

// TestHostileGlareWithheld: both dial at once, and the server withholds the
// offers of one side. When that side's would have won, its owner answers the
// other offer after glareWait.
func TestHostileGlareWithheld(t *testing.T) {
	for _, winner := range []bool{false, true} {
		inWorld(t, hostileNet, func(w *world) {
			l := newLiar(w, "liar.example")
			defer l.stop()
			a, b := l.agent("agent-a"), l.agent("agent-b")
			withheld := "agent-a"
			if (a.cfg.Identity.PublicKey().Compare(b.cfg.Identity.PublicKey()) > 0) != winner {
				withheld = "agent-b"
			}
			l.set(nil, onEnvelopes(func(_ string, e *signaling.Sealed) [][]byte {
				if e.Kind == signaling.Offer && e.From == withheld {
					return nil
				}
				return [][]byte{e.Bytes()}
			}))
			start := time.Now()
			got := make(chan error, 2)
			go func() { _, err := dialFor(a, "agent-b", 9*time.Second); got <- err }()
			go func() { _, err := dialFor(b, "agent-a", 9*time.Second); got <- err }()
			for range 2 {
				if err := <-got; err != nil {
					t.Errorf("offers withheld, of the winner %v: %v", winner, err)
				}
			}
			most := time.Second
			if winner {
				most += glareWait
			}
			if took := time.Since(start); took > most {
				t.Errorf("offers withheld, of the winner %v: connected after %v", winner, took)
			}
		})
	}
}

// TestHostileWithheldOffer: an offer that the server kept while its author
// dialled again is still fresh and new. It ranks below the session in use, so
// nothing is answered.
func TestHostileWithheldOffer(t *testing.T) {
	inWorld(t, hostileNet, func(w *world) {
		l := newLiar(w, "liar.example")
		defer l.stop()
		a, b := l.agent("agent-a"), l.agent("agent-b")
		l.set(nil, onEnvelopes(func(string, *signaling.Sealed) [][]byte { return nil }))
		wantNoDial(t, a, b, time.Second)
		l.set(nil, nil)
		kept := l.sent("agent-a", signaling.Offer)
		p, q := w.pair(a, b)
		answers := len(l.sent("agent-b", signaling.Answer))
		for _, e := range kept {
			l.inject("agent-b", e.Bytes())
		}
		time.Sleep(3 * time.Second)
		if n := len(l.sent("agent-b", signaling.Answer)); len(kept) == 0 || n != answers {
			t.Errorf("%d answers after %d old offers, %d before", n, len(kept), answers)
		}
		w.say(p, q, "there")
		w.say(q, p, "and back")
	})
}

// stuckRoute is a signaler whose first way takes nothing.
type stuckRoute struct{ signaler }

func (s stuckRoute) Send(ctx context.Context, b []byte, route int) (string, error) {
	if route == 0 {
		<-ctx.Done()
		return "", context.Cause(ctx)
	}
	return s.signaler.Send(ctx, b, route)
}

// TestHostileStuckServer: a server that takes nothing does not keep envelopes
// from going by the next.
func TestHostileStuckServer(t *testing.T) {
	inWorld(t, hostileNet, func(w *world) {
		h := newHub(10 * time.Millisecond)
		for _, name := range []string{"agent-a", "agent-b"} {
			id := newIdentity(t, name)
			w.trust.keys[name] = id.PublicKey()
			n, err := newNode(Config{Identity: id, Trust: w.trust, Signaling: []string{"ws://hub.invalid/"}})
			if err != nil {
				t.Fatal(err)
			}
			c, err := newWebRTCConnector(connectorConfig{net: w.host(virtual.Open), log: n.log})
			if err != nil {
				t.Fatal(err)
			}
			n.run(c, stuckRoute{h.end(name)})
			w.nodes = append(w.nodes, n)
		}
		start := time.Now()
		if _, err := dialFor(w.nodes[0], "agent-b", 9*time.Second); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > 3*resendFirst {
			t.Errorf("the dial took %v", took)
		}
	})
}

// TestHostileCandidates: the server wants an agent to send packets to an
// address of its choice: it injects candidates of its own key under the name
// of the other side, changed ones, and genuine ones from other negotiations.
func TestHostileCandidates(t *testing.T) {
	inWorld(t, hostileNet, func(w *world) {
		l := newLiar(w, "liar.example")
		defer l.stop()
		a, b := l.agent("agent-a"), l.agent("agent-b")
		m := newIdentity(t, "agent-m")
		w.trust.mu.Lock()
		w.trust.keys["agent-m"] = m.PublicKey()
		w.trust.mu.Unlock()
		mallory := newIdentity(t, "agent-a")

		// The trap counts what arrives at the address that is advertised.
		host := w.host(virtual.Open)
		ip := hostAddress(t, host)
		sock, err := host.ListenUDP("udp4", &net.UDPAddr{IP: ip, Port: 5000})
		if err != nil {
			t.Fatal(err)
		}
		defer sock.Close()
		trapped := make(chan struct{}, 1)
		go func() {
			buf := make([]byte, 2048)
			for {
				if _, _, err := sock.ReadFrom(buf); err != nil {
					return
				}
				select {
				case trapped <- struct{}{}:
				default:
				}
			}
		}()
		body := (&candidateBody{Candidates: []string{
			fmt.Sprintf("candidate:1 1 udp 2130706431 %v 5000 typ host", ip)}}).encode()

		var older, latest *signaling.Sealed // older: an offer of a negotiation that is over
		genuine := false                    // the author himself names the trap
		l.set(nil, onEnvelopes(func(agent string, e *signaling.Sealed) [][]byte {
			if e.Kind != signaling.Offer || agent != "agent-b" || e.From != "agent-a" {
				return [][]byte{e.Bytes()}
			}
			c := signaling.Envelope{Kind: signaling.Candidate, Mesh: e.Mesh, To: e.To, Instance: e.Instance,
				Generation: e.Generation, Ref: e.Hash(), Body: body}
			if genuine {
				return [][]byte{e.Bytes(), reseal(t, a.cfg.Identity, c)}
			}
			elsewhere, foreign, past, process := c, c, c, c
			elsewhere.To = "agent-c"
			foreign.Ref = signaling.Hash{9}
			process.Instance = signaling.NewInstance()
			out := [][]byte{e.Bytes(),
				reseal(t, mallory, c), // the right name, another key
				reseal(t, m, c),       // a trusted agent that has no part in this
				alter(reseal(t, m, c), func(f []any) { // his, renamed
					f[fieldFrom], f[fieldKey] = "agent-a", a.cfg.Identity.PublicKey().Bytes()
				}),
				reseal(t, a.cfg.Identity, elsewhere), // genuine, for somebody else
				alter(reseal(t, a.cfg.Identity, elsewhere), func(f []any) { f[fieldTo] = "agent-b" }),
				reseal(t, a.cfg.Identity, foreign), // genuine, of another negotiation
				alter(reseal(t, a.cfg.Identity, foreign), func(f []any) { f[fieldRef] = c.Ref[:] }),
				reseal(t, a.cfg.Identity, process), // genuine, of the agent's other process
			}
			if latest == nil || latest.Hash() != e.Hash() { // an offer may be repeated
				older, latest = latest, e
			}
			if older != nil {
				past.Ref = older.Hash()
				out = append(out, reseal(t, a.cfg.Identity, past))
			}
			return out
		}))
		for range 2 {
			p := wantDial(t, a, "agent-b")
			time.Sleep(2 * time.Second)
			if err := p.Close(); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Second)
		}
		select {
		case <-trapped:
			t.Error("an injected candidate was used")
		default:
		}
		if l.log.charged(t, "agent-b", witness.SignatureVerificationFailed, l.url) == 0 ||
			l.log.charged(t, "agent-b", witness.UnauthorizedConnectionAttempt, l.url) == 0 {
			t.Error("the forgeries were not reported")
		}
		// The trap works: the author's own candidate of this very negotiation
		// is tried.
		genuine = true
		wantDial(t, a, "agent-b")
		time.Sleep(2 * time.Second)
		select {
		case <-trapped:
		default:
			t.Error("a genuine candidate was not used: this test shows nothing")
		}
		_ = b
	})
}

func hostAddress(t *testing.T, host transport.Net) net.IP {
	t.Helper()
	i, err := host.InterfaceByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	addrs, err := i.Addrs()
	if err != nil {
		t.Fatal(err)
	}
	return addrs[0].(*net.IPNet).IP
}

// TestHostileSquatter: somebody registers the name of an agent with a key of
// his own, before the owner and beside him. The owner is reached, the squatter
// by nobody, and reaches nobody.
func TestHostileSquatter(t *testing.T) {
	inWorld(t, hostileNet, func(w *world) {
		l := newLiar(w, "liar.example")
		defer l.stop()
		squatter := w.agentAs(newIdentity(t, "agent-b"), virtual.Open, l.only, func(c *Config) {
			c.Trust, c.Recorder = keys.TrustAny, nil // answers everybody
		})
		a, b := l.agent("agent-a"), l.agent("agent-b")
		p := wantDial(t, a, "agent-b")
		if p.Key() != b.cfg.Identity.PublicKey() {
			t.Error("connected to the squatter")
		}
		q, err := b.Accept(w.t.Context())
		if err != nil {
			t.Fatal(err)
		}
		w.say(p, q, "to the owner")
		if l.log.charged(t, "agent-a", witness.UnauthorizedConnectionAttempt, l.url) == 0 {
			t.Error("the squatter's answer was not reported")
		}
		time.Sleep(attemptTimeout) // until he has given up what he answered
		start := time.Now()
		if _, err := dialFor(squatter, "agent-a", time.Minute); !errors.Is(err, ErrRefused) || time.Since(start) > time.Second {
			t.Errorf("the squatter's dial after %v: %v", time.Since(start), err)
		}
		if got := connectedTo(squatter); len(got) != 0 {
			t.Errorf("the squatter is connected to %v", got)
		}
		w.say(q, p, "and back")
	})
}

// TestHostileForwardedChallenge: a server passes another server's challenge on
// to its own client, to register as that client there. What it gets names
// itself; it cannot name the other without breaking the signature.
func TestHostileForwardedChallenge(t *testing.T) {
	inWorld(t, hostileNet, func(w *world) {
		l := newLiar(w, "liar.example")
		defer l.stop()
		// The server behind answers for another name.
		var log hostileLog
		target, err := signaling.NewServer(signaling.ServerConfig{Names: []string{"target.example"}, Recorder: &log})
		if err != nil {
			t.Fatal(err)
		}
		defer target.Close()
		l.serve("target.example", target)
		l.behind = "target.example"
		for _, rename := range []bool{false, true} {
			if rename {
				l.set(func(_ string, m wireMessage) [][]byte {
					if m.kind == wireRegister {
						m.fields[6] = "target.example"
						return [][]byte{wire(m.fields...)}
					}
					return [][]byte{m.raw}
				}, nil)
			}
			cfg := Config{Identity: newIdentity(t, "agent-a"), Trust: w.trust, HTTPClient: w.http, Net: w.host(virtual.Open)}
			l.only(&cfg)
			ctx, cancel := context.WithTimeout(w.t.Context(), 5*time.Second)
			if _, err := Listen(ctx, cfg); !errors.Is(err, signaling.ErrRefused) {
				t.Errorf("registration through another server, renamed %v: %v", rename, err)
			}
			cancel()
		}
		if n := log.count("agent-a", witness.SignatureVerificationFailed); n != 1 {
			t.Errorf("the server reported %d broken signatures", n)
		}
		if n := log.count("agent-a", witness.AgentRegistered); n != 0 {
			t.Error("the server registered an agent that never dialled it")
		}
	})
}

// TestHostilePresence: the server tells that connected agents have left, come
// with other keys, and come and go; then it throws everybody out for good.
// Presence is a hint: no Peer ends.
func TestHostilePresence(t *testing.T) {
	inWorld(t, hostileNet, func(w *world) {
		l := newLiar(w, "liar.example")
		defer l.stop()
		a, b := l.agent("agent-a"), l.agent("agent-b")
		p, q := w.pair(a, b)
		other := newIdentity(t, "agent-b").PublicKey()
		for i := range 100 {
			l.tell("agent-a", wirePresent(i%2 == 1, "agent-b", b.cfg.Identity.PublicKey()), wirePresent(i%2 == 0, "agent-b", other))
			l.tell("agent-b", wirePresent(false, "agent-a", a.cfg.Identity.PublicKey()))
		}
		l.tell("agent-a", wirePresent(true, "agent-a", a.cfg.Identity.PublicKey()))
		time.Sleep(3 * time.Second)
		w.say(p, q, "still here")
		w.say(q, p, "me too")
		for _, agent := range []string{"agent-a", "agent-b"} {
			l.tell(agent, wire(1, wireNotice, int(signaling.CodeReplaced), "a newer connection", []byte{}))
		}
		l.hangUp()
		time.Sleep(time.Minute)
		w.say(p, q, "without signaling")
		w.say(q, p, "either way")
		if a.lookup("agent-b") != p || b.lookup("agent-a") != q || p.ctx.Err() != nil || q.ctx.Err() != nil {
			t.Error("a Peer was closed")
		}
	})
}

// TestHostilePresenceIsNoAmplifier: every "joined" makes an agent repeat its
// offer; a server that says so for ever does not make it send for ever.
func TestHostilePresenceIsNoAmplifier(t *testing.T) {
	inWorld(t, hostileNet, func(w *world) {
		l := newLiar(w, "liar.example")
		defer l.stop()
		a := l.agent("agent-a")
		absent := newIdentity(t, "agent-b").PublicKey()
		done := make(chan error)
		go func() { _, err := dialFor(a, "agent-b", time.Minute); done <- err }()
		for range 5000 {
			l.tell("agent-a", wirePresent(true, "agent-b", absent))
			time.Sleep(10 * time.Millisecond)
		}
		if err := <-done; !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		// One at once, with a few repetitions, one for each hintPause, and those of an
		// agent that waits for another.
		if n := len(l.sent("agent-a", signaling.Offer)); n > 60 {
			t.Errorf("%d offers were sent within a minute", n)
		}
	})
}

// TestHostileFlood: thousands of envelopes of every useless kind come in while
// an honest dial is under way.
func TestHostileFlood(t *testing.T) {
	inWorld(t, hostileNet, func(w *world) {
		l := newLiar(w, "liar.example")
		defer l.stop()
		a, b := l.agent("agent-a"), l.agent("agent-b")
		var once bool
		l.set(nil, onEnvelopes(func(_ string, e *signaling.Sealed) [][]byte {
			if e.Kind != signaling.Offer || once {
				return [][]byte{e.Bytes()}
			}
			once = true
			raw := e.Bytes()
			bad := bytes.Clone(raw)
			bad[len(bad)-1] ^= 1
			later := alter(raw, func(f []any) { f[fieldTime] = f[fieldTime].(uint64) - 3_600_000 })
			nobody := alter(raw, func(f []any) { f[fieldFrom] = "agent-x" })
			var out [][]byte
			for range 400 {
				out = append(out, []byte("junk"), raw[:len(raw)/2], bad, later, nobody)
			}
			return append(out, raw)
		}))
		wantDial(t, a, "agent-b")
		if n := l.log.charged(t, "agent-b", witness.SignatureVerificationFailed, l.url); n < 400 {
			t.Errorf("%d of 400 broken signatures were reported", n)
		}
		_ = b
	})
}

// TestHostileStrangersFillNothing: offers of ever new keys, each correctly
// signed, leave no trace in the memory that honest envelopes need: beyond its
// limit the first envelope of a trusted key would be refused.
func TestHostileStrangersFillNothing(t *testing.T) {
	inWorld(t, hostileNet, func(w *world) {
		l := newLiar(w, "liar.example")
		defer l.stop()
		b := l.agent("agent-b")
		const strangers = 50
		for i := range strangers {
			e := signaling.Envelope{Kind: signaling.Offer, Mesh: "default", To: "agent-b",
				Instance: signaling.NewInstance(), Generation: 1, Body: []byte("x")}
			l.inject("agent-b", reseal(t, newIdentity(t, fmt.Sprintf("stranger-%d", i)), e))
			time.Sleep(time.Second / rejectsPerSecond)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if n := len(b.replays.keys); n != 0 {
			t.Errorf("%d keys of strangers are remembered", n)
		}
		if n := l.log.charged(t, "agent-b", witness.UnauthorizedConnectionAttempt, l.url); n != strangers {
			t.Errorf("%d of %d strangers were reported", n, strangers)
		}
	})
}

// TestHostileStrangersBesideDial: while an agent is dialled whose key may be
// learned, anybody can send correctly signed envelopes under its name. They
// leave no trace in the memory of trusted keys either.
func TestHostileStrangersBesideDial(t *testing.T) {
	known, err := keys.NewFirstUse(keys.FirstUseConfig{Path: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	inWorld(t, hostileNet, func(w *world) {
		l := newLiar(w, "liar.example")
		defer l.stop()
		a := l.agent("agent-a", func(c *Config) { c.Trust = known })
		done := make(chan error)
		go func() { _, err := dialFor(a, "agent-b", 2*time.Second); done <- err }()
		time.Sleep(100 * time.Millisecond)
		const strangers = 50
		for range strangers {
			e := signaling.Envelope{Kind: signaling.Answer, Mesh: "default", To: "agent-a",
				Instance: signaling.NewInstance(), Ref: signaling.Hash{1}, Body: []byte("x")}
			l.inject("agent-a", reseal(t, newIdentity(t, "agent-b"), e))
		}
		if err := <-done; !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		synctest.Wait()
		if n := len(a.replays.keys); n != 0 {
			t.Errorf("%d keys of strangers are remembered with the trusted ones", n)
		}
		if n := len(a.strangers.keys); n != strangers {
			t.Errorf("%d of %d strangers are remembered", n, strangers)
		}
	})
}

// TestHostileServerBesideHonest: of two servers one lies: it allows one envelope
// a second and delivers offers of strangers without end, each of which asks for
// a refusal. Neither these nor answers that wait for it hold up a dial by the
// honest one.
func TestHostileServerBesideHonest(t *testing.T) {
	inWorld(t, hostileNet, func(w *world) {
		l := newLiar(w, "liar.example")
		defer l.stop()
		l.set(nil, func(_ string, m wireMessage) [][]byte {
			if m.kind == wireWelcome {
				m.fields[4], m.fields[5] = 1, 1
				return [][]byte{wire(m.fields...)}
			}
			return [][]byte{m.raw}
		})
		both := func(c *Config) { c.Signaling = append(c.Signaling, "ws://s1.example/") }
		a, b := l.agent("agent-a", both), l.agent("agent-b", both)
		time.Sleep(time.Second)
		ctx, cancel := context.WithCancel(w.t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for i := 0; ctx.Err() == nil; i++ {
				e := signaling.Envelope{Kind: signaling.Offer, Mesh: "default", To: "agent-b",
					Instance: signaling.NewInstance(), Generation: 1, Body: []byte("x")}
				l.inject("agent-b", reseal(t, newIdentity(t, fmt.Sprintf("stranger-%d", i)), e))
				time.Sleep(time.Second / rejectsPerSecond)
			}
		}()
		time.Sleep(10 * time.Second) // until nothing fits into the queue to the liar
		start := time.Now()
		p, err := dialFor(a, "agent-b", 9*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		// The first way is the liar's, the second comes half a second later; the
		// answer likewise.
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("the dial took %v", took)
		}
		cancel()
		<-ended
		if err := p.Send(w.t.Context(), Message{Payload: json.RawMessage("1")}); err != nil {
			t.Error(err)
		}
		if q, err := b.Accept(w.t.Context()); err != nil {
			t.Error(err)
		} else if _, err := q.Receive(w.t.Context()); err != nil {
			t.Error(err)
		}
	})
}
