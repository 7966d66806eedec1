package mesh

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/infrafabric/agentmesh/internal/strictjson"
	"github.com/infrafabric/agentmesh/keys"
)

// timestampFormat is RFC 3339 in UTC with exactly three fraction digits.
const timestampFormat = "2006-01-02T15:04:05.000Z"

// knownField holds the names of the JSON form.
var knownField = map[string]bool{
	"id": true, "timestamp": true, "level": true, "source": true, "destination": true, "version": true,
	"payload": true, "performative": true, "conversation_id": true, "sequence_num": true,
	"citation_ids": true, "traceId": true, "signature": true,
}

// AppendJSON appends the message's JSON form to dst. The payload stands in it
// byte for byte (compacted). Errors are a *MessageError.
//
// Write messages with AppendJSON, or with a json.Encoder whose
// SetEscapeHTML(false) was called: json.Marshal rewrites <, > and & inside the
// output of every MarshalJSON, the payload then differs from what was signed,
// and Verify fails.
func (m *Message) AppendJSON(dst []byte) ([]byte, error) {
	if err := m.checkFields(); err != nil {
		return dst, fmt.Errorf("mesh: encode message: %w", err)
	}
	c, err := m.compacted()
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

// UnmarshalJSON reads the JSON form, strictly: names are case sensitive, a
// duplicate name anywhere is an error, a known field has its type, and fields
// that this version does not know are kept in Extra. It checks no signature.
// Errors are a *MessageError.
func (m *Message) UnmarshalJSON(b []byte) error {
	out, err := parseMessage(b)
	if err != nil {
		return fmt.Errorf("mesh: decode message: %w", err)
	}
	*m = out
	return nil
}

func parseMessage(b []byte) (Message, error) {
	if len(b) > 4*MaxMessage {
		return Message{}, &MessageError{Field: "message", Reason: "is too large"}
	}
	c, err := compactJSON(make([]byte, 0, len(b)), b)
	if err != nil {
		return Message{}, &MessageError{Field: "message", Reason: jsonReason(err)}
	}
	var m Message
	version := ""
	err = eachField(c, "message", func(name string, v []byte) error {
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
		if m.Extra == nil {
			m.Extra = map[string]json.RawMessage{}
		}
		m.Extra[name] = json.RawMessage(bytes.Clone(v))
		return nil
	})
	if err != nil {
		return Message{}, err
	}
	if version != messageVersion {
		return Message{}, &VersionError{Format: "message", Ours: messageVersion, Theirs: safeText(version)}
	}
	if len(m.Payload) == 0 {
		return Message{}, &MessageError{Field: "payload", Reason: "is missing"}
	}
	return m, m.checkFields()
}

func (s *Signature) appendJSON(dst []byte) []byte {
	w := objectWriter{b: append(dst, '{')}
	w.text("algorithm", signatureAlgorithm)
	w.text("public_key", s.Key.String())
	w.text("signature_bytes", base64.StdEncoding.EncodeToString(s.Bytes))
	w.texts("signed_fields", signedFields)
	w.text("mesh", s.Mesh)
	w.text("instance", hex.EncodeToString(s.Instance[:]))
	w.raw("tree_size", strconv.AppendInt(nil, int64(s.TreeSize), 10))
	w.raw("index", strconv.AppendInt(nil, int64(s.Index), 10))
	path := s.Path()
	hashes := make([]string, len(path))
	for i, h := range path {
		hashes[i] = base64.StdEncoding.EncodeToString(h[:])
	}
	w.texts("path", hashes)
	return append(w.b, '}')
}

// parseSignature is strict about fields: nothing covers a signature's own
// members, so an unknown one could say anything.
func parseSignature(b []byte) (*Signature, error) {
	s := &Signature{}
	seen := 0
	err := eachField(b, "signature", func(name string, v []byte) error {
		seen++
		field := "signature." + name
		var t string
		switch name {
		case "algorithm":
			if err := text(field, v, &t); err != nil {
				return err
			}
			if t != signatureAlgorithm {
				return &MessageError{Field: field, Reason: "is not " + signatureAlgorithm}
			}
			return nil
		case "public_key":
			if err := text(field, v, &t); err != nil {
				return err
			}
			k, err := keys.ParsePublicKey(t)
			if err != nil {
				return &MessageError{Field: field, Reason: "is not a public key"}
			}
			s.Key = k
			return nil
		case "signature_bytes":
			return decoded(field, v, 64, func(raw []byte) { s.Bytes = raw })
		case "signed_fields":
			var names []string
			if err := texts(field, v, &names); err != nil {
				return err
			}
			if !slices.Equal(names, signedFields) {
				return &MessageError{Field: field, Reason: "is not the list of all fields"}
			}
			return nil
		case "mesh":
			return text(field, v, &s.Mesh)
		case "instance":
			if err := text(field, v, &t); err != nil {
				return err
			}
			raw, err := hex.DecodeString(t)
			if err != nil || len(raw) != len(s.Instance) || hex.EncodeToString(raw) != t {
				return &MessageError{Field: field, Reason: "is not 32 lower-case hex digits"}
			}
			copy(s.Instance[:], raw)
			return nil
		case "tree_size":
			return integer(field, v, &s.TreeSize)
		case "index":
			return integer(field, v, &s.Index)
		case "path":
			var hashes []string
			if err := texts(field, v, &hashes); err != nil {
				return err
			}
			for _, h := range hashes {
				raw, err := base64.StdEncoding.Strict().DecodeString(h)
				if err != nil || len(raw) != tlog.HashSize {
					return &MessageError{Field: field, Reason: "has an entry that is not a hash"}
				}
				s.path = append(s.path, tlog.Hash(raw))
			}
			return nil
		}
		return &MessageError{Field: "signature", Reason: "has a field that nothing covers"}
	})
	if err == nil && seen != 9 {
		err = &MessageError{Field: "signature", Reason: "is incomplete"}
	}
	return s, err
}

// objectWriter writes the members of one JSON object.
type objectWriter struct {
	b     []byte
	comma bool
}

func (w *objectWriter) raw(name string, v []byte) {
	if w.comma {
		w.b = append(w.b, ',')
	}
	w.comma = true
	w.b = appendText(w.b, name)
	w.b = append(w.b, ':')
	w.b = append(w.b, v...)
}

func (w *objectWriter) text(name, s string) { w.raw(name, appendText(nil, s)) }

func (w *objectWriter) texts(name string, list []string) {
	v := []byte{'['}
	for i, s := range list {
		if i > 0 {
			v = append(v, ',')
		}
		v = appendText(v, s)
	}
	w.raw(name, append(v, ']'))
}

// appendText appends a JSON string; checkFields has made sure of UTF-8.
func appendText(dst []byte, s string) []byte { return strictjson.AppendQuote(dst, s) }

// eachField calls f for every member of the compact JSON object b.
func eachField(b []byte, what string, f func(name string, v []byte) error) error {
	ok, err := strictjson.Fields(b, f)
	if !ok {
		return &MessageError{Field: what, Reason: "is not an object"}
	}
	return err
}

func text(field string, v []byte, dst *string) error {
	s, ok := strictjson.Unquote(v)
	if !ok {
		return &MessageError{Field: field, Reason: "is not a string"}
	}
	*dst = s
	return nil
}

func texts(field string, v []byte, dst *[]string) error {
	list, ok := strictjson.Strings(v)
	if !ok {
		return &MessageError{Field: field, Reason: "is not a list of strings"}
	}
	*dst = list
	return nil
}

func integer(field string, v []byte, dst *int) error {
	n, err := strconv.ParseInt(string(v), 10, 32)
	if err != nil || strconv.FormatInt(n, 10) != string(v) {
		return &MessageError{Field: field, Reason: "is not an integer in range"}
	}
	*dst = int(n)
	return nil
}

func number(field string, v []byte, dst *uint64) error {
	n, err := strconv.ParseUint(string(v), 10, 64)
	if err != nil || strconv.FormatUint(n, 10) != string(v) {
		return &MessageError{Field: field, Reason: "is not a whole number"}
	}
	*dst = n
	return nil
}

func timestamp(field string, v []byte, dst *time.Time) error {
	var s string
	if err := text(field, v, &s); err != nil {
		return err
	}
	t, err := time.Parse(timestampFormat, s)
	if err != nil || t.Format(timestampFormat) != s {
		return &MessageError{Field: field, Reason: "is not RFC 3339 in UTC with milliseconds"}
	}
	*dst = t.UTC()
	return nil
}

func decoded(field string, v []byte, size int, set func([]byte)) error {
	var s string
	if err := text(field, v, &s); err != nil {
		return err
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(raw) != size {
		return &MessageError{Field: field, Reason: fmt.Sprintf("is not base64 of %d bytes", size)}
	}
	set(raw)
	return nil
}
