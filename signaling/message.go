package signaling

import (
	"fmt"

	"github.com/infrafabric/agentmesh/internal/cbor"
	"github.com/infrafabric/agentmesh/keys"
)

// The types of messages between client and server.
const (
	typeChallenge = 1
	typeRegister  = 2
	typeWelcome   = 3
	typeEnvelope  = 4
	typePresence  = 5
	typeNotice    = 6
)

// registerDomain is the domain of the signature in a register message.
const registerDomain = "agentmesh/v1 register"

// Version and Type start every message. Each type repeats them, because an
// embedded struct would become an array within the array.

type challengeMsg struct {
	Version uint64
	Type    uint64
	Nonce   [32]byte
}

type registerMsg struct {
	Version   uint64
	Type      uint64
	Mesh      string
	Agent     string
	Key       []byte
	Instance  Instance
	Server    string
	Yield     uint64 // 1 leaves another instance that is registered in its place
	Signature []byte
}

type welcomeMsg struct {
	Version     uint64
	Type        uint64
	MaxEnvelope uint64 // bytes
	Idle        uint64 // milliseconds
	Rate        uint64 // envelopes per second
	Burst       uint64 // envelopes
	Time        uint64 // the server's, milliseconds since 1970
}

type envelopeMsg struct {
	Version  uint64
	Type     uint64
	Envelope []byte
}

type presenceMsg struct {
	Version uint64
	Type    uint64
	Change  uint64
	Agents  []presentAgent
}

type presentAgent struct {
	Agent string
	Key   []byte
}

type noticeMsg struct {
	Version uint64
	Type    uint64
	Code    uint64
	Text    string
	Ref     []byte
	Time    uint64 // the server's, milliseconds since 1970; 0 is not told
}

func (m *challengeMsg) wire(c *coder) {
	c.array(3)
	c.uint(&m.Version)
	c.uint(&m.Type)
	c.fixed(m.Nonce[:])
}

func (m *registerMsg) wire(c *coder) {
	c.array(9)
	c.uint(&m.Version)
	c.uint(&m.Type)
	c.text(&m.Mesh, maxString)
	c.text(&m.Agent, maxString)
	c.bytes(&m.Key, maxString)
	c.fixed(m.Instance[:])
	c.text(&m.Server, maxString)
	c.uint(&m.Yield)
	c.bytes(&m.Signature, maxString)
}

func (m *welcomeMsg) wire(c *coder) {
	c.array(7)
	for _, v := range []*uint64{&m.Version, &m.Type, &m.MaxEnvelope, &m.Idle, &m.Rate, &m.Burst, &m.Time} {
		c.uint(v)
	}
}

func (m *envelopeMsg) wire(c *coder) {
	c.array(3)
	c.uint(&m.Version)
	c.uint(&m.Type)
	c.bytes(&m.Envelope, maxString)
}

func (m *presenceMsg) wire(c *coder) {
	c.array(4)
	c.uint(&m.Version)
	c.uint(&m.Type)
	c.uint(&m.Change)
	if c.in != nil {
		m.Agents = make([]presentAgent, c.in.ArrayMax(MaxPresenceBatch))
	} else {
		c.array(len(m.Agents))
	}
	for i := range m.Agents {
		c.array(2)
		c.text(&m.Agents[i].Agent, maxString)
		c.bytes(&m.Agents[i].Key, maxString)
	}
}

func (m *noticeMsg) wire(c *coder) {
	c.array(6)
	c.uint(&m.Version)
	c.uint(&m.Type)
	c.uint(&m.Code)
	c.text(&m.Text, maxString)
	c.bytes(&m.Ref, maxString)
	c.uint(&m.Time)
}

// The changes of a presence message.
const (
	joined = 1
	left   = 2
)

// checkVersion reads the first element of a CBOR array, so that another
// version is reported as such and not as whatever else it differs in.
func checkVersion(what string, b []byte) error {
	_, err := firstUints(what, b, 1)
	return err
}

// firstUints returns the first n elements, which must be unsigned integers,
// the first of them the version.
func firstUints(what string, b []byte, n int) ([]uint64, error) {
	r := cbor.NewReader(b)
	if r.ArrayMax(maxArray) < n && r.Err() == nil {
		return nil, &FormatError{What: what, Reason: "array is too short"}
	}
	out := make([]uint64, n)
	for i := range out {
		out[i] = r.Uint()
		if err := r.Err(); err != nil {
			return nil, &FormatError{What: what, Reason: "CBOR", Err: err}
		}
		if i == 0 && out[0] != version {
			return nil, &VersionError{Ours: version, Theirs: out[0]}
		}
	}
	return out, nil
}

// decodeMessage reads any message and checks everything that one message alone
// can show. It returns a pointer to one of the message types.
func decodeMessage(b []byte) (any, error) {
	if len(b) > MaxMessage {
		return nil, fmt.Errorf("message of %d bytes: %w", len(b), ErrTooLarge)
	}
	head, err := firstUints("message", b, 2)
	if err != nil {
		return nil, err
	}
	var m interface {
		wired
		check() error
	}
	switch head[1] {
	case typeChallenge:
		m = new(challengeMsg)
	case typeRegister:
		m = new(registerMsg)
	case typeWelcome:
		m = new(welcomeMsg)
	case typeEnvelope:
		m = new(envelopeMsg)
	case typePresence:
		m = new(presenceMsg)
	case typeNotice:
		m = new(noticeMsg)
	default:
		return nil, &VersionError{Ours: version, Theirs: head[0], Type: head[1]}
	}
	if err := decode("message", b, m); err != nil {
		return nil, err
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	return m, nil
}

func badMessage(reason string, err error) error {
	return &FormatError{What: "message", Reason: reason, Err: err}
}

func (m *challengeMsg) check() error {
	if m.Nonce == [32]byte{} {
		return badMessage("challenge: zero nonce", nil)
	}
	return nil
}

func (m *registerMsg) check() error {
	if err := keys.CheckMesh(m.Mesh); err != nil {
		return badMessage("register: mesh", err)
	}
	if err := keys.CheckAgentID(m.Agent); err != nil {
		return badMessage("register: agent", err)
	}
	switch {
	case len(m.Key) != 32:
		return badMessage("register: key is not 32 bytes", nil)
	case len(m.Signature) != 64:
		return badMessage("register: signature is not 64 bytes", nil)
	case m.Instance.IsZero():
		return badMessage("register: no instance", nil)
	case m.Server == "" || len(m.Server) > MaxServerName || !isASCII(m.Server) || m.Server != serverName(m.Server):
		return badMessage("register: server name", nil)
	case m.Yield > 1:
		return badMessage("register: yield is neither 0 nor 1", nil)
	}
	return nil
}

// statement is what the signature of a register message is over.
func (m *registerMsg) statement(nonce [32]byte) keys.Statement {
	return keys.Statement{
		Domain: registerDomain, Mesh: m.Mesh, From: m.Agent, To: m.Server,
		Body: append(append(nonce[:], m.Instance[:]...), byte(m.Yield)),
	}
}

func (m *welcomeMsg) check() error {
	const hour = 3_600_000
	switch {
	case m.MaxEnvelope == 0 || m.MaxEnvelope > MaxEnvelope:
		return badMessage("welcome: envelope size", nil)
	case m.Idle == 0 || m.Idle > 24*hour:
		return badMessage("welcome: idle time", nil)
	case m.Rate == 0 || m.Rate > maxRate || m.Burst == 0 || m.Burst > maxRate:
		return badMessage("welcome: rate", nil)
	case m.Time == 0 || m.Time > maxTime:
		return badMessage("welcome: time", nil)
	}
	return nil
}

func (m *envelopeMsg) check() error {
	if len(m.Envelope) == 0 {
		return badMessage("envelope: empty", nil)
	}
	return nil
}

func (m *presenceMsg) check() error {
	if m.Change != joined && m.Change != left {
		return badMessage("presence: change", nil)
	}
	if len(m.Agents) == 0 || len(m.Agents) > MaxPresenceBatch {
		return badMessage("presence: number of agents", nil)
	}
	for _, a := range m.Agents {
		if err := keys.CheckAgentID(a.Agent); err != nil {
			return badMessage("presence: agent", err)
		}
		if len(a.Key) != 32 {
			return badMessage("presence: key is not 32 bytes", nil)
		}
	}
	return nil
}

func (m *noticeMsg) check() error {
	switch {
	case m.Code == 0 || m.Code > 255:
		return badMessage("notice: code", nil)
	case len(m.Text) > MaxNoticeText:
		return badMessage("notice: text is too long", nil)
	case len(m.Ref) != 0 && len(m.Ref) != len(Hash{}):
		return badMessage("notice: ref is neither empty nor 32 bytes", nil)
	case len(m.Ref) != 0 && Hash(m.Ref).IsZero(): // the empty string says that already
		return badMessage("notice: ref of zero bytes", nil)
	case m.Time > maxTime:
		return badMessage("notice: time", nil)
	}
	return nil
}

// encodeEnvelopeMsg wraps an envelope for the wire.
func encodeEnvelopeMsg(envelope []byte) []byte {
	return encode(&envelopeMsg{Version: version, Type: typeEnvelope, Envelope: envelope})
}
