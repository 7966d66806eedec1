package mesh

import (
	"encoding/json"
	"testing"
)

// BenchmarkMessage measures what Send, Receive and the JSON form do with one
// message of benchPayload bytes, without a connection.
func BenchmarkMessage(b *testing.B) {
	signed := goldenSigned(b)[0]
	text, err := signed.AppendJSON(nil)
	if err != nil {
		b.Fatal(err)
	}
	plain := Message{Payload: benchJSON(), Extra: map[string]json.RawMessage{"x_deadline": json.RawMessage(`"2026-11-23T09:00:00Z"`)}}
	ready, err := plain.prepare(b.Context(), "agent-a", "agent-b", goldenTime, nil)
	if err != nil {
		b.Fatal(err)
	}
	record := encodeRecord(&ready)
	for _, bench := range []struct {
		name string
		f    func() error
	}{
		{"prepare", func() error {
			_, err := plain.prepare(b.Context(), "agent-a", "agent-b", goldenTime, nil)
			return err
		}},
		{"decode", func() error { _, err := decodeRecord(record, "agent-a", "agent-b"); return err }},
		{"append", func() error { _, err := signed.AppendJSON(make([]byte, 0, len(text))); return err }},
		{"unmarshal", func() error { return new(Message).UnmarshalJSON(text) }},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := bench.f(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
