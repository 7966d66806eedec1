package mesh

import (
	"crypto/sha256"
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
	b := cbor.AppendArray(make([]byte, 0, m.roughSize()), recordFields)
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

// roughSize is the size of the record, or some bytes more.
func (m *Message) roughSize() int {
	size := 96 + len(m.ID) + len(m.Destination) + len(m.Performative) + len(m.ConversationID) + len(m.TraceID) + len(m.Payload)
	for _, c := range m.CitationIDs {
		size += len(c) + 3
	}
	for name, v := range m.Extra {
		size += len(name) + len(v) + 8
	}
	return size
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
//
// Source and destination are the session's two agents; the message's JSON values
// alias b.
func decodeRecord(b []byte, source, destination string) (Message, error) {
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
	m.Destination = r.TextLike(keys.MaxNameSize, destination)
	m.Performative = r.TextLike(maxPerformative, "inform", "request", "agree")
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
// with 0x00, a node with 0x01, so that none passes for the other). It is
// tlog.RecordHash without the allocations.
func leafHash(rec []byte) tlog.Hash {
	var short [1024]byte
	buf := short[:]
	if len(rec) >= len(short) {
		buf = make([]byte, 1+len(rec))
	}
	return sha256.Sum256(buf[:1+copy(buf[1:], rec)])
}

// nodeHash is tlog.NodeHash without the allocations.
func nodeHash(left, right tlog.Hash) tlog.Hash {
	var buf [1 + 2*tlog.HashSize]byte
	buf[0] = 1
	copy(buf[1:], left[:])
	copy(buf[1+tlog.HashSize:], right[:])
	return sha256.Sum256(buf[:])
}

// safeText shortens and quotes what a stranger wrote, for errors and logs.
func safeText(s string) string { return printable(s[:min(len(s), maxHelloText)]) }

// printable replaces what is not printable ASCII.
func printable(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c < 0x20 || c > 0x7e {
			b[i] = '?'
		}
	}
	return string(b)
}
