package mesh

import (
	"encoding/json"
	"maps"
	"math"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/infrafabric/agentmesh/internal/cbor"
	"github.com/infrafabric/agentmesh/keys"
)

// A record is a message as it travels and as its leaf covers it: a CBOR array
// in core deterministic encoding, in the order of appendRecord. The author, the
// mesh and the instance stand once, in the batch signature.

// messageFlow is the flow that carries messages.
const messageFlow = 0

// recordFields is the number of elements of a record.
const recordFields = 13

// encodeRecord returns the bytes that travel and are hashed. The message has
// passed prepare or decodeRecord.
func encodeRecord(m *Message) []byte {
	size := 96 + len(m.ID) + len(m.Destination) + len(m.Performative) + len(m.ConversationID) + len(m.TraceID) + len(m.Payload)
	for _, c := range m.CitationIDs {
		size += len(c) + 3
	}
	for name, v := range m.Extra {
		size += len(name) + len(v) + 8
	}
	b := cbor.AppendArray(make([]byte, 0, size), recordFields)
	b = cbor.AppendText(b, messageVersion)
	b = cbor.AppendUint(b, messageFlow)
	b = cbor.AppendUint(b, m.SequenceNum)
	b = cbor.AppendText(b, m.ID)
	b = cbor.AppendInt(b, m.Timestamp.UnixMilli())
	b = cbor.AppendInt(b, int64(m.Level))
	b = cbor.AppendText(b, m.Destination)
	b = cbor.AppendText(b, m.Performative)
	b = cbor.AppendText(b, m.ConversationID)
	b = cbor.AppendArray(b, len(m.CitationIDs))
	for _, c := range m.CitationIDs {
		b = cbor.AppendText(b, c)
	}
	b = cbor.AppendText(b, m.TraceID)
	b = cbor.AppendBytes(b, m.Payload)
	b = cbor.AppendMap(b, len(m.Extra))
	for _, name := range extraNames(m.Extra) {
		b = cbor.AppendBytes(cbor.AppendText(b, name), m.Extra[name])
	}
	return b
}

// extraNames returns the names in the order of CBOR map keys.
func extraNames(extra map[string]json.RawMessage) []string {
	if len(extra) == 0 {
		return nil
	}
	names := slices.Collect(maps.Keys(extra))
	slices.SortFunc(names, func(a, b string) int {
		if cbor.Before(a, b) {
			return -1
		}
		return 1
	})
	return names
}

// decodeRecord reads a record that its author's signature covers. It accepts
// only the one encoding that encodeRecord would write: otherwise the JSON form
// of the same message would hash to another leaf.
func decodeRecord(b []byte, source string) (Message, error) {
	r := cbor.NewReader(b)
	r.Array(recordFields)
	if v := r.Text(16); r.Err() == nil && v != messageVersion {
		return Message{}, &VersionError{Format: "record", Ours: messageVersion, Theirs: safeText(v)}
	}
	if flow := r.Uint(); r.Err() == nil && flow != messageFlow {
		return Message{}, protocolErrorf("record of flow %d among messages", flow)
	}
	m := Message{Source: source}
	m.SequenceNum = r.Uint()
	m.ID = r.Text(maxIDLen)
	m.Timestamp = time.UnixMilli(r.Int()).UTC()
	level := r.Int()
	m.Destination = r.Text(keys.MaxNameSize)
	m.Performative = r.Text(maxPerformative)
	m.ConversationID = r.Text(maxConversation)
	for range r.ArrayMax(maxCitations) {
		m.CitationIDs = append(m.CitationIDs, r.Text(maxCitationLen))
	}
	m.TraceID = r.Text(maxTraceID)
	m.Payload = r.Bytes(MaxMessage)
	if n := r.MapMax(maxExtra); n > 0 {
		m.Extra = make(map[string]json.RawMessage, n)
		last := ""
		for i := range n {
			name := r.Text(maxExtraName)
			if i > 0 && !cbor.Before(last, name) {
				return Message{}, protocolErrorf("record: extra fields out of order")
			}
			last, m.Extra[name] = name, r.Bytes(MaxMessage)
		}
	}
	if err := r.Done(); err != nil {
		return Message{}, protocolErrorf("record: %v", err)
	}
	if level < math.MinInt32 || level > math.MaxInt32 {
		return Message{}, protocolErrorf("record: level does not fit 32 bits")
	}
	m.Level = int(level)
	if err := m.checkFields(); err != nil {
		return Message{}, protocolErrorf("record: %v", err)
	}
	if err := m.checkCompact(); err != nil {
		return Message{}, protocolErrorf("record: %v", err)
	}
	return m, nil
}

// leafHash is the hash of a record in its tree (RFC 6962 §2.1: a leaf begins
// with 0x00, a node with 0x01, so that none passes for the other).
func leafHash(rec []byte) tlog.Hash { return tlog.RecordHash(rec) }

// safeText shortens and quotes what a stranger wrote, for errors and logs.
func safeText(s string) string {
	if len(s) > maxHelloText {
		s = s[:maxHelloText]
	}
	b := []byte(s)
	for i, c := range b {
		if c < 0x20 || c > 0x7e {
			b[i] = '?'
		}
	}
	return string(b)
}
