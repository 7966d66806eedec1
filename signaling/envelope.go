package signaling

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/infrafabric/agentmesh/keys"
)

// Envelope is what one agent tells another before, or beside, a session
// between them. The package comment gives its format.
type Envelope struct {
	Kind Kind
	// Mesh is the mesh in which both agents are.
	Mesh string
	// From and To are the agent IDs of author and recipient; they differ.
	From, To string
	// Key is the author's public key, ToKey the recipient's; a zero ToKey
	// addresses any registration of the name.
	Key, ToKey keys.PublicKey
	// Instance is the author's running node.
	Instance Instance
	// Generation orders the sessions between two agents; in an ask it is the
	// highest that its author knows of.
	Generation uint64
	// Nonce makes the envelope unique.
	Nonce Nonce
	// Time is when it was written: UTC, in whole milliseconds.
	Time time.Time
	// Ref is the hash of the offer that an answer, candidate or reject belongs
	// to; zero in an offer and in an ask.
	Ref Hash
	// Body is opaque here; at most MaxBody bytes.
	Body []byte
}

// payload is the encoded form of an Envelope.
type payload struct {
	Kind       uint64
	Mesh       string
	From       string
	To         string
	Key        []byte
	ToKey      []byte
	Instance   Instance
	Generation uint64
	Nonce      Nonce
	Time       uint64
	Ref        []byte
	Body       []byte
}

// sealed is the encoded form of a Sealed.
type sealed struct {
	Version   uint64
	Payload   []byte
	Signature []byte
}

func (p *payload) wire(c *coder) {
	c.array(12)
	c.uint(&p.Kind)
	c.text(&p.Mesh, maxString)
	c.text(&p.From, maxString)
	c.text(&p.To, maxString)
	c.bytes(&p.Key, maxString)
	c.bytes(&p.ToKey, maxString)
	c.fixed(p.Instance[:])
	c.uint(&p.Generation)
	c.fixed(p.Nonce[:])
	c.uint(&p.Time)
	c.bytes(&p.Ref, maxString)
	c.bytes(&p.Body, maxString)
}

func (s *sealed) wire(c *coder) {
	c.array(3)
	c.uint(&s.Version)
	c.bytes(&s.Payload, maxString)
	c.bytes(&s.Signature, maxString)
}

// Sealed is a signed envelope in its one encoded form. It must not be changed;
// all methods may be called concurrently.
type Sealed struct {
	Envelope
	raw     []byte
	payload []byte
	sig     []byte
}

// Seal signs e. It sets From and Key to those of id, Nonce to a random one and
// Time to now where they are zero, and cuts Time to milliseconds. The error is
// a [*FormatError] that names the field, matches [ErrTooLarge], or is the
// signer's.
func Seal(id *keys.Identity, e Envelope) (*Sealed, error) {
	s, err := seal(id, e)
	if err != nil {
		return nil, fmt.Errorf("signaling: seal %s: %w", e.Kind, err)
	}
	return s, nil
}

func seal(id *keys.Identity, e Envelope) (*Sealed, error) {
	if id == nil {
		return nil, &FormatError{What: "From", Reason: "no identity"}
	}
	e.From, e.Key = id.ID(), id.PublicKey()
	if e.Nonce.IsZero() {
		rand.Read(e.Nonce[:]) // never fails
	}
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	e.Time = e.Time.UTC().Truncate(time.Millisecond)
	e.Body = bytes.Clone(e.Body)
	if err := e.check(); err != nil {
		return nil, err
	}
	p := payload{
		Kind: uint64(e.Kind), Mesh: e.Mesh, From: e.From, To: e.To,
		Key: encodeKey(e.Key), ToKey: encodeKey(e.ToKey), Instance: e.Instance,
		Generation: e.Generation, Nonce: e.Nonce, Time: uint64(e.Time.UnixMilli()), Body: e.Body,
	}
	if !e.Ref.IsZero() {
		p.Ref = e.Ref[:]
	}
	s := &Sealed{Envelope: e, payload: encode(&p)}
	sig, err := id.Sign(s.statement())
	if err != nil {
		return nil, err
	}
	s.sig = sig
	s.raw = encode(&sealed{Version: version, Payload: s.payload, Signature: sig})
	return s, nil
}

// Parse reads an envelope and checks its format and limits, nothing else: its
// author is unknown until Verify succeeds and a trust policy admits the key.
// The error is a [*FormatError], a [*VersionError], or matches [ErrTooLarge].
// b is copied.
func Parse(b []byte) (*Sealed, error) {
	s, err := parse(b)
	if err != nil {
		return nil, fmt.Errorf("signaling: parse envelope: %w", err)
	}
	return s, nil
}

func parse(b []byte) (*Sealed, error) {
	if len(b) > MaxEnvelope {
		return nil, fmt.Errorf("%d bytes: %w", len(b), ErrTooLarge)
	}
	raw := bytes.Clone(b)
	if err := checkVersion("envelope", raw); err != nil {
		return nil, err
	}
	var outer sealed
	if err := decode("envelope", raw, &outer); err != nil {
		return nil, err
	}
	if len(outer.Signature) != 64 {
		return nil, &FormatError{What: "envelope", Reason: "signature is not 64 bytes"}
	}
	var p payload
	if err := decode("envelope", outer.Payload, &p); err != nil {
		return nil, err
	}
	e, err := p.envelope()
	if err != nil {
		return nil, err
	}
	return &Sealed{Envelope: e, raw: raw, payload: outer.Payload, sig: outer.Signature}, nil
}

func (p *payload) envelope() (Envelope, error) {
	e := Envelope{
		Kind: Kind(p.Kind), Mesh: p.Mesh, From: p.From, To: p.To, Instance: p.Instance,
		Generation: p.Generation, Nonce: p.Nonce, Body: p.Body,
	}
	if p.Kind < uint64(Offer) || p.Kind > uint64(Ask) {
		return e, &VersionError{Ours: version, Theirs: version, Type: p.Kind}
	}
	if p.Time > maxTime {
		return e, &FormatError{What: "Time", Reason: "after the year 9999"}
	}
	e.Time = time.UnixMilli(int64(p.Time)).UTC()
	switch len(p.Ref) {
	case 0:
	case len(e.Ref):
		e.Ref = Hash(p.Ref)
		if e.Ref.IsZero() { // the empty string says that already
			return e, &FormatError{What: "Ref", Reason: "32 zero bytes"}
		}
	default:
		return e, &FormatError{What: "Ref", Reason: "neither empty nor 32 bytes"}
	}
	var err error
	if e.Key, err = decodeKey("Key", p.Key); err != nil {
		return e, err
	}
	if e.ToKey, err = decodeKey("ToKey", p.ToKey); err != nil {
		return e, err
	}
	return e, e.check()
}

// check is the one list of rules for an envelope's fields.
func (e *Envelope) check() error {
	bad := func(field, reason string, err error) error {
		return &FormatError{What: field, Reason: reason, Err: err}
	}
	if e.Kind < Offer || e.Kind > Ask {
		return bad("Kind", fmt.Sprintf("%d is no kind", e.Kind), nil)
	}
	if err := keys.CheckMesh(e.Mesh); err != nil {
		return bad("Mesh", "name", err)
	}
	if err := keys.CheckAgentID(e.From); err != nil {
		return bad("From", "agent ID", err)
	}
	if err := keys.CheckAgentID(e.To); err != nil {
		return bad("To", "agent ID", err)
	}
	switch {
	case e.From == e.To:
		return bad("To", "the author itself", nil)
	case e.Key.IsZero():
		return bad("Key", "none", nil)
	case e.Instance.IsZero():
		return bad("Instance", "none", nil)
	case e.Nonce.IsZero():
		return bad("Nonce", "none", nil)
	case e.Time.Before(time.UnixMilli(0)) || e.Time.UnixMilli() > maxTime:
		return bad("Time", "not in the years 1970 to 9999", nil)
	case e.Kind.first() && !e.Ref.IsZero():
		return bad("Ref", e.Kind.String()+" has none", nil)
	case !e.Kind.first() && e.Ref.IsZero():
		return bad("Ref", e.Kind.String()+" names no offer", nil)
	case len(e.Body) > MaxBody:
		return fmt.Errorf("body of %d bytes: %w", len(e.Body), ErrTooLarge)
	}
	return nil
}

// statement is what the signature is over.
func (s *Sealed) statement() keys.Statement {
	return keys.Statement{
		Domain: "agentmesh/v1 " + s.Kind.String(),
		Mesh:   s.Mesh, From: s.From, To: s.To, Body: s.payload,
	}
}

// Verify checks the signature under s.Key. Whether that key may speak for
// s.From is a question to a trust policy; whether the envelope is fresh, new
// and for this agent is the caller's to check. The error matches
// [keys.ErrBadSignature].
func (s *Sealed) Verify() error {
	if err := s.Key.Verify(s.statement(), s.sig); err != nil {
		return fmt.Errorf("signaling: %s from %s: %w", s.Kind, s.From, err)
	}
	return nil
}

// Bytes returns the encoded form, which the caller may keep and change.
func (s *Sealed) Bytes() []byte { return bytes.Clone(s.raw) }

// Hash returns the SHA-256 of the encoded form.
func (s *Sealed) Hash() Hash { return HashOf(s.raw) }

// HashOf returns the hash of an encoded envelope.
func HashOf(envelope []byte) Hash { return sha256.Sum256(envelope) }
