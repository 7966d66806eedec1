package mesh

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"testing"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
)

// goldenFrames has one frame of each kind.
func goldenFrames(t testing.TB) map[string][]byte {
	msgs := goldenSigned(t)
	var recs [][]byte
	for i := range msgs {
		recs = append(recs, encodeRecord(&msgs[i]))
	}
	pos := []position{{Flow: 0, Received: 7, Delivered: 5, Credit: 1 << 20}}
	hello, err := signHello(fixedIdentity(t, "agent-a"), goldenBinding(), memory{window: 4 << 20, credit: 3 << 20, state: 77, positions: pos}, "turn.example")
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{
		"hello":     hello,
		"batch":     (&batchFrame{Signature: msgs[0].Signature.Bytes, Records: recs, Positions: pos}).encode(nil),
		"part":      (&partFrame{Total: 70000, Offset: 16320, Bytes: []byte("bytes")}).encode(),
		"positions": (&positionsFrame{Positions: pos}).encode(),
		"skip":      (&skipFrame{Flow: 0, Number: 12, Offset: 4096}).encode(),
		"echo":      (&echoFrame{Ping: 123456, Pong: 0, Sent: 70, Received: 65536}).encode(),
		"goodbye":   (&goodbyeFrame{Code: goodbyeReplaced, Text: "why"}).encode(),
		"envelope":  (&envelopeFrame{Envelope: []byte("signed elsewhere")}).encode(),
		"piece":     (&pieceFrame{Rest: 920, Bytes: []byte("bytes")}).encode(),
	}
}

var frameOrder = []string{"hello", "batch", "part", "positions", "skip", "echo", "goodbye", "envelope", "piece"}

func goldenBinding() binding {
	return binding{mesh: "golden", local: "agent-a", remote: "agent-b",
		localInst: signaling.Instance{1}, remoteInst: signaling.Instance{2},
		offer: signaling.Hash{3}, answer: signaling.Hash{4},
		localCert: keys.Fingerprint{5}, remoteCert: keys.Fingerprint{6}}
}

// mirrored is the other side's view.
func (b binding) mirrored() binding {
	b.local, b.remote = b.remote, b.local
	b.localInst, b.remoteInst = b.remoteInst, b.localInst
	b.localCert, b.remoteCert = b.remoteCert, b.localCert
	return b
}

// decodeAny decodes a frame as the session does.
func decodeAny(b []byte) error {
	kind, err := peekFrame(b)
	if err != nil {
		return err
	}
	switch kind {
	case kindHello:
		_, err = decodeHelloFrame(b)
	case kindBatch:
		_, err = decodeBatchFrame(b)
	case kindPart:
		_, err = decodePartFrame(b)
	case kindPositions:
		_, err = decodePositionsFrame(b)
	case kindSkip:
		_, err = decodeSkipFrame(b)
	case kindEcho:
		_, err = decodeEchoFrame(b)
	case kindPiece:
		_, err = decodePieceFrame(b)
	case kindGoodbye:
		_, err = decodeGoodbyeFrame(b)
	case kindEnvelope:
		_, err = decodeEnvelopeFrame(b)
	}
	return err
}

func TestFrameGolden(t *testing.T) {
	frames := goldenFrames(t)
	var got bytes.Buffer
	for _, name := range frameOrder {
		fmt.Fprintf(&got, "%s %s\n", name, hex.EncodeToString(frames[name]))
		if err := decodeAny(frames[name]); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	golden(t, "frames-v1.txt", got.Bytes())
}

func TestFrameTruncated(t *testing.T) {
	for name, b := range goldenFrames(t) {
		for i := range b {
			if err := decodeAny(b[:i]); !errors.Is(err, ErrProtocol) {
				t.Errorf("%s cut at %d: %v", name, i, err)
			}
		}
		if err := decodeAny(append(bytes.Clone(b), 0)); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s with a trailing byte: %v", name, err)
		}
	}
}

func TestRecordTruncated(t *testing.T) {
	m := goldenSigned(t)[0]
	rec := encodeRecord(&m)
	for i := range rec {
		if _, err := decodeRecord(rec[:i], "agent-a", "agent-b"); !errors.Is(err, ErrProtocol) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
	if _, err := decodeRecord(append(bytes.Clone(rec), 0), "agent-a", "agent-b"); !errors.Is(err, ErrProtocol) {
		t.Errorf("trailing byte: %v", err)
	}
}

func TestFrameVersion(t *testing.T) {
	b := bytes.Clone(goldenFrames(t)["echo"])
	b[1] = 2
	var v *VersionError
	if err := decodeAny(b); !errors.As(err, &v) || v.Ours != "1" || v.Theirs != "2" {
		t.Errorf("version 2: %v", err)
	}
	b[1], b[2] = 1, byte(kindEnd)
	if err := decodeAny(b); !errors.Is(err, ErrProtocol) {
		t.Errorf("unknown kind: %v", err)
	}
}

// TestHelloBinds: a hello is valid for one session and nothing else.
func TestHelloBinds(t *testing.T) {
	a := fixedIdentity(t, "agent-a")
	frame := goldenFrames(t)["hello"]
	view := goldenBinding().mirrored()
	h, err := verifyHello(frame, a.PublicKey(), view)
	if err != nil {
		t.Fatal(err)
	}
	if len(h.Positions) != 1 || h.Positions[0].Received != 7 || h.Window != 4<<20 {
		t.Errorf("hello says %+v", h)
	}
	if _, err := verifyHello(frame, newIdentity(t, "agent-a").PublicKey(), view); !errors.Is(err, keys.ErrBadSignature) {
		t.Errorf("another key: %v", err)
	}
	for name, change := range map[string]func(*binding){
		"mesh": func(b *binding) { b.mesh = "other" }, "from": func(b *binding) { b.remote = "agent-m" },
		"to": func(b *binding) { b.local = "agent-m" },
	} {
		v := view
		change(&v)
		if _, err := verifyHello(frame, a.PublicKey(), v); !errors.Is(err, keys.ErrBadSignature) {
			t.Errorf("another %s: %v", name, err)
		}
	}
	for name, change := range map[string]func(*binding){
		"from instance": func(b *binding) { b.remoteInst[0]++ }, "to instance": func(b *binding) { b.localInst[0]++ },
		"offer": func(b *binding) { b.offer[0]++ }, "answer": func(b *binding) { b.answer[0]++ },
		"own certificate": func(b *binding) { b.localCert[0]++ }, "peer's certificate": func(b *binding) { b.remoteCert[0]++ },
	} {
		v := view
		change(&v)
		if _, err := verifyHello(frame, a.PublicKey(), v); !errors.Is(err, ErrProtocol) {
			t.Errorf("another %s: %v", name, err)
		}
	}
	if _, err := verifyHello(goldenFrames(t)["echo"], a.PublicKey(), view); !errors.Is(err, ErrProtocol) {
		t.Errorf("an echo instead of a hello: %v", err)
	}
}

// TestPeekFrame: what does not begin as a frame does is none, whichever of its first
// bytes it is.
func TestPeekFrame(t *testing.T) {
	good := []byte{0x82, frameVersion, byte(kindEcho)}
	if k, err := peekFrame(good); k != kindEcho || err != nil {
		t.Errorf("%v, %v", k, err)
	}
	for _, bad := range [][]byte{
		nil, good[:2], {0x81, frameVersion, byte(kindEcho)}, {0x98, frameVersion, byte(kindEcho)},
		{0x82, 0x18, byte(kindEcho)}, {0x82, frameVersion, 0x18}, {0x82, frameVersion, byte(kindEnd)},
	} {
		if k, err := peekFrame(bad); !errors.Is(err, ErrProtocol) {
			t.Errorf("%x: %v, %v", bad, k, err)
		}
	}
	var ve *VersionError
	if _, err := peekFrame([]byte{0x82, frameVersion + 1, byte(kindEcho)}); !errors.As(err, &ve) {
		t.Errorf("another version: %v", err)
	}
}

func FuzzFrame(f *testing.F) {
	for _, b := range goldenFrames(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		kind, err := peekFrame(b)
		if err != nil {
			return
		}
		if err := decodeAny(b); err != nil && !errors.Is(err, ErrProtocol) {
			t.Errorf("kind %d: untyped error %v", kind, err)
		}
	})
}

func FuzzRecord(f *testing.F) {
	for _, m := range goldenSigned(f) {
		f.Add(encodeRecord(&m))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeRecord(b, "agent-a", "agent-b")
		if err != nil {
			return
		}
		j, err := m.AppendJSON(nil)
		if err != nil {
			t.Fatalf("accepted, but has no JSON form: %v", err)
		}
		var back Message
		if err := back.UnmarshalJSON(j); err != nil {
			t.Fatalf("%s: %v", j, err)
		}
		if !bytes.Equal(encodeRecord(&back), b) {
			t.Fatalf("the forms do not map one to one: %s", j)
		}
	})
}

func FuzzMessageJSON(f *testing.F) {
	for _, m := range goldenSigned(f) {
		b, err := m.MarshalJSON()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var m Message
		if err := m.UnmarshalJSON(b); err != nil {
			return
		}
		j, err := m.AppendJSON(nil)
		if err != nil {
			t.Fatalf("read, but cannot be written: %v", err)
		}
		var back Message
		if err := back.UnmarshalJSON(j); err != nil {
			t.Fatalf("%s: %v", j, err)
		}
		again, err := back.AppendJSON(nil)
		if err != nil || !bytes.Equal(again, j) {
			t.Fatalf("not stable: %s, then %s, %v", j, again, err)
		}
	})
}

func FuzzDescription(f *testing.F) {
	fp := keys.Fingerprint{1, 2}
	f.Add((&descriptionBody{SDP: "v=0\r\na=fingerprint:sha-256 " + fp.String() + "\r\na=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n", Fingerprint: fp}).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := decodeDescription(b)
		if err != nil {
			if !errors.Is(err, ErrProtocol) {
				t.Errorf("untyped error %v", err)
			}
			return
		}
		candidateTypes{}.addSDP(d.SDP)
	})
}
