package mesh

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/infrafabric/agentmesh/internal/strictjson"
	"github.com/infrafabric/agentmesh/keys"
)

// messageVersion is the version of the message format, IFMessage.
const messageVersion = "2.1"

// Message is one signed message between two agents (IFMessage v2.1). Its JSON
// form uses the field names given below; [Message.Verify] checks either form.
//
// To send one, set Payload and what the application needs of the optional
// fields; the Peer fills in Source, Destination, SequenceNum and Signature and
// never changes the caller's value. A received message has every field set.
type Message struct {
	// ID (id) names the message; it is the key to deduplicate on when a
	// process was restarted. Default: 130 random bits. At most 128 bytes.
	ID string
	// Timestamp (timestamp) is when the author wrote it, in milliseconds and
	// UTC, in the years 1 to 9999; finer parts are cut off. Default: the time of
	// Send.
	Timestamp time.Time
	// Level (level) is 1 for information, 2 normal, 3 urgent; other values of
	// 32 bits, signed, are the application's. Zero means 2 in Send.
	Level int
	// Source and Destination (source, destination) are agent IDs. Send
	// accepts them empty or right.
	Source, Destination string
	// Performative (performative) is the FIPA speech act: inform, request,
	// agree, refuse, query-if … Default: inform. At most 64 bytes.
	Performative string
	// ConversationID (conversation_id) threads a dialogue; optional, at most
	// 255 bytes.
	ConversationID string
	// SequenceNum (sequence_num) is 1, 2, 3 … from one Node to one agent. The
	// Peer sets it.
	SequenceNum uint64
	// CitationIDs (citation_ids) names evidence; optional, at most 64 of at
	// most 255 bytes.
	CitationIDs []string
	// TraceID (traceId) is the W3C trace ID; when it is empty, Send asks
	// Config.TraceID. At most 64 bytes.
	TraceID string
	// Payload (payload) is one JSON value without duplicate names, nested at
	// most MaxNesting deep; white space between tokens is removed and nothing
	// else changed. Empty means null. On a received message its memory is part
	// of the frame it came in (16 KiB, or as much as the message needs).
	Payload json.RawMessage
	// Extra holds fields that this version does not know, by name (without
	// escapes), each one JSON value as Payload is. They are covered by the
	// signature. At most 64, names at most 128 bytes; a name that is that of a
	// known field but for its case is refused.
	Extra map[string]json.RawMessage
	// Signature (signature) proves the author. Send ignores it.
	Signature *Signature
}

// prepare returns the message as it will be recorded, without its number.
func (m Message) prepare(ctx context.Context, from, to string, now time.Time, traceID func(context.Context) string) (Message, error) {
	if m.Source != "" && m.Source != from {
		return m, &MessageError{Field: "source", Reason: "is " + quoted(m.Source) + ", not this agent, " + quoted(from)}
	}
	if m.Destination != "" && m.Destination != to {
		return m, &MessageError{Field: "destination", Reason: "is " + quoted(m.Destination) + ", not this peer, " + quoted(to)}
	}
	m.Source, m.Destination = from, to
	m.SequenceNum, m.Signature = 0, nil
	if m.ID == "" {
		m.ID = rand.Text()
	}
	if m.Timestamp.IsZero() {
		m.Timestamp = now
	}
	m.Timestamp = m.Timestamp.UTC().Truncate(time.Millisecond)
	if m.Level == 0 {
		m.Level = 2
	}
	if m.Performative == "" {
		m.Performative = "inform"
	}
	if m.TraceID == "" && traceID != nil {
		m.TraceID = traceID(ctx)
	}
	if err := m.checkFields(); err != nil {
		return m, err
	}
	if err := m.compact(); err != nil {
		return m, err
	}
	return m, m.checkSize()
}

// compact puts copies of the JSON values in compact form in their place; what they
// stood in is not changed.
func (m *Message) compact() error {
	src := m.Payload
	if len(src) == 0 {
		src = json.RawMessage("null")
	}
	p, err := compactJSON(make([]byte, 0, len(src)), src)
	if err != nil {
		return jsonError("payload", err)
	}
	m.Payload = p
	if len(m.Extra) == 0 {
		m.Extra = nil
		return nil
	}
	extra := make(map[string]json.RawMessage, len(m.Extra))
	for name, v := range m.Extra {
		c, err := compactJSON(make([]byte, 0, len(v)), v)
		if err != nil {
			return jsonError(name, err)
		}
		extra[name] = c
	}
	m.Extra = extra
	return nil
}

// checkCompact reports whether every JSON value is valid and in compact form
// already, as a message on the wire must be.
func (m *Message) checkCompact() error {
	if err := strictjson.Check(m.Payload, MaxNesting); err != nil {
		return jsonError("payload", err)
	}
	for name, v := range m.Extra {
		if err := strictjson.Check(v, MaxNesting); err != nil {
			return jsonError(name, err)
		}
	}
	return nil
}

// checkSize reports a message that is larger than a peer accepts. Its record is
// only made when an estimate from above does not settle it.
func (m *Message) checkSize() error {
	if m.roughSize() <= MaxMessage {
		return nil
	}
	if n := len(encodeRecord(m)); n > MaxMessage {
		return &TooLargeError{What: "MaxMessage", Size: uint64(n), Limit: MaxMessage}
	}
	return nil
}

// checkFields applies the limits of every field but the JSON values.
func (m *Message) checkFields() error {
	err := checkText("id", m.ID, maxIDLen)
	if err == nil {
		err = checkText("source", m.Source, keys.MaxNameSize)
	}
	if err == nil {
		err = checkText("destination", m.Destination, keys.MaxNameSize)
	}
	if err == nil {
		err = checkText("performative", m.Performative, maxPerformative)
	}
	if err == nil {
		err = checkText("conversation_id", m.ConversationID, maxConversation)
	}
	if err == nil {
		err = checkText("traceId", m.TraceID, maxTraceID)
	}
	if err != nil {
		return err
	}
	if m.ID == "" {
		return &MessageError{Field: "id", Reason: "is missing"}
	}
	if m.Level < math.MinInt32 || m.Level > math.MaxInt32 {
		return &MessageError{Field: "level", Reason: "is " + strconv.Itoa(m.Level) + ", which does not fit 32 bits"}
	}
	if y := m.Timestamp.UTC().Year(); y < 1 || y > 9999 {
		return &MessageError{Field: "timestamp", Reason: "lies in the year " + strconv.Itoa(y) + ", outside 1 to 9999"}
	}
	if n := len(m.CitationIDs); n > maxCitations {
		return &MessageError{Field: "citation_ids", Reason: "has too many entries", Size: n, Limit: maxCitations}
	}
	for _, c := range m.CitationIDs {
		if err := checkText("citation_ids", c, maxCitationLen); err != nil {
			return err
		}
	}
	if n := len(m.Extra); n > maxExtra {
		return &MessageError{Field: "extra", Reason: "has too many fields", Size: n, Limit: maxExtra}
	}
	for name := range m.Extra {
		if err := checkExtraName(name); err != nil {
			return err
		}
	}
	return nil
}

// checkExtraName refuses a name that belongs to a field of its own, for any
// reader: one that takes names without regard to case, as encoding/json does,
// would read the extra field in place of the signed one.
func checkExtraName(name string) error {
	if err := checkText("extra", name, maxExtraName); err != nil {
		return err
	}
	// Letters of other scripts that fold to a Latin one, such as the Kelvin sign, are
	// longer, but only in UTF-8.
	alike := fieldNames[:]
	if isASCII(name) {
		alike = fieldsByLength[min(len(name), len(fieldsByLength)-1)]
	}
	for _, known := range alike {
		if known == name {
			return &MessageError{Field: name, Reason: "has a field of its own"}
		}
		if strings.EqualFold(known, name) {
			return &MessageError{Field: name, Reason: "differs from " + known + " in case alone"}
		}
	}
	return nil
}

func checkText(field, s string, most int) error {
	if len(s) <= most && (s == "" || utf8.ValidString(s)) {
		return nil
	}
	if len(s) > most {
		return &MessageError{Field: field, Reason: "is too long", Size: len(s), Limit: most}
	}
	at := 0
	for at < len(s) {
		r, n := utf8.DecodeRuneInString(s[at:])
		if r == utf8.RuneError && n == 1 {
			break
		}
		at += n
	}
	return &MessageError{Field: field, Reason: "is not valid UTF-8", Offset: at}
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// quoted is a text that a person gave, for an error.
func quoted(s string) string { return `"` + safeText(s) + `"` }
