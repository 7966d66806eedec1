package mesh

import (
	"fmt"
	"strconv"

	"github.com/infrafabric/agentmesh/internal/cbor"
	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
)

const (
	helloDomain  = "agentmesh/v1 hello"
	helloVersion = 1
	helloFields  = 13
)

// helloBody is the signed content of a hello: it binds the author's name to
// this very session: a CBOR array of the version and the fields in this order.
// Without it a trusted third agent could copy another's
// fingerprint into its own offer and relay the answers, and both ends would
// believe to speak with the third one (unknown key share, RFC 8844).
type helloBody struct {
	FromInstance signaling.Instance
	ToInstance   signaling.Instance
	Offer        signaling.Hash   // of the offer's envelope
	Answer       signaling.Hash   // of the answer's envelope
	OwnCert      keys.Fingerprint // of the author's DTLS certificate
	PeerCert     keys.Fingerprint // of the certificate the author was shown
	Window       uint64           // of the author: no larger record can travel to it
	Credit       uint64           // of a flow that Positions does not name, at most Window
	State        uint64           // names the author's memory: another value, and it has forgotten
	Positions    []position       // of the author as receiver of ToInstance's flows
	Relay        string           // the TURN server of the author's end of the path, "" for none
	Abilities    []string         // optional features; unknown ones are ignored
}

func (h *helloBody) encode() []byte {
	b := cbor.AppendUint(cbor.AppendArray(nil, helloFields), helloVersion)
	b = cbor.AppendBytes(b, h.FromInstance[:])
	b = cbor.AppendBytes(b, h.ToInstance[:])
	b = cbor.AppendBytes(b, h.Offer[:])
	b = cbor.AppendBytes(b, h.Answer[:])
	b = cbor.AppendBytes(b, h.OwnCert[:])
	b = cbor.AppendBytes(b, h.PeerCert[:])
	b = cbor.AppendUint(b, h.Window)
	b = cbor.AppendUint(b, h.Credit)
	b = cbor.AppendUint(b, h.State)
	b = appendPositions(b, h.Positions)
	b = cbor.AppendText(b, h.Relay)
	b = cbor.AppendArray(b, len(h.Abilities))
	for _, a := range h.Abilities {
		b = cbor.AppendText(b, a)
	}
	return b
}

func decodeHelloBody(b []byte) (*helloBody, error) {
	r := cbor.NewReader(b)
	r.Array(helloFields)
	if v := r.Uint(); r.Err() == nil && v != helloVersion {
		return nil, &VersionError{Format: "hello", Ours: strconv.Itoa(helloVersion), Theirs: strconv.FormatUint(v, 10)}
	}
	h := &helloBody{}
	for _, dst := range [][]byte{h.FromInstance[:], h.ToInstance[:], h.Offer[:], h.Answer[:], h.OwnCert[:], h.PeerCert[:]} {
		r.Fixed(dst)
	}
	h.Window = r.UintMax(maxOffset)
	h.Credit = r.UintMax(maxOffset)
	h.State = r.Uint()
	h.Positions = readPositions(r)
	h.Relay = printable(r.Text(maxRelayName))
	for range r.ArrayMax(maxAbilities) {
		h.Abilities = append(h.Abilities, r.Text(maxAbility))
	}
	if err := r.Done(); err != nil {
		return nil, protocolErrorf("hello: %v", err)
	}
	if h.Credit > h.Window {
		return nil, protocolErrorf("hello with a credit of %d bytes in a window of %d", h.Credit, h.Window)
	}
	return h, nil
}

// binding is what both sides must agree on about a session. One side's view
// is the mirror of the other's.
type binding struct {
	mesh          string
	local, remote string // agent IDs
	localInst     signaling.Instance
	remoteInst    signaling.Instance
	offer, answer signaling.Hash
	localCert     keys.Fingerprint
	remoteCert    keys.Fingerprint
}

// memory is what a hello says of what its author remembers of the other side.
type memory struct {
	window, credit, state uint64
	positions             []position
}

// signHello returns the first frame of a session.
func signHello(id *keys.Identity, b binding, m memory, relay string) ([]byte, error) {
	h := helloBody{
		FromInstance: b.localInst,
		ToInstance:   b.remoteInst,
		Offer:        b.offer,
		Answer:       b.answer,
		OwnCert:      b.localCert,
		PeerCert:     b.remoteCert,
		Window:       m.window,
		Credit:       m.credit,
		State:        m.state,
		Positions:    m.positions,
		Relay:        relay,
	}
	body := h.encode()
	sig, err := id.Sign(helloStatement(b.mesh, b.local, b.remote, body))
	if err != nil {
		return nil, fmt.Errorf("sign hello: %w", err)
	}
	f := helloFrame{Body: body, Signature: sig}
	return f.encode(), nil
}

func helloStatement(mesh, from, to string, body []byte) keys.Statement {
	return keys.Statement{Domain: helloDomain, Mesh: mesh, From: from, To: to, Body: body}
}

// verifyHello checks the other side's first frame against this side's view.
// The key is the one that signed the other side's envelope.
func verifyHello(frame []byte, key keys.PublicKey, b binding) (*helloBody, error) {
	kind, err := peekFrame(frame)
	if err != nil {
		return nil, err
	}
	if kind != kindHello {
		return nil, protocolErrorf("session begins with frame kind %d, not a hello", kind)
	}
	f, err := decodeHelloFrame(frame)
	if err != nil {
		return nil, err
	}
	if err := key.Verify(helloStatement(b.mesh, b.remote, b.local, f.Body), f.Signature); err != nil {
		return nil, fmt.Errorf("hello of %s: %w", b.remote, err)
	}
	h, err := decodeHelloBody(f.Body)
	if err != nil {
		return nil, err
	}
	switch {
	case h.FromInstance != b.remoteInst || h.ToInstance != b.localInst:
		return nil, protocolErrorf("hello of another instance")
	case h.Offer != b.offer || h.Answer != b.answer:
		return nil, protocolErrorf("hello of another negotiation")
	case h.OwnCert != b.remoteCert || h.PeerCert != b.localCert:
		return nil, protocolErrorf("hello over other certificates: somebody stands in between")
	}
	return h, nil
}
