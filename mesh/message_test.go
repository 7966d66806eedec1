package mesh

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/infrafabric/agentmesh/internal/corpus"
	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
)

// fixedIdentity is the same in every run; its key is for golden vectors only.
func fixedIdentity(t testing.TB, id string) *keys.Identity {
	t.Helper()
	seed := make([]byte, ed25519.SeedSize)
	for i := range seed {
		seed[i] = byte(i)
	}
	out, err := keys.NewIdentity(id, ed25519.NewKeyFromSeed(seed))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

var goldenTime = time.Date(2026, 11, 23, 8, 30, 0, 123_000_000, time.UTC)

// goldenMessages fill one tree; each differs in what is optional.
func goldenMessages() []Message {
	return []Message{
		{ID: "m-1", Timestamp: goldenTime, Level: 3, Performative: "request", ConversationID: "c-9",
			CitationIDs: []string{"if://evidence/1", "if://evidence/2"}, TraceID: "4bf92f3577b34da6a3ce929d0e0e4736",
			Payload: json.RawMessage(`{"big":9007199254740993,"one":1.0,"e":1E+2,"html":"<&>\u003c","deep":{"a":[1,{"b":null}]}}`),
			Extra:   map[string]json.RawMessage{"x_deadline": json.RawMessage(`"2026-11-23T09:00:00Z"`), "a": json.RawMessage(`{"k":[]}`)}},
		{ID: "m-2", Timestamp: goldenTime, Level: 2, Performative: "inform", Payload: json.RawMessage(`"Grüße, 世界 👩‍🚀"`)},
		{ID: "m-3", Timestamp: goldenTime, Level: -1, Performative: "inform", Payload: json.RawMessage(`null`)},
	}
}

// signed numbers, encodes and signs messages as one batch.
func signed(t testing.TB, id *keys.Identity, mesh, to string, inst signaling.Instance, msgs []Message) []Message {
	t.Helper()
	var leaves []tlog.Hash
	out := make([]Message, len(msgs))
	for i, m := range msgs {
		p, err := m.prepare(context.Background(), id.ID(), to, goldenTime, nil)
		if err != nil {
			t.Fatal(err)
		}
		p.SequenceNum = uint64(i + 1)
		out[i] = p
		leaves = append(leaves, leafHash(encodeRecord(&p)))
	}
	sig, err := id.Sign(batchStatement(mesh, id.ID(), inst, len(leaves), merkleRoot(leaves)))
	if err != nil {
		t.Fatal(err)
	}
	for i := range out {
		out[i].Signature = &Signature{Key: id.PublicKey(), Mesh: mesh, Instance: inst, TreeSize: len(leaves), Index: i, Bytes: sig, leaves: leaves}
	}
	return out
}

func goldenSigned(t testing.TB) []Message {
	return signed(t, fixedIdentity(t, "agent-a"), "golden", "agent-b", signaling.Instance{1, 2, 3}, goldenMessages())
}

// golden compares with a file, or writes it when UPDATE_GOLDEN is set.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs:\ngot  %s\nwant %s", name, got, want)
	}
}

// TestMessageGolden pins the JSON form, signature included, and reads it back:
// a message written today must verify for ever.
func TestMessageGolden(t *testing.T) {
	var got []byte
	for _, m := range goldenSigned(t) {
		b, err := m.AppendJSON(nil)
		if err != nil {
			t.Fatal(err)
		}
		got = append(append(got, b...), '\n')
	}
	golden(t, "messages-v2.1.jsonl", got)

	trust := newBook(fixedIdentity(t, "agent-a"))
	want := goldenMessages()
	for i, line := range bytes.Split(bytes.TrimSpace(got), []byte("\n")) {
		var m Message
		if err := m.UnmarshalJSON(line); err != nil {
			t.Fatal(err)
		}
		if err := m.Verify(t.Context(), "golden", trust); err != nil {
			t.Errorf("message %d: %v", i, err)
		}
		if !bytes.Equal(m.Payload, want[i].Payload) {
			t.Errorf("payload %s, want %s", m.Payload, want[i].Payload)
		}
	}
}

// TestMessageEncoder: a json.Encoder without HTML escaping and an indented
// form keep a message verifiable; json.Marshal does not, as documented.
func TestMessageEncoder(t *testing.T) {
	trust := newBook(fixedIdentity(t, "agent-a"))
	m := goldenSigned(t)[0]
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(m); err != nil {
		t.Fatal(err)
	}
	var back Message
	if err := json.Unmarshal(buf.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	if err := back.Verify(t.Context(), "golden", trust); err != nil {
		t.Error(err)
	}
	escaped, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(escaped, &back); err != nil {
		t.Fatal(err)
	}
	if err := back.Verify(t.Context(), "golden", trust); !errors.Is(err, keys.ErrBadSignature) {
		t.Errorf("after json.Marshal: %v", err)
	}
}

// TestVerifyCoversEverything changes one thing at a time.
func TestVerifyCoversEverything(t *testing.T) {
	a := fixedIdentity(t, "agent-a")
	trust := newBook(a)
	change := map[string]func(*Message){
		"id":              func(m *Message) { m.ID += "x" },
		"timestamp":       func(m *Message) { m.Timestamp = m.Timestamp.Add(time.Millisecond) },
		"level":           func(m *Message) { m.Level++ },
		"destination":     func(m *Message) { m.Destination = "agent-c" },
		"nested payload":  func(m *Message) { m.Payload = bytes.Replace(m.Payload, []byte(`"b":null`), []byte(`"b":true`), 1) },
		"big integer":     func(m *Message) { m.Payload = bytes.Replace(m.Payload, []byte("740993"), []byte("740992"), 1) },
		"1.0":             func(m *Message) { m.Payload = bytes.Replace(m.Payload, []byte("1.0"), []byte("1"), 1) },
		"performative":    func(m *Message) { m.Performative = "inform" },
		"conversation_id": func(m *Message) { m.ConversationID = "" },
		"sequence_num":    func(m *Message) { m.SequenceNum++ },
		"citation_ids":    func(m *Message) { m.CitationIDs = m.CitationIDs[:1] },
		"citation order":  func(m *Message) { m.CitationIDs = []string{m.CitationIDs[1], m.CitationIDs[0]} },
		"traceId":         func(m *Message) { m.TraceID = "" },
		"extra changed":   func(m *Message) { m.Extra = map[string]json.RawMessage{"a": m.Extra["a"]} },
		"extra added": func(m *Message) {
			m.Extra = map[string]json.RawMessage{"x_deadline": m.Extra["x_deadline"], "a": m.Extra["a"], "b": json.RawMessage("1")}
		},
		"signature":     func(m *Message) { m.Signature.Bytes[7] ^= 1 },
		"instance":      func(m *Message) { m.Signature.Instance[0] ^= 1 },
		"another index": func(m *Message) { m.Signature.Index = 1 },
	}
	for name, f := range change {
		m := goldenSigned(t)[0]
		s := *m.Signature
		s.Bytes = bytes.Clone(s.Bytes)
		m.Signature = &s
		if err := m.Verify(t.Context(), "golden", trust); err != nil {
			t.Fatal(err)
		}
		f(&m)
		if err := m.Verify(t.Context(), "golden", trust); !errors.Is(err, keys.ErrBadSignature) {
			t.Errorf("%s changed: %v", name, err)
		}
	}
	m := goldenSigned(t)[0]
	m.Source = "agent-c"
	trust.keys["agent-c"] = a.PublicKey()
	if err := m.Verify(t.Context(), "golden", trust); !errors.Is(err, keys.ErrBadSignature) {
		t.Errorf("source changed: %v", err)
	}
}

// TestVerifyErrors: the other ways in which a message can fail.
func TestVerifyErrors(t *testing.T) {
	a := fixedIdentity(t, "agent-a")
	trust := newBook(a)
	m := goldenSigned(t)[1]

	unsigned := m
	unsigned.Signature = nil
	if err := unsigned.Verify(t.Context(), "golden", trust); !errors.Is(err, ErrUnsigned) {
		t.Errorf("unsigned: %v", err)
	}
	if err := m.Verify(t.Context(), "other", trust); !errors.Is(err, ErrWrongMesh) {
		t.Errorf("another mesh: %v", err)
	}
	moved := m
	s := *m.Signature
	s.Mesh = "other"
	moved.Signature = &s
	if err := moved.Verify(t.Context(), "other", trust); !errors.Is(err, keys.ErrBadSignature) {
		t.Errorf("moved to another mesh: %v", err)
	}
	other := newIdentity(t, "agent-a")
	if err := m.Verify(t.Context(), "golden", newBook(other)); !errors.Is(err, ErrUntrusted) {
		t.Errorf("valid signature by a key that trust does not hold: %v", err)
	}
	if err := m.Verify(t.Context(), "golden", newBook()); !errors.Is(err, ErrUntrusted) {
		t.Errorf("unknown agent: %v", err)
	}
	if err := m.Verify(t.Context(), "golden", nil); err == nil {
		t.Error("no trust: no error")
	}

	// A path of another tree, and a node of the tree passed off as a leaf.
	foreign := signed(t, a, "golden", "agent-b", signaling.Instance{9}, append(goldenMessages(), goldenMessages()[0]))[1]
	mixed := m
	s = *m.Signature
	s.leaves, s.path = nil, foreign.Signature.Path()
	mixed.Signature = &s
	if err := mixed.Verify(t.Context(), "golden", trust); err == nil {
		t.Error("path of another tree verifies")
	}
	for _, n := range []int{0, 1, 3} {
		s.path = make([]tlog.Hash, n)
		var me *MessageError
		if err := mixed.Verify(t.Context(), "golden", trust); !errors.As(err, &me) {
			t.Errorf("path of %d hashes in a tree of three: %v", n, err)
		}
	}
	node := m.Signature.leaves
	if got := tlog.NodeHash(node[0], node[1]); got == leafHash(append(node[0][:], node[1][:]...)) {
		t.Error("a node hashes like a leaf")
	}
}

// TestMessageJSONRefused: what the strict parser does not take.
func TestMessageJSONRefused(t *testing.T) {
	b, err := goldenSigned(t)[0].MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	good := string(b)
	replace := func(from, to string) string {
		out := strings.Replace(good, from, to, 1)
		if out == good {
			t.Fatalf("%q is not in the message", from)
		}
		return out
	}
	bad := map[string]string{
		"duplicate name":        replace(`"level":3`, `"level":3,"level":3`),
		"duplicate in payload":  replace(`"one":1.0`, `"one":1.0,"one":1.0`),
		"escaped duplicate":     replace(`"one":1.0`, `"one":1.0,"\u006fne":1.0`),
		"signed_fields cut":     replace(`"payload",`, ``),
		"signed_fields gone":    replace(`"signed_fields"`, `"signed_field"`),
		"field in signature":    replace(`"tree_size"`, `"note":"trust me","tree_size"`),
		"version":               replace(`"2.1"`, `"2.2"`),
		"timestamp zone":        replace(`.123Z`, `.123+00:00`),
		"timestamp digits":      replace(`.123Z`, `.1230Z`),
		"level float":           replace(`"level":3`, `"level":3.0`),
		"sequence string":       replace(`"sequence_num":1`, `"sequence_num":"1"`),
		"citations with null":   replace(`"if://evidence/1"`, `null`),
		"id number":             replace(`"m-1"`, `1`),
		"algorithm":             replace(`"Ed25519"`, `"none"`),
		"trailing":              good + "{}",
		"array":                 "[" + good + "]",
		"invalid UTF-8":         replace(`"m-1"`, "\"\xff\""),
		"lone surrogate":        replace(`"e":1E+2`, `"e":"\ud800"`),
		"signature not base64":  replace(`"path":["`, `"path":["!`),
		"payload nests too far": replace(`{"b":null}`, strings.Repeat("[", 65)+strings.Repeat("]", 65)),
	}
	for name, s := range bad {
		var m Message
		if err := m.UnmarshalJSON([]byte(s)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	for i := range b {
		var m Message
		if err := m.UnmarshalJSON(b[:i]); err == nil {
			t.Fatalf("truncated at %d: no error", i)
		}
	}
}

// TestMessageRefused: what Send does not take.
func TestMessageRefused(t *testing.T) {
	bad := map[string]Message{
		"source":          {Source: "agent-x"},
		"destination":     {Destination: "agent-x"},
		"id":              {ID: strings.Repeat("x", maxIDLen+1)},
		"performative":    {Performative: "\xff"},
		"conversation_id": {ConversationID: strings.Repeat("x", maxConversation+1)},
		"traceId":         {TraceID: strings.Repeat("x", maxTraceID+1)},
		"citation_ids":    {CitationIDs: make([]string, maxCitations+1)},
		"payload":         {Payload: json.RawMessage(`{"a":1,"a":2}`)},
		"timestamp":       {Timestamp: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)},
		"signature":       {Extra: map[string]json.RawMessage{"signature": json.RawMessage("1")}},
	}
	if over := int64(math.MaxInt32) + 1; int64(int(over)) == over { // elsewhere an int is never too large
		bad["level"] = Message{Level: int(over)}
	}
	for field, m := range bad {
		_, err := m.prepare(t.Context(), "agent-a", "agent-b", goldenTime, nil)
		var me *MessageError
		if !errors.As(err, &me) || me.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	for _, p := range []string{`{`, `1 2`, `{"a":}`, `[1,]`, `"`, "\"\xff\"", `nul`, `01`, `{"a":1}}`, strings.Repeat("[", 65) + strings.Repeat("]", 65)} {
		if _, err := (Message{Payload: json.RawMessage(p)}).prepare(t.Context(), "agent-a", "agent-b", goldenTime, nil); err == nil {
			t.Errorf("payload %q: no error", p)
		}
	}
}

// TestPrepareKeepsCaller: the caller's message and its slices stay as they are.
func TestPrepareKeepsCaller(t *testing.T) {
	payload := json.RawMessage("{ \"a\" : 1 }")
	m := Message{Payload: payload, Extra: map[string]json.RawMessage{"x": json.RawMessage("[ 1 ]")}}
	out, err := m.prepare(t.Context(), "agent-a", "agent-b", goldenTime, nil)
	if err != nil {
		t.Fatal(err)
	}
	if string(out.Payload) != `{"a":1}` || string(out.Extra["x"]) != "[1]" {
		t.Errorf("compacted to %s, %s", out.Payload, out.Extra["x"])
	}
	if string(payload) != "{ \"a\" : 1 }" || string(m.Extra["x"]) != "[ 1 ]" || m.ID != "" {
		t.Error("the caller's message was changed")
	}
	if out.ID == "" || out.Level != 2 || out.Performative != "inform" || !out.Timestamp.Equal(goldenTime) {
		t.Errorf("defaults: %+v", out)
	}
}

// TestBothForms: CBOR and JSON map one to one over realistic payloads.
func TestBothForms(t *testing.T) {
	lines, err := corpus.Incidents()
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range lines {
		m, err := (Message{Payload: line}).prepare(t.Context(), "agent-a", "agent-b", goldenTime, nil)
		if err != nil {
			t.Fatal(err)
		}
		m.SequenceNum = 7
		rec := encodeRecord(&m)
		back, err := decodeRecord(rec, "agent-a", "agent-b")
		if err != nil {
			t.Fatal(err)
		}
		j, err := back.AppendJSON(nil)
		if err != nil {
			t.Fatal(err)
		}
		var read Message
		if err := read.UnmarshalJSON(j); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(encodeRecord(&read), rec) {
			t.Fatalf("record differs after JSON: %s", j)
		}
	}
}

// TestMerkle compares roots and paths with golang.org/x/mod/sumdb/tlog.
func TestMerkle(t *testing.T) {
	for n := 1; n <= 70; n++ {
		var leaves []tlog.Hash
		var stored []tlog.Hash
		reader := tlog.HashReaderFunc(func(index []int64) ([]tlog.Hash, error) {
			out := make([]tlog.Hash, len(index))
			for i, x := range index {
				out[i] = stored[x]
			}
			return out, nil
		})
		for i := range n {
			rec := []byte{byte(i)}
			leaves = append(leaves, leafHash(rec))
			hs, err := tlog.StoredHashes(int64(i), rec, reader)
			if err != nil {
				t.Fatal(err)
			}
			stored = append(stored, hs...)
		}
		want, err := tlog.TreeHash(int64(n), reader)
		if err != nil {
			t.Fatal(err)
		}
		if got := merkleRoot(leaves); got != want {
			t.Fatalf("root of %d leaves: %v, want %v", n, got, want)
		}
		for i := range n {
			path := merklePath(i, leaves)
			if err := tlog.CheckRecord(tlog.RecordProof(path), int64(n), want, int64(i), leaves[i]); err != nil {
				t.Fatalf("path %d of %d: %v", i, n, err)
			}
			got, err := rootFromPath(leaves[i], i, n, path)
			if err != nil || got != want {
				t.Fatalf("root from path %d of %d: %v, %v", i, n, got, err)
			}
		}
	}
}
