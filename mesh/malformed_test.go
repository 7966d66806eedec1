package mesh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/infrafabric/agentmesh/internal/cbor"
	"github.com/infrafabric/agentmesh/signaling"
)

// TestSignatureMembers: a signature whose member is missing, of another type, or another
// value than what was signed with is refused, and the error names the member.
func TestSignatureMembers(t *testing.T) {
	msgs := goldenSigned(t)
	whole, err := json.Marshal(&msgs[0])
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]json.RawMessage
	var members map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal(whole, &fields), json.Unmarshal(fields["signature"], &members)); err != nil {
		t.Fatal(err)
	}
	read := func(members map[string]json.RawMessage) error {
		t.Helper()
		with := maps.Clone(fields)
		sig, err := json.Marshal(members)
		if err != nil {
			t.Fatal(err)
		}
		with["signature"] = sig
		b, err := json.Marshal(with)
		if err != nil {
			t.Fatal(err)
		}
		return new(Message).UnmarshalJSON(b)
	}
	if err := read(members); err != nil || len(members) != len(signatureFields) {
		t.Fatalf("%d members: %v", len(members), err)
	}
	for name := range members {
		others := []string{"null", "true", "false", "{}", "[1]", "[null]", "1.5", "-1", "1e3", `"x"`, "4294967296"}
		if name == "mesh" {
			others = []string{"null", "true", "{}", "[1]", "1.5"} // any text is a mesh, though not the one that was signed for
		}
		for _, other := range others {
			changed := maps.Clone(members)
			changed[name] = json.RawMessage(other)
			var me *MessageError
			if err := read(changed); !errors.As(err, &me) || !strings.HasPrefix(me.Field, "signature") {
				t.Errorf("%s %s: %v", name, other, err)
			}
		}
		without := maps.Clone(members)
		delete(without, name)
		var me *MessageError
		if err := read(without); !errors.As(err, &me) || me.Field != "signature" || !strings.Contains(me.Reason, name) {
			t.Errorf("without %s: %v", name, err)
		}
	}
	for text, kind := range map[string]string{"null": "null", "true": "true", "false": "false", "{}": "an object", "[]": "an array", "7": "7"} {
		changed := maps.Clone(members)
		changed["index"] = json.RawMessage(text)
		if err := read(changed); err == nil || !strings.Contains(err.Error(), "is "+kind+", not an integer") && kind != "7" {
			t.Errorf("index %s: %v", text, err)
		}
	}
	with := maps.Clone(members)
	with["more"] = json.RawMessage("1")
	var me *MessageError
	if err := read(with); !errors.As(err, &me) || me.Field != "signature.more" {
		t.Errorf("a member more: %v", err)
	}
}

// TestMessageMembers: members of a message that are of another type are refused by name.
func TestMessageMembers(t *testing.T) {
	msgs := goldenSigned(t)
	whole, err := json.Marshal(&msgs[0])
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(whole, &fields); err != nil {
		t.Fatal(err)
	}
	for name := range fields {
		if name == "payload" {
			continue // which is any value
		}
		for _, other := range []string{"{}", "[1]", "true", "-1.5"} {
			changed := maps.Clone(fields)
			changed[name] = json.RawMessage(other)
			b, err := json.Marshal(changed)
			if err != nil {
				t.Fatal(err)
			}
			var me *MessageError
			if err := new(Message).UnmarshalJSON(b); !errors.As(err, &me) || me.Field != name && !strings.HasPrefix(me.Field, "signature") {
				if _, extra := msgs[0].Extra[name]; !extra {
					t.Errorf("%s %s: %v", name, other, err)
				}
			}
		}
	}
}

// TestOtherFormats: hellos and records of another version or flow, and numbers beyond
// their range, are refused as what they are.
func TestOtherFormats(t *testing.T) {
	var ve *VersionError
	h := goldenFrames(t)["hello"]
	f, err := decodeHelloFrame(h)
	if err != nil {
		t.Fatal(err)
	}
	body := append([]byte(nil), f.Body...)
	body[1] = 2 // [version, …]
	if _, err := decodeHelloBody(body); !errors.As(err, &ve) || ve.Format != "hello" || ve.Ours != "1" || ve.Theirs != "2" || !errors.Is(err, ErrProtocol) {
		t.Errorf("hello of version 2: %v", err)
	}
	id := fixedIdentity(t, "agent-b")
	sig, err := id.Sign(helloStatement("golden", "agent-b", "agent-a", body))
	if err != nil {
		t.Fatal(err)
	}
	other := helloFrame{Body: body, Signature: sig}
	if _, err := verifyHello(other.encode(), id.PublicKey(), goldenBinding()); !errors.As(err, &ve) {
		t.Errorf("signed hello of version 2: %v", err)
	}
	for name, b := range map[string][]byte{"junk": {0xff}, "nothing": nil, "an echo": goldenFrames(t)["echo"], "cut": h[:len(h)-1]} {
		if got, err := verifyHello(b, id.PublicKey(), goldenBinding()); !errors.Is(err, ErrProtocol) || got != nil {
			t.Errorf("%s: %v", name, err)
		}
	}

	m := goldenSigned(t)[0]
	rec := encodeRecord(&m)
	if _, err := decodeRecord(rec, "agent-a", "agent-b"); err != nil {
		t.Fatal(err)
	}
	at := 2 // the first character of the version, behind the headers of array and text
	changed := append([]byte(nil), rec...)
	if changed[at] != messageVersion[0] {
		t.Fatalf("record begins with %x", rec[:8])
	}
	changed[at] = '3'
	if _, err := decodeRecord(changed, "agent-a", "agent-b"); !errors.As(err, &ve) || ve.Format != "record" || ve.Ours != messageVersion || ve.Theirs != "3"+messageVersion[1:] {
		t.Errorf("record of version 3: %v", err)
	}
	changed = append([]byte(nil), rec...)
	changed[at+len(messageVersion)] = 1 // the flow
	if _, err := decodeRecord(changed, "agent-a", "agent-b"); !errors.Is(err, ErrProtocol) || !strings.Contains(err.Error(), "flow 1") {
		t.Errorf("record of flow 1: %v", err)
	}
	for _, n := range []int64{math.MinInt32, math.MaxInt32, math.MinInt32 - 1, math.MaxInt32 + 1} {
		level := int(n)
		if int64(level) != n {
			continue // an int has 32 bits here
		}
		m := m
		m.Level = level
		got, err := decodeRecord(encodeRecord(&m), "agent-a", "agent-b")
		fits := level >= math.MinInt32 && level <= math.MaxInt32
		if fits && (err != nil || got.Level != level) || !fits && !errors.Is(err, ErrProtocol) {
			t.Errorf("level %d: %d, %v", level, got.Level, err)
		}
	}
}

// TestRefusalTexts: what the other side says in a reject, and what this side says of its
// own errors.
func TestRefusalTexts(t *testing.T) {
	sealed := func(b []byte) *signaling.Sealed {
		return &signaling.Sealed{Envelope: signaling.Envelope{From: "agent-b", Body: b}}
	}
	for want, body := range map[string]*rejectBody{
		"refused by the other side: why":                     {Code: rejectUntrusted, Text: "why"},
		"replaced by a newer process with the same identity": {Code: rejectReplaced, Text: "why"},
		"the other side is busy: why":                        {Code: rejectBusy, Text: "why"},
		"the other side cannot read the offer: why":          {Code: rejectMalformed, Text: "why"},
		"the other side cannot answer: why":                  {Code: rejectUnable, Text: "why"},
		"closed by the other side":                           {Code: rejectClosed, Text: "why"},
	} {
		err := rejected(sealed(body.encode()))
		if err.Error() != want {
			t.Errorf("code %d: %v", body.Code, err)
		}
		var r *rejectedError
		final := body.Code == rejectUntrusted || body.Code == rejectReplaced || body.Code == rejectClosed
		if !errors.As(err, &r) || r.final() != final {
			t.Errorf("code %d is final: %v", body.Code, !final)
		}
		for _, target := range []error{ErrRefused, ErrReplaced, ErrPeerClosed} {
			is := target == map[rejectCode]error{rejectUntrusted: ErrRefused, rejectReplaced: ErrReplaced, rejectClosed: ErrPeerClosed}[body.Code]
			if errors.Is(err, target) != is {
				t.Errorf("code %d matches %v: %v", body.Code, target, !is)
			}
		}
	}
	if err := rejected(sealed([]byte{0xff})); !errors.Is(err, ErrProtocol) {
		t.Errorf("junk: %v", err)
	}
	for _, c := range []struct {
		err  error
		code rejectCode
		says string
	}{
		{protocolErrorf("junk"), rejectMalformed, "junk"},
		{fmt.Errorf("socket: %w", syscall.EMFILE), rejectUnable, "no file descriptors"},
		{fmt.Errorf("socket: %w", syscall.ENFILE), rejectUnable, "no file descriptors"},
		{fmt.Errorf("socket: %w", syscall.ENOBUFS), rejectUnable, "no memory"},
		{fmt.Errorf("socket: %w", syscall.ENOMEM), rejectUnable, "no memory"},
		{errors.New("10.1.2.3 is secret"), rejectUnable, "its log says why"},
	} {
		if code, text := unable(c.err); code != c.code || !strings.Contains(text, c.says) || strings.Contains(text, "10.1.2.3") {
			t.Errorf("%v: %d %q", c.err, code, text)
		}
	}
	undelivered := &UndeliveredError{Peer: "agent-b", IDs: []string{"1", "2"}}
	if got := undelivered.Error(); !strings.HasSuffix(got, "2 messages to agent-b were not acknowledged as delivered") || errors.Is(undelivered, io.EOF) {
		t.Error(got)
	}
	undelivered.Err = io.EOF
	if !strings.HasSuffix(undelivered.Error(), "delivered: EOF") || !errors.Is(undelivered, io.EOF) {
		t.Error(undelivered)
	}
}

// TestUnknownReasons: a reason of a later version counts as requested, in offers and asks.
func TestUnknownReasons(t *testing.T) {
	for v := range uint64(260) {
		r := cbor.NewReader(cbor.AppendUint(nil, v))
		want, fits := Reason(v), v < 256
		if v >= uint64(reasonEnd) {
			want = ReasonRequested
		}
		if got := readReason(r); fits && got != want || (r.Err() == nil) != fits {
			t.Errorf("%d is %v, %v", v, got, r.Err())
		}
	}
	if got := reasonEnd.String(); got != fmt.Sprintf("reason_%d", uint8(reasonEnd)) || (reasonEnd-1).String() != "ended" {
		t.Error(got)
	}
	if got := (StateClosed + 1).String(); got != fmt.Sprintf("state_%d", uint8(StateClosed)+1) {
		t.Error(got)
	}
	names := map[string]bool{}
	for s := range StateClosed + 1 {
		names[s.String()] = true
	}
	if len(names) != int(StateClosed)+1 {
		t.Errorf("states share names: %v", names)
	}
}

// TestGoesOn: an offer or ask of any reason but a dial is to go on with a Peer.
func TestGoesOn(t *testing.T) {
	for why := range reasonEnd {
		for kind, body := range map[signaling.Kind][]byte{
			signaling.Offer: (&descriptionBody{SDP: "v=0\r\n", Reason: why, Relay: "r"}).encode(),
			signaling.Ask:   (&askBody{Reason: why}).encode(),
		} {
			if got := goesOn(&signaling.Sealed{Envelope: signaling.Envelope{Kind: kind, Body: body}}); got != (why != ReasonDial) {
				t.Errorf("%v for %v: %v", kind, why, got)
			}
			if goesOn(&signaling.Sealed{Envelope: signaling.Envelope{Kind: kind, Body: body[:1]}}) {
				t.Errorf("%v without a body goes on", kind)
			}
		}
	}
}

// TestCandidateTypes: candidates are counted once each, by their type.
func TestCandidateTypes(t *testing.T) {
	types := candidateTypes{}
	types.addSDP("v=0\r\na=candidate:1 1 udp 1 10.0.0.1 5 typ host\r\na=candidate:1 2 udp 1 10.0.0.1 5 typ host\r\n" +
		"a=candidate:2 1 udp 1 10.0.0.1 5 typ srflx raddr 0.0.0.0 rport 0\r\na=mid:0\r\n")
	for _, c := range []string{"candidate:", "candidate:3 1", "candidate:3 1 udp 1 10.0.0.1 5 typ", "x:3 1 udp 1 10.0.0.1 5 typ relay", "candidate:4 1 udp 1 10.0.0.1 5 typ relay"} {
		types.add(c)
	}
	if got := types.String(); got != "1 host, 1 srflx, 1 relay" {
		t.Error(got)
	}
	if got := (candidateTypes{}).String(); got != "none" {
		t.Error(got)
	}
}

// TestMalformedFrames: a frame that ends too early, whatever its kind, ends the session as
// a protocol error; what a goodbye says is cut.
func TestMalformedFrames(t *testing.T) {
	for kind, frame := range goldenFrames(t) {
		if kind == "hello" {
			continue
		}
		inDuel(t, func(t *testing.T, d *duel) {
			w := d.connect()
			p := d.accept()
			w.put(frame[:len(frame)-1])
			w.ended(p, ErrProtocol)
		})
	}
	inDuel(t, func(t *testing.T, d *duel) {
		w := d.connect()
		p := d.accept()
		w.put((&goodbyeFrame{Code: goodbyeClosed, Text: strings.Repeat("x", maxReason)}).encode())
		synctest.Wait()
		if cause := context.Cause(p.Context()); !errors.Is(cause, ErrPeerClosed) || !strings.Contains(cause.Error(), ": xxx") || len(cause.Error()) > maxReason {
			t.Error(cause)
		}
	})
}

// TestManyFields: as many citations and further members as the limits allow, and one more.
func TestManyFields(t *testing.T) {
	for more := range 2 {
		m := Message{Extra: map[string]json.RawMessage{}}
		for i := range maxExtra + more {
			m.Extra[fmt.Sprint("x", i)] = json.RawMessage("1")
		}
		_, err := m.prepare(t.Context(), "agent-a", "agent-b", time.Now(), nil)
		var me *MessageError
		if more == 0 && err != nil || more == 1 && (!errors.As(err, &me) || me.Field != "extra" || me.Size != maxExtra+1 || me.Limit != maxExtra) {
			t.Errorf("%d members more: %v", maxExtra+more, err)
		}
		m = Message{CitationIDs: make([]string, maxCitations+more)}
		_, err = m.prepare(t.Context(), "agent-a", "agent-b", time.Now(), nil)
		if more == 0 && err != nil || more == 1 && (!errors.As(err, &me) || me.Field != "citation_ids" || me.Size != maxCitations+1 || me.Limit != maxCitations) {
			t.Errorf("%d citations: %v", maxCitations+more, err)
		}
		m = Message{CitationIDs: []string{"ok", strings.Repeat("x", maxCitationLen+more)}}
		_, err = m.prepare(t.Context(), "agent-a", "agent-b", time.Now(), nil)
		if more == 0 && err != nil || more == 1 && (!errors.As(err, &me) || me.Field != "citation_ids") {
			t.Errorf("a citation of %d bytes: %v", maxCitationLen+more, err)
		}
	}
}

// TestPrintable: what a stranger wrote is shown as printable ASCII, and no more than a little of it.
func TestPrintable(t *testing.T) {
	for c := range 256 {
		want := "?"
		if c >= ' ' && c <= '~' {
			want = string(rune(c))
		}
		if got := printable(string([]byte{byte(c)})); got != want {
			t.Errorf("%#x is shown as %q", c, got)
		}
	}
	for n, want := range map[int]int{0: 0, maxHelloText: maxHelloText, maxHelloText + 1: maxHelloText} {
		if got := safeText(strings.Repeat("x", n)); len(got) != want {
			t.Errorf("%d characters are shown as %d", n, len(got))
		}
	}
}
