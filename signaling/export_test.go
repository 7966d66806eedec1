package signaling

import "time"

// What tests of the protocol need to break it.

type (
	ChallengeMsg = challengeMsg
	RegisterMsg  = registerMsg
	WelcomeMsg   = welcomeMsg
	EnvelopeMsg  = envelopeMsg
	NoticeMsg    = noticeMsg
	PresenceMsg  = presenceMsg
	MemberMsg    = presentAgent
)

var (
	Encode            = encode
	DecodeMessage     = decodeMessage
	EncodeEnvelopeMsg = encodeEnvelopeMsg
)

// Sign signs m for a challenge.
func (m *registerMsg) Sign(sign func(domain, mesh, from, to string, body []byte) []byte, nonce [32]byte) {
	s := m.statement(nonce)
	m.Signature = sign(s.Domain, s.Mesh, s.From, s.To, s.Body)
}

// EncodeNotice returns a notice as a message.
func EncodeNotice(n Notice) []byte { return n.encode() }

// Notice returns the notice of a message.
func (m *noticeMsg) Notice() Notice { return m.notice() }

// Forget makes r look at its files at the next handshake.
func (r *CertificateReloader) Forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.checked = time.Time{}
}
