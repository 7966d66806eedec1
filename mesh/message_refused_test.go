package mesh

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/keys"
)

// refusedText is a message that no reader may take, as testdata/refused-v2.1.jsonl
// holds it for other implementations.
type refusedText struct {
	Why   string `json:"why"`
	Field string `json:"field"` // which MessageError names, "" for another error
	Part  string `json:"-"`     // where in Text the error points; "" for nowhere
	Text  string `json:"text"`
}

// refusedTexts are made of a golden message, each by one change.
func refusedTexts(t testing.TB) []refusedText {
	b, err := goldenSigned(t)[0].MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	good := string(b)
	var list []refusedText
	add := func(why, field, part, from, to string) {
		t.Helper()
		text := strings.Replace(good, from, to, 1)
		if text == good {
			t.Fatalf("%q is not in the message", from)
		}
		list = append(list, refusedText{why, field, part, text})
	}
	deep := strings.Repeat("[", MaxNesting) + strings.Repeat("]", MaxNesting)

	add("name twice", "message", `"level":4`, `"level":3`, `"level":3,"level":4`)
	add("name twice, once escaped", "message", `"\u006cevel"`, `"level":3`, `"level":3,"\u006cevel":4`)
	add("name twice in the payload", "payload", `"one":2`, `"one":1.0`, `"one":1.0,"one":2`)
	add("field of the signature twice", "signature", `"index":1`, `"index":0`, `"index":0,"index":1`)
	add("name in capitals", "ID", `"m-9"`, `"level":3`, `"level":3,"ID":"m-9"`)
	add("name in other case", "TraceId", `"x"`, `"level":3`, `"level":3,"TraceId":"x"`)
	add("payload in other case", "Payload", `"other"`, `"level":3`, `"level":3,"Payload":"other"`)
	add("letter that folds to s", "\u017fource", `"x"`, `"level":3`, "\"level\":3,\"\u017fource\":\"x\"")
	add("letter that folds to s, escaped", "\u017fource", `"x"`, `"level":3`, `"level":3,"\u017fource":"x"`)
	add("line break in signature_bytes", "signature.signature_bytes", `"syjd\n`, `"syjd`, `"syjd\n`)
	add("line break in place of a digit", "signature.signature_bytes", `"syj\n`, `"syjd`, `"syj\n`)
	add("line break before the padding", "signature.signature_bytes", "", `==","signed_fields"`, `\n==","signed_fields"`)
	add("carriage return at the end", "signature.signature_bytes", "", `==","signed_fields"`, `==\r","signed_fields"`)
	add("line break in path", "signature.path", "", `"path":["`, `"path":["\n`)
	add("bits behind the last byte", "signature.signature_bytes", "", `A==","signed_fields"`, `B==","signed_fields"`)
	add("no padding", "signature.signature_bytes", "", `==","signed_fields"`, `","signed_fields"`)
	add("no base64", "signature.path", `["!`, `"path":["`, `"path":["!`)
	add("line break in public_key", "signature.public_key", "", `"public_key":"ed25519:A`, `"public_key":"ed25519:\nA`)
	add("instance in capitals", "signature.instance", `"010203A`, `"0102030`, `"010203A`)
	add("too many hashes", "signature.path", "", `"path":[`, `"path":[`+strings.Repeat(`"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",`, maxPath))
	add("tree without leaves", "signature.tree_size", "", `"tree_size":3`, `"tree_size":0`)
	add("place beyond the tree", "signature.index", "", `"index":0`, `"index":3`)
	add("list of fields cut", "signature.signed_fields", "", `"payload",`, ``)
	add("field renamed", "signature.signed_field", "", `"signed_fields"`, `"signed_field"`)
	add("field that nothing covers", "signature.note", `"trust me"`, `"tree_size"`, `"note":"trust me","tree_size"`)
	add("field of the signature in capitals", "signature.MESH", `"golden","instance"`, `"mesh"`, `"MESH"`)
	add("other algorithm", "signature.algorithm", `"none"`, `"Ed25519"`, `"none"`)
	add("no signature", "signature", `null}`, good[strings.Index(good, `{"algorithm"`):], `null}`)
	add("other version", "", "", `"2.1"`, `"2.2"`)
	add("no version", "version", "", `"version":"2.1",`, ``)
	add("no id", "id", "", `"id":"m-1",`, ``)
	add("no payload", "payload", "", `"payload"`, `"pay_load"`)
	add("time with a zone", "timestamp", `"2026-11-23T08:30:00.123+00:00"`, `.123Z`, `.123+00:00`)
	add("time of four digits", "timestamp", `"2026-11-23T08:30:00.1230Z"`, `.123Z`, `.1230Z`)
	add("time without fraction", "timestamp", `"2026-11-23T08:30:00Z"`, `.123Z`, `Z`)
	add("time in lower case", "timestamp", `"2026-11-23t08`, `T08`, `t08`)
	add("leap second", "timestamp", "", `:00.123Z`, `:60.123Z`)
	add("level with a fraction", "level", `3.0`, `"level":3`, `"level":3.0`)
	add("level of 33 bits", "level", `4294967296`, `"level":3`, `"level":4294967296`)
	add("level null", "level", `null`, `"level":3`, `"level":null`)
	add("minus nothing", "level", `-0`, `"level":3`, `"level":-0`)
	add("number in a string", "sequence_num", `"1"`, `"sequence_num":1`, `"sequence_num":"1"`)
	add("number with exponent", "sequence_num", `1e0`, `"sequence_num":1`, `"sequence_num":1e0`)
	add("id a number", "id", `1`, `"m-1"`, `1`)
	add("citations with null", "citation_ids", `[null`, `"if://evidence/1"`, `null`)
	add("nested too deep", "payload", `[[[]]`, `{"b":null}`, deep)
	add("half of a pair", "payload", `\ud83d"`, `"e":1E+2`, `"e":"\ud83d"`)
	add("other half of a pair", "payload", `\ude00"`, `"e":1E+2`, `"e":"\ude00"`)
	add("byte order mark", "message", "", `{"id"`, "\ufeff{\"id\"")
	add("comma at the end", "payload", `]}},"perf`, `}]}}`, `},]}}`)
	add("comment", "message", "/", `"level":3`, `/*x*/"level":3`)
	list = append(list, refusedText{"text behind", "message", "x", good + "x"}, refusedText{"in an array", "message", "", "[" + good + "]"})
	return list
}

// TestRefusedGolden pins texts that no reader may take, and what is said of each.
func TestRefusedGolden(t *testing.T) {
	var file bytes.Buffer
	enc := json.NewEncoder(&file)
	enc.SetEscapeHTML(false)
	for _, bad := range refusedTexts(t) {
		if err := enc.Encode(bad); err != nil {
			t.Fatal(err)
		}
		// White space in front and between tokens moves every place.
		for _, text := range []string{bad.Text, " \n" + strings.ReplaceAll(bad.Text, `,"timestamp"`, " ,\n\t\"timestamp\"")} {
			var m Message
			err := m.UnmarshalJSON([]byte(text))
			var me *MessageError
			switch {
			case err == nil:
				t.Errorf("%s: no error", bad.Why)
			case bad.Field == "":
			case !errors.As(err, &me) || me.Field != bad.Field:
				t.Errorf("%s: %v, want one of %s", bad.Why, err, bad.Field)
			case bad.Part != "" && !strings.HasPrefix(text[me.Offset:], bad.Part):
				t.Errorf("%s: %v, where %.20q stands", bad.Why, err, text[me.Offset:])
			}
		}
	}
	golden(t, "refused-v2.1.jsonl", file.Bytes())
}

// TestExtraLikeAField: a field that another reader would take for a known one is
// refused on every way into a message; one that is merely similar is not.
func TestExtraLikeAField(t *testing.T) {
	for _, name := range []string{"id", "ID", "Id", "TRACEID", "traceid", "Conversation_ID", "\u017fignature", "PAYLOAD"} {
		m := Message{Extra: map[string]json.RawMessage{name: json.RawMessage("1")}}
		var me *MessageError
		if _, err := m.prepare(t.Context(), "agent-a", "agent-b", goldenTime, nil); !errors.As(err, &me) || me.Field != name {
			t.Errorf("%s sent: %v", name, err)
		}
		m.ID, m.Performative, m.Payload = "1", "inform", json.RawMessage("null")
		if _, err := m.AppendJSON(nil); !errors.As(err, &me) || me.Field != name {
			t.Errorf("%s written: %v", name, err)
		}
		if _, err := decodeRecord(encodeRecord(&m), "agent-a", "agent-b"); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s received: %v", name, err)
		}
	}
	for _, name := range []string{"ids", "trace_id", "x_ID", "conversationid", "trac\u00e9Id", ""} {
		m := Message{Extra: map[string]json.RawMessage{name: json.RawMessage("1")}}
		if _, err := m.prepare(t.Context(), "agent-a", "agent-b", goldenTime, nil); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// TestDeepestMessageReadsBack: the nesting that Send takes is the nesting that is
// received, written and read, in a payload and in an extra field.
func TestDeepestMessageReadsBack(t *testing.T) {
	deep := func(n int) json.RawMessage {
		return json.RawMessage(strings.Repeat(`[{"a":`, n/2) + "0" + strings.Repeat("}]", n/2))
	}
	m := Message{Payload: deep(MaxNesting), Extra: map[string]json.RawMessage{"x": deep(MaxNesting)}}
	sent := signed(t, fixedIdentity(t, "agent-a"), "golden", "agent-b", [16]byte{1}, []Message{m})[0]
	if _, err := decodeRecord(encodeRecord(&sent), "agent-a", "agent-b"); err != nil {
		t.Fatal(err)
	}
	text, err := sent.AppendJSON(nil)
	if err != nil {
		t.Fatal(err)
	}
	var back Message
	if err := back.UnmarshalJSON(text); err != nil {
		t.Fatal(err)
	}
	if err := back.Verify(t.Context(), "golden", keys.TrustAny); err != nil {
		t.Error(err)
	}
	for _, m := range []Message{{Payload: deep(MaxNesting + 2)}, {Extra: map[string]json.RawMessage{"x": deep(MaxNesting + 2)}}} {
		var me *MessageError
		if _, err := m.prepare(t.Context(), "agent-a", "agent-b", goldenTime, nil); !errors.As(err, &me) || me.Limit != MaxNesting {
			t.Errorf("one level more: %v", err)
		}
	}
}

// TestWrittenIsRead: AppendJSON refuses what UnmarshalJSON would.
func TestWrittenIsRead(t *testing.T) {
	for field, change := range map[string]func(*Message){
		"source":                    func(m *Message) { m.Source = "a\xff" },
		"destination":               func(m *Message) { m.Destination = strings.Repeat("x", keys.MaxNameSize+1) },
		"signature.public_key":      func(m *Message) { m.Signature.Key = keys.PublicKey{} },
		"signature.mesh":            func(m *Message) { m.Signature.Mesh = "\xff" },
		"signature.signature_bytes": func(m *Message) { m.Signature.Bytes = nil },
		"signature.tree_size":       func(m *Message) { m.Signature.TreeSize = maxTree + 1 },
		"signature.index":           func(m *Message) { m.Signature.Index = -1 },
	} {
		m := goldenSigned(t)[0]
		change(&m)
		var me *MessageError
		if _, err := m.AppendJSON(nil); !errors.As(err, &me) || me.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	// The largest message, of the bytes that JSON makes most of.
	m := Message{ID: strings.Repeat("\x01", maxIDLen), Level: -1 << 31, Performative: strings.Repeat("\x01", maxPerformative), ConversationID: strings.Repeat("\x01", maxConversation),
		TraceID: strings.Repeat("\x01", maxTraceID), Extra: map[string]json.RawMessage{}}
	for i := range maxExtra {
		m.Extra[strings.Repeat("\x01", maxExtraName-1)+string(rune('0'+i))] = json.RawMessage("0")
	}
	for range maxCitations {
		m.CitationIDs = append(m.CitationIDs, strings.Repeat("\x01", maxCitationLen))
	}
	m.Payload = digits(900_000)
	m = signed(t, fixedIdentity(t, "agent-a"), "golden", "agent-b", [16]byte{1}, []Message{m})[0]
	m.Payload = digits(900_000 + MaxMessage - len(encodeRecord(&m)))
	if n := len(encodeRecord(&m)); n != MaxMessage {
		t.Fatalf("record of %d bytes", n)
	}
	text, err := m.AppendJSON(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := new(Message).UnmarshalJSON(text); err != nil {
		t.Error(err)
	}
}

// TestTooLargeSays: which limit, and both sizes.
func TestTooLargeSays(t *testing.T) {
	m := Message{Payload: digits(MaxMessage)}
	check := func(what string, err error, limit uint64) {
		t.Helper()
		var e *TooLargeError
		if !errors.Is(err, ErrTooLarge) || !errors.As(err, &e) || e.What != what || e.Limit != limit || e.Size <= limit || e.Size > limit+400 {
			t.Errorf("%v, want it to name %s", err, what)
		}
	}
	_, err := m.prepare(t.Context(), "agent-a", "agent-b", goldenTime, nil)
	check("MaxMessage", err, MaxMessage)
	m.ID = "1"
	_, err = m.AppendJSON(nil)
	check("MaxMessage", err, MaxMessage)
	err = new(Message).UnmarshalJSON([]byte(`{"id":"1","version":"2.1","payload":` + string(digits(MaxMessage)) + `}`))
	check("MaxMessage", err, MaxMessage)
	err = new(Message).UnmarshalJSON([]byte(strings.Repeat(" ", MaxMessageJSON+1)))
	check("MaxMessageJSON", err, MaxMessageJSON)
	// At the limit, by a byte.
	m = Message{ID: "1", Timestamp: time.Unix(0, 0), Performative: "inform", Payload: digits(MaxMessage - 100)}
	m.Payload = digits(2*MaxMessage - 100 - len(encodeRecord(&m)))
	if err := m.checkSize(); len(encodeRecord(&m)) != MaxMessage || err != nil {
		t.Errorf("%d bytes: %v", len(encodeRecord(&m)), err)
	}
}

// TestMessageErrorFields: what is too long says by how much, and text that is not
// UTF-8 says where.
func TestMessageErrorFields(t *testing.T) {
	for want, m := range map[MessageError]Message{
		{Field: "id", Size: maxIDLen + 1, Limit: maxIDLen}:                        {ID: strings.Repeat("x", maxIDLen+1)},
		{Field: "traceId", Size: 70, Limit: maxTraceID}:                           {TraceID: strings.Repeat("x", 70)},
		{Field: "citation_ids", Size: maxCitations + 2, Limit: maxCitations}:      {CitationIDs: make([]string, maxCitations+2)},
		{Field: "performative", Offset: 3}:                                        {Performative: "a\u00e4\xff"},
		{Field: "payload", Offset: 2}:                                             {Payload: json.RawMessage(`["\ud83d"]`)},
		{Field: "payload", Offset: 3}:                                             {Payload: json.RawMessage(`[1 2]`)},
		{Field: "x", Offset: MaxNesting, Size: MaxNesting + 1, Limit: MaxNesting}: {Extra: map[string]json.RawMessage{"x": json.RawMessage(strings.Repeat("[", MaxNesting+1))}},
		{Field: "payload", Offset: 7}:                                             {Payload: json.RawMessage(`{"a":1,"a":2}`)},
		{Field: "extra", Size: maxExtraName + 1, Limit: maxExtraName}:             {Extra: map[string]json.RawMessage{strings.Repeat("x", maxExtraName+1): nil}},
	} {
		_, err := m.prepare(t.Context(), "agent-a", "agent-b", goldenTime, nil)
		var got *MessageError
		if !errors.As(err, &got) {
			t.Errorf("%+v: %v", want, err)
			continue
		}
		want.Reason = got.Reason
		if *got != want || strings.Contains(got.Reason, "UTF-8") != (want.Field == "performative") {
			t.Errorf("%+v, want %+v", *got, want)
		}
	}
	secret := Message{Payload: json.RawMessage(`{"password":"correct horse` + "\xff" + `"}`)}
	if _, err := secret.prepare(t.Context(), "agent-a", "agent-b", goldenTime, nil); err == nil || strings.Contains(err.Error(), "horse") {
		t.Errorf("the payload stands in %v", err)
	}
}

// FuzzExtraName: whatever name passes reads back from JSON and CBOR, and no reader
// without regard to case takes it for a known field.
func FuzzExtraName(f *testing.F) {
	for _, name := range []string{"x", "ID", "\u017fource", "traceid", "", "\u212a"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		m, err := (Message{Extra: map[string]json.RawMessage{name: json.RawMessage("[]")}}).prepare(t.Context(), "agent-a", "agent-b", goldenTime, nil)
		if err != nil {
			return
		}
		for _, known := range fieldNames {
			if strings.EqualFold(known, name) {
				t.Fatalf("%q passes for %s", name, known)
			}
		}
		if _, err := decodeRecord(encodeRecord(&m), "agent-a", "agent-b"); err != nil {
			t.Fatal(err)
		}
		text, err := m.AppendJSON(nil)
		if err != nil {
			t.Fatal(err)
		}
		var back Message
		if err := back.UnmarshalJSON(text); err != nil || len(back.Extra) != 1 {
			t.Fatalf("%s: %v", text, err)
		}
	})
}
