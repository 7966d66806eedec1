package mesh

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strconv"

	"github.com/infrafabric/agentmesh/internal/strictjson"
)

// timestampFormat is RFC 3339 in UTC with exactly three fraction digits.
const timestampFormat = "2006-01-02T15:04:05.000Z"

// fieldNames are the names of the JSON form.
var fieldNames = [...]string{
	"id", "timestamp", "level", "source", "destination", "version", "payload", "performative",
	"conversation_id", "sequence_num", "citation_ids", "traceId", "signature",
}

// fieldsByLength has them by their length; the last place has none.
var fieldsByLength = func() (list [17][]string) {
	for _, name := range fieldNames {
		list[len(name)] = append(list[len(name)], name)
	}
	return list
}()

// AppendJSON appends the message's JSON form to dst. The payload stands in it
// byte for byte (compacted). What it writes UnmarshalJSON reads; a message that
// would not be read is a *MessageError or a *TooLargeError.
//
// Write messages with AppendJSON, or with a json.Encoder whose
// SetEscapeHTML(false) was called: json.Marshal rewrites <, > and & inside the
// output of every MarshalJSON, the payload then differs from what was signed,
// and Verify fails.
func (m *Message) AppendJSON(dst []byte) ([]byte, error) {
	if err := m.checkFields(); err != nil {
		return dst, fmt.Errorf("mesh: encode message: %w", err)
	}
	c := *m
	err := c.compact()
	if err == nil {
		err = c.checkSize()
	}
	if err == nil && c.Signature != nil {
		err = c.Signature.check()
	}
	if err != nil {
		return dst, fmt.Errorf("mesh: encode message: %w", err)
	}
	w := objectWriter{b: append(dst, '{')}
	w.text("id", c.ID)
	w.text("timestamp", c.Timestamp.UTC().Format(timestampFormat))
	w.raw("level", strconv.AppendInt(nil, int64(c.Level), 10))
	w.text("source", c.Source)
	w.text("destination", c.Destination)
	w.text("version", messageVersion)
	w.raw("payload", c.Payload)
	w.text("performative", c.Performative)
	if c.ConversationID != "" {
		w.text("conversation_id", c.ConversationID)
	}
	w.raw("sequence_num", strconv.AppendUint(nil, c.SequenceNum, 10))
	if len(c.CitationIDs) > 0 {
		w.texts("citation_ids", c.CitationIDs)
	}
	if c.TraceID != "" {
		w.text("traceId", c.TraceID)
	}
	names := make([]string, 0, len(c.Extra))
	for name := range c.Extra {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		w.raw(name, c.Extra[name])
	}
	if c.Signature != nil {
		w.raw("signature", c.Signature.appendJSON(nil))
	}
	return append(w.b, '}'), nil
}

// MarshalJSON implements json.Marshaler; see AppendJSON about json.Marshal.
func (m Message) MarshalJSON() ([]byte, error) { return m.AppendJSON(nil) }

// UnmarshalJSON reads the JSON form (RFC 8259) of at most MaxMessageJSON bytes.
// It checks no signature. It is strict, because two readers that understand one
// text differently disagree on what was signed:
//
//   - The text is valid UTF-8 without a byte order mark, no escape is half of a
//     surrogate pair, and no object, at any depth, has one name twice, however it
//     is escaped. Names are compared after their escapes are resolved, and are
//     case sensitive.
//   - id, version and payload must be there; version is "2.1". What else is not
//     there is read as "", 0, no entries, or the zero time, and AppendJSON leaves
//     out conversation_id, citation_ids and traceId when they are empty. null is
//     a payload, and no value of any other field.
//   - id, source, destination, performative, conversation_id and traceId are
//     strings, citation_ids is an array of strings.
//   - timestamp is a string of exactly the form 2006-01-02T15:04:05.000Z
//     (RFC 3339 in UTC, three digits of a second's fraction, capital T and Z).
//   - level (32 bits, signed) and sequence_num (64 bits, unsigned) are numbers in
//     decimal digits without sign +, leading zero, fraction or exponent.
//   - A field of another name is kept in Extra, under its name without escapes
//     and with its value in compact form; one that differs from a known name in
//     case alone (as Unicode folds it) is refused.
//   - signature is an object of exactly these members: algorithm "Ed25519";
//     public_key as keys.PublicKey writes it; signature_bytes, 64 bytes in padded
//     base64 (RFC 4648 §4) without line breaks; signed_fields, the constant list
//     id, timestamp, level, source, destination, version, payload, performative,
//     conversation_id, sequence_num, citation_ids, traceId, * ; mesh; instance, 32
//     lower-case hexadecimal digits; tree_size (1 to 1024) and index, numbers; and
//     path, an array of hashes of 32 bytes each in base64 as above, nearest first.
//
// Errors are a *MessageError, which says where, a *TooLargeError or a
// *VersionError.
func (m *Message) UnmarshalJSON(b []byte) error {
	out, err := parseMessage(b)
	if err != nil {
		return fmt.Errorf("mesh: decode message: %w", err)
	}
	*m = out
	return nil
}

func parseMessage(b []byte) (Message, error) {
	if len(b) > MaxMessageJSON {
		return Message{}, &TooLargeError{What: "MaxMessageJSON", Size: uint64(len(b)), Limit: MaxMessageJSON}
	}
	// The message is an object around the values that may nest to the limit.
	c, err := strictjson.AppendCompact(make([]byte, 0, len(b)), b, 1+MaxNesting)
	if err != nil {
		var at *strictjson.Error
		field := "message"
		if errors.As(err, &at) {
			if name := strictjson.Member(b, at.Offset); name != "" {
				field = name
			}
		}
		return Message{}, jsonError(field, err)
	}
	m, err := parseFields(c)
	var me *MessageError
	if errors.As(err, &me) && me.Offset > 0 {
		me.Offset = strictjson.Source(b, me.Offset)
	}
	return m, err
}

// parseFields reads a message in compact form; offsets of errors are in that.
func parseFields(c []byte) (Message, error) {
	var m Message
	version, hasVersion := "", false
	err := eachField(c, "message", func(name string, v []byte) error {
		switch name {
		case "id":
			return text(name, v, &m.ID)
		case "timestamp":
			return timestamp(name, v, &m.Timestamp)
		case "level":
			return integer(name, v, &m.Level)
		case "source":
			return text(name, v, &m.Source)
		case "destination":
			return text(name, v, &m.Destination)
		case "version":
			hasVersion = true
			return text(name, v, &version)
		case "payload":
			m.Payload = json.RawMessage(bytes.Clone(v))
			return nil
		case "performative":
			return text(name, v, &m.Performative)
		case "conversation_id":
			return text(name, v, &m.ConversationID)
		case "sequence_num":
			return number(name, v, &m.SequenceNum)
		case "citation_ids":
			return texts(name, v, &m.CitationIDs)
		case "traceId":
			return text(name, v, &m.TraceID)
		case "signature":
			s, err := parseSignature(v)
			m.Signature = s
			return err
		}
		if err := checkExtraName(name); err != nil {
			return err
		}
		if m.Extra == nil {
			m.Extra = map[string]json.RawMessage{}
		}
		m.Extra[name] = json.RawMessage(bytes.Clone(v))
		return nil
	})
	if err != nil {
		return Message{}, err
	}
	if !hasVersion {
		return Message{}, &MessageError{Field: "version", Reason: "is missing"}
	}
	if version != messageVersion {
		return Message{}, &VersionError{Format: "message", Ours: messageVersion, Theirs: safeText(version)}
	}
	if len(m.Payload) == 0 {
		return Message{}, &MessageError{Field: "payload", Reason: "is missing"}
	}
	if err := m.checkFields(); err != nil {
		return Message{}, err
	}
	return m, m.checkSize()
}

// objectWriter writes the members of one JSON object.
type objectWriter struct {
	b     []byte
	comma bool
}

func (w *objectWriter) name(name string) {
	if w.comma {
		w.b = append(w.b, ',')
	}
	w.comma = true
	w.b = append(appendText(w.b, name), ':')
}

func (w *objectWriter) raw(name string, v []byte) {
	w.name(name)
	w.b = append(w.b, v...)
}

func (w *objectWriter) text(name, s string) {
	w.name(name)
	w.b = appendText(w.b, s)
}

func (w *objectWriter) texts(name string, list []string) {
	w.name(name)
	w.b = append(w.b, '[')
	for i, s := range list {
		if i > 0 {
			w.b = append(w.b, ',')
		}
		w.b = appendText(w.b, s)
	}
	w.b = append(w.b, ']')
}

// appendText appends a JSON string; checkFields has made sure of UTF-8.
func appendText(dst []byte, s string) []byte { return strictjson.AppendQuote(dst, s) }
