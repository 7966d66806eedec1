package mesh

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/infrafabric/agentmesh/internal/virtual"
	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
)

// TestFault1: a signature counts only under the key that the receiver's trust
// policy holds for the author, at every step: envelope, hello, batch, message.
func TestFault1(t *testing.T) {
	t.Run("envelope", func(t *testing.T) {
		inDuel(t, func(t *testing.T, d *duel) {
			// The offer is flawless, but for the key that signs as agent-m.
			impostor := *d
			impostor.foe = newIdentity(t, "agent-m")
			d.hub.inject("agent-a", impostor.seal(signaling.Offer, signaling.Hash{}, d.description()).Bytes())
			synctest.Wait()
			if d.node.lookup("agent-m") != nil {
				t.Error("an offer under a key of its own made a Peer")
			}
		})
	})
	t.Run("hello", func(t *testing.T) {
		inDuel(t, func(t *testing.T, d *duel) {
			w := d.negotiate()
			w.put(w.hello(newIdentity(t, "agent-m")))
			if p := d.node.lookup("agent-m"); p != nil {
				t.Error("a hello under another key than the offer's made a Peer")
			}
			d.connect() // the right key is not held to account for it
			d.accept()
		})
	})
	t.Run("batch", func(t *testing.T) {
		inDuel(t, func(t *testing.T, d *duel) {
			w := d.connect()
			p := d.accept()
			other := newIdentity(t, "agent-m")
			w.put(w.signedBy(other, w.bind.mesh, w.bind.local, w.bind.localInst, w.record(Message{})))
			nothing(t, p)
			w.ended(p, ErrProtocol)
			if cause := context.Cause(p.Context()); !errors.Is(cause, keys.ErrBadSignature) {
				t.Errorf("cause %v", cause)
			}
		})
	})
	t.Run("message", func(t *testing.T) {
		inDuel(t, func(t *testing.T, d *duel) {
			w := d.connect()
			p := d.accept()
			w.put(w.batch(w.record(Message{Payload: json.RawMessage(`{"a":1}`)})))
			m, err := p.Receive(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Verify(t.Context(), "default", d.trust); err != nil {
				t.Fatal(err)
			}
			// The same message, signed again by another key, which it names.
			other := newIdentity(t, "agent-m")
			forged := signed(t, other, "default", "agent-a", m.Signature.Instance, []Message{{Payload: m.Payload}})[0]
			j, err := forged.AppendJSON(nil)
			if err != nil {
				t.Fatal(err)
			}
			var back Message
			if err := back.UnmarshalJSON(j); err != nil {
				t.Fatal(err)
			}
			if err := back.Verify(t.Context(), "default", d.trust); !errors.Is(err, ErrUntrusted) {
				t.Errorf("a message under the key that it names itself: %v", err)
			}
		})
	})
}

// TestFault2: no byte of a record can change in flight, however deep in the
// payload it stands, and what arrives is byte for byte what was sent.
func TestFault2(t *testing.T) {
	t.Run("nested field", func(t *testing.T) {
		inDuel(t, func(t *testing.T, d *duel) {
			w := d.connect()
			p := d.accept()
			frame := w.batch(w.record(Message{Payload: json.RawMessage(`{"order":{"items":[{"amount":100}]}}`)}))
			w.put(bytes.Replace(frame, []byte(`"amount":100`), []byte(`"amount":900`), 1))
			nothing(t, p)
			w.ended(p, ErrProtocol)
			if cause := context.Cause(p.Context()); !errors.Is(cause, keys.ErrBadSignature) {
				t.Errorf("cause %v", cause)
			}
		})
	})
	t.Run("every byte", func(t *testing.T) {
		inDuel(t, func(t *testing.T, d *duel) {
			w := d.connect()
			p := d.accept()
			rec := w.record(Message{ID: "m-1", ConversationID: "c", TraceID: "t", CitationIDs: []string{"x"},
				Payload: json.RawMessage(`{"a":{"b":[1.0,{"c":"d"}]}}`), Extra: map[string]json.RawMessage{"y": json.RawMessage("2")}})
			frame := w.batch(rec)
			at := bytes.Index(frame, rec)
			s := make(chan *session, 1)
			p.post(func() { s <- p.sessions[0] })
			live := <-s
			for i := at; i < at+len(rec); i++ {
				changed := bytes.Clone(frame)
				changed[i] ^= 1
				if err := live.batch(changed); err == nil {
					t.Errorf("byte %d of %x changed in silence", i-at, rec)
				}
			}
			nothing(t, p)
			if err := live.batch(frame); err != nil {
				t.Error(err)
			}
		})
	})
	t.Run("end to end", func(t *testing.T) {
		payloads := []string{
			`9007199254740993`, `-170141183460469231731687303715884105728`, `1.0`, `1.10`, `1E+2`, `-0`, `-0.0`, `1e400`,
			`0.1000000000000000055511151231257827`, `{"b":1,"a":1.0,"A":[9007199254740993]}`, `"\u003c<&>\/\u2028"`, `"\u00e9é"`,
		}
		inHub(t, func(t *testing.T, h *hub, a, b *Node) {
			p, err := dialFor(a, "agent-b", 5*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			q, err := b.Accept(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range payloads {
				loose := strings.NewReplacer(":", " : ", "[", "[\n\t").Replace(want)
				if strings.HasPrefix(want, `"`) {
					loose = " " + want + "\r\n"
				}
				if err := p.Send(t.Context(), Message{Payload: json.RawMessage(loose), Extra: map[string]json.RawMessage{"x": json.RawMessage(loose)}}); err != nil {
					t.Fatal(err)
				}
				m, err := q.Receive(t.Context())
				if err != nil || string(m.Payload) != want || string(m.Extra["x"]) != want {
					t.Errorf("%s arrived as %s and %s, %v", want, m.Payload, m.Extra["x"], err)
					continue
				}
				j, err := m.AppendJSON(nil)
				if err != nil || !bytes.Contains(j, []byte(`"payload":`+want+`,`)) {
					t.Errorf("%s in JSON: %s, %v", want, j, err)
				}
				var back Message
				if err := back.UnmarshalJSON(j); err != nil {
					t.Error(err)
				}
				if err := back.Verify(t.Context(), "default", b.cfg.Trust); err != nil {
					t.Errorf("%s read back: %v", want, err)
				}
			}
		})
	})
	t.Run("duplicate names", func(t *testing.T) {
		// Signed by its author: two readers would see two messages in it.
		for name, m := range map[string]Message{
			"payload":     {Payload: json.RawMessage(`{"to":"a","to":"b"}`)},
			"nested":      {Payload: json.RawMessage(`{"x":[{"to":"a","\u0074o":"b"}]}`)},
			"extra":       {Extra: map[string]json.RawMessage{"x": json.RawMessage(`{"to":1,"to":2}`)}},
			"white space": {Payload: json.RawMessage(`{"to": "a"}`)},
			"not JSON":    {Payload: json.RawMessage(`{"to":`)},
			"two values":  {Payload: json.RawMessage(`1 2`)},
			"own field":   {Extra: map[string]json.RawMessage{"source": json.RawMessage(`"agent-c"`)}},
		} {
			inDuel(t, func(t *testing.T, d *duel) {
				w := d.connect()
				p := d.accept()
				w.put(w.batch(w.record(m)))
				nothing(t, p)
				w.ended(p, ErrProtocol)
				if t.Failed() {
					t.Log(name)
				}
			})
		}
	})
}

// TestFault3: nothing unsigned or signed for something else is accepted, and a
// number counts once.
func TestFault3(t *testing.T) {
	bad := map[string]func(w *foeEnd) []byte{
		"no signature": func(w *foeEnd) []byte {
			return (&batchFrame{Records: [][]byte{w.record(Message{})}}).encode(nil)
		},
		"signature of zeros": func(w *foeEnd) []byte {
			return (&batchFrame{Signature: make([]byte, signatureLen), Records: [][]byte{w.record(Message{})}}).encode(nil)
		},
		"signature of another batch": func(w *foeEnd) []byte {
			f, err := decodeBatchFrame(w.batch(w.record(Message{ID: "other", SequenceNum: 1})))
			if err != nil {
				w.t.Fatal(err)
			}
			return (&batchFrame{Signature: f.Signature, Records: [][]byte{w.record(Message{})}}).encode(nil)
		},
		"record added to a signed batch": func(w *foeEnd) []byte {
			f, err := decodeBatchFrame(w.batch(w.record(Message{})))
			if err != nil {
				w.t.Fatal(err)
			}
			return (&batchFrame{Signature: f.Signature, Records: append(f.Records, w.record(Message{}))}).encode(nil)
		},
		"record taken from a signed batch": func(w *foeEnd) []byte {
			f, err := decodeBatchFrame(w.batch(w.record(Message{}), w.record(Message{})))
			if err != nil {
				w.t.Fatal(err)
			}
			return (&batchFrame{Signature: f.Signature, Records: f.Records[:1]}).encode(nil)
		},
		"records in another order": func(w *foeEnd) []byte {
			f, err := decodeBatchFrame(w.batch(w.record(Message{SequenceNum: 2}), w.record(Message{SequenceNum: 1})))
			if err != nil {
				w.t.Fatal(err)
			}
			f.Records[0], f.Records[1] = f.Records[1], f.Records[0]
			return (&batchFrame{Signature: f.Signature, Records: f.Records}).encode(nil)
		},
		"nodes of a larger tree as leaves": func(w *foeEnd) []byte {
			// Without the prefixes of RFC 6962 §2.1 both trees had one root.
			var recs [][]byte
			var joined [2][]byte
			for i := range 4 {
				recs = append(recs, w.record(Message{}))
				h := leafHash(recs[i])
				joined[i/2] = append(joined[i/2], h[:]...)
			}
			f, err := decodeBatchFrame(w.batch(recs...))
			if err != nil {
				w.t.Fatal(err)
			}
			return (&batchFrame{Signature: f.Signature, Records: joined[:]}).encode(nil)
		},
		"of another mesh": func(w *foeEnd) []byte {
			return w.signedBy(w.foe, "other", w.bind.local, w.bind.localInst, w.record(Message{}))
		},
		"of another instance": func(w *foeEnd) []byte { // captured before a restart
			return w.signedBy(w.foe, w.bind.mesh, w.bind.local, signaling.NewInstance(), w.record(Message{}))
		},
		"under another name": func(w *foeEnd) []byte {
			return w.signedBy(w.foe, w.bind.mesh, "agent-c", w.bind.localInst, w.record(Message{}))
		},
		"for another agent": func(w *foeEnd) []byte { // what A was sent, shown to B
			return w.batch(w.record(Message{Destination: "agent-c"}))
		},
		"for everybody": func(w *foeEnd) []byte { return w.batch(w.record(Message{Destination: "*"})) },
		"number 0": func(w *foeEnd) []byte {
			m := w.record(Message{SequenceNum: 1})
			i := bytes.IndexByte(m[5:], 1) + 5 // version "2.1", flow 0, number 1
			m[i] = 0
			return w.batch(m)
		},
		"a gap":     func(w *foeEnd) []byte { return w.batch(w.record(Message{SequenceNum: 2})) },
		"backwards": func(w *foeEnd) []byte { return w.batch(w.record(Message{}), w.record(Message{SequenceNum: 3})) },
	}
	for name, frame := range bad {
		t.Run(name, func(t *testing.T) {
			inDuel(t, func(t *testing.T, d *duel) {
				w := d.connect()
				p := d.accept()
				w.put(frame(w))
				if name != "backwards" { // its first record is in order
					nothing(t, p)
				}
				w.ended(p, ErrProtocol)
			})
		})
	}
	t.Run("replay", func(t *testing.T) {
		inDuel(t, func(t *testing.T, d *duel) {
			w := d.connect()
			p := d.accept()
			first := w.batch(w.record(Message{ID: "pay"}))
			w.put(first, first)
			// Another message under a number that was used: dropped as well.
			w.put(w.batch(w.record(Message{ID: "pay-again", SequenceNum: 1})))
			// And the first one again on a session of the same instance.
			w = d.connect()
			w.next = 2
			w.put(first, w.batch(w.record(Message{ID: "next"})))
			var got []string
			for range 2 {
				m, err := p.Receive(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, m.ID)
			}
			expect(t, "messages", got, []string{"pay", "next"})
			nothing(t, p)
		})
	})
}

// TestFault4: nobody speaks under a name that is not his. The foe's own key is
// trusted, for its own name only.
func TestFault4(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		c := newIdentity(t, "agent-c")
		d.trust.keys["agent-c"] = c.PublicKey()
		// An offer under the foe's own key that names agent-c as its author.
		named, err := keys.NewIdentity("agent-c", d.private)
		if err != nil {
			t.Fatal(err)
		}
		liar := *d
		liar.foe = named
		d.hub.inject("agent-a", liar.seal(signaling.Offer, signaling.Hash{}, d.description()).Bytes())
		synctest.Wait()
		if d.node.lookup("agent-c") != nil {
			t.Error("an offer under another agent's name made a Peer")
		}
		// The Node dials agent-c, and the foe answers in its name.
		end := d.hub.end("agent-c")
		defer end.Close()
		got := make(chan error, 1)
		go func() { _, err := dialFor(d.node, "agent-c", 5*time.Second); got <- err }()
		ev, err := end.Receive(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		offer, err := signaling.Parse(ev.Envelope)
		if err != nil {
			t.Fatal(err)
		}
		d.hub.inject("agent-a", liar.seal(signaling.Answer, offer.Hash(), d.description()).Bytes())
		d.hub.inject("agent-a", d.seal(signaling.Answer, offer.Hash(), d.description()).Bytes())
		desc, err := decodeDescription(offer.Body)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := d.lines.of(t, desc.SDP).waiting(); n != 0 {
			t.Errorf("%d bytes to somebody who is not agent-c", n)
		}
		if err := <-got; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dial of agent-c answered by the foe: %v", err)
		}
	})
}

// TestFault5: the certificate that a connection presents is compared with the
// one in the signed envelope, and both sides' views with each other.
func TestFault5(t *testing.T) {
	refused := func(t *testing.T, d *duel) {
		t.Helper()
		synctest.Wait()
		if d.node.lookup("agent-m") != nil {
			t.Error("a connection over the wrong certificate made a Peer")
		}
	}
	another := func(t *testing.T, at time.Time) *keys.Certificate {
		t.Helper()
		c, err := keys.NewCertificate(at)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	t.Run("presented", func(t *testing.T) {
		inDuel(t, func(t *testing.T, d *duel) {
			offered := d.description()
			d.cert = another(t, time.Now()) // presented later
			offer := d.seal(signaling.Offer, signaling.Hash{}, offered)
			d.hub.inject("agent-a", offer.Bytes())
			e := d.heard()
			w := d.opened(e, offer.Hash(), e.Hash())
			if f := w.get(); f != nil {
				t.Error("the Node said hello to a stranger")
			}
			refused(t, d)
		})
	})
	t.Run("expired", func(t *testing.T) {
		inDuel(t, func(t *testing.T, d *duel) {
			d.cert = another(t, time.Now().Add(-keys.CertificateLifetime-time.Hour))
			w := d.negotiate()
			if f := w.get(); f != nil {
				t.Error("the Node said hello over a certificate that has ended")
			}
			refused(t, d)
		})
	})
	t.Run("described", func(t *testing.T) {
		inDuel(t, func(t *testing.T, d *duel) {
			body := (&descriptionBody{SDP: describe(another(t, time.Now()).Fingerprint(), 0), Fingerprint: d.cert.Fingerprint()}).encode()
			d.hub.inject("agent-a", d.seal(signaling.Offer, signaling.Hash{}, body).Bytes())
			if e := d.heard(); e != nil && e.Kind == signaling.Answer {
				t.Error("an SDP that contradicts its envelope was answered")
			}
			refused(t, d)
		})
	})
	for name, change := range map[string]func(*helloBody){
		"seen":          func(h *helloBody) { h.PeerCert[0] ^= 1 },
		"own":           func(h *helloBody) { h.OwnCert[0] ^= 1 },
		"offer":         func(h *helloBody) { h.Offer[0] ^= 1 },
		"answer":        func(h *helloBody) { h.Answer[0] ^= 1 },
		"from instance": func(h *helloBody) { h.FromInstance[0] ^= 1 },
		"to instance":   func(h *helloBody) { h.ToInstance[0] ^= 1 },
	} {
		t.Run("hello "+name, func(t *testing.T) {
			inDuel(t, func(t *testing.T, d *duel) {
				d.connect(change)
				refused(t, d)
				d.connect()
				d.accept()
			})
		})
	}
}

// TestFaultsAcrossMeshes: two meshes share a hub, names and keys, and never
// meet: what is signed in one is nothing in the other.
func TestFaultsAcrossMeshes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := virtual.New(t, virtual.Config{RTT: 50 * time.Millisecond})
		defer net.Close()
		h := newHub(time.Millisecond)
		idA, idB := newIdentity(t, "agent-a"), newIdentity(t, "agent-b")
		trust := newBook(idA, idB)
		for i, id := range []*keys.Identity{idA, idB} {
			host, err := net.Host(virtual.Open)
			if err != nil {
				t.Fatal(err)
			}
			n := startNode(t, h, nil, Config{Identity: id, Trust: trust, Net: host, Mesh: []string{"red", "blue"}[i]})
			defer func() { n.Close(); synctest.Wait() }()
			if i == 1 {
				if _, err := dialFor(n, "agent-a", 3*time.Second); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("dial into another mesh: %v", err)
				}
			}
		}
	})
}
