package signaling

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/keys"
)

var update = flag.Bool("update", false, "rewrite the golden vectors")

// fixedIdentity is the same at every run: its key is made from seed.
func fixedIdentity(t testing.TB, id string, seed byte) *keys.Identity {
	t.Helper()
	i, err := keys.NewIdentity(id, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func fixedEnvelope(t testing.TB) Envelope {
	return Envelope{
		Kind: Offer, Mesh: "acme-prod", To: "agent-b", ToKey: fixedIdentity(t, "agent-b", 2).PublicKey(),
		Instance: Instance{1, 2, 3}, Generation: 7, Nonce: Nonce{9, 8, 7},
		Time: time.Date(2026, 11, 23, 10, 0, 0, 123e6, time.UTC), Body: []byte("v=0"),
	}
}

func fixedSealed(t testing.TB) *Sealed {
	t.Helper()
	s, err := Seal(fixedIdentity(t, "agent-a", 1), fixedEnvelope(t))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// vectors returns one encoded value of every format, by name.
func vectors(t testing.TB) map[string][]byte {
	t.Helper()
	a := fixedIdentity(t, "agent-a", 1)
	reg := &registerMsg{Version: 1, Type: typeRegister, Mesh: "acme-prod", Agent: "agent-a", Key: a.PublicKey().Bytes(),
		Instance: Instance{1, 2, 3}, Server: "s1.example:8443", Yield: 1}
	sig, err := a.Sign(reg.statement([32]byte{4, 5, 6}))
	if err != nil {
		t.Fatal(err)
	}
	reg.Signature = sig
	offer := fixedSealed(t)
	e := fixedEnvelope(t)
	e.Kind, e.Ref, e.ToKey = Answer, offer.Hash(), keys.PublicKey{}
	answer, err := Seal(a, e)
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{
		"challenge": encode(&challengeMsg{Version: 1, Type: typeChallenge, Nonce: [32]byte{4, 5, 6}}),
		"register":  encode(reg),
		"welcome": encode(&welcomeMsg{Version: 1, Type: typeWelcome, MaxEnvelope: 65536, Idle: 60000, Rate: 50, Burst: 200,
			Time: 1_795_428_000_123}),
		"envelope": encodeEnvelopeMsg(offer.Bytes()),
		"presence": encode(&presenceMsg{Version: 1, Type: typePresence, Change: joined,
			Agents: []presentAgent{{Agent: "agent-a", Key: a.PublicKey().Bytes()}}}),
		"notice":        Notice{Code: CodeNotRegistered, Text: "nobody", Ref: offer.Hash(), Time: e.Time}.encode(),
		"notice-no-ref": Notice{Code: CodeReplaced, Text: "newer"}.encode(),
		"sealed-offer":  offer.Bytes(),
		"sealed-answer": answer.Bytes(),
	}
}

// parseAny reads the vector called name.
func parseAny(name string, b []byte) error {
	if strings.HasPrefix(name, "sealed") {
		_, err := Parse(b)
		return err
	}
	_, err := decodeMessage(b)
	return err
}

func TestGoldenVectors(t *testing.T) {
	for name, got := range vectors(t) {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join("testdata", "v1", name+".hex")
			if *update {
				if err := os.WriteFile(file, []byte(hex.EncodeToString(got)+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want, err := hex.DecodeString(strings.TrimSpace(string(text)))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("encoded as\n%x\nwant\n%x", got, want)
			}
			if err := parseAny(name, want); err != nil {
				t.Errorf("the vector is refused: %v", err)
			}
			if strings.HasPrefix(name, "sealed") {
				s, err := Parse(want)
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Verify(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestEveryVectorFileIsTested(t *testing.T) {
	files, err := filepath.Glob("testdata/v1/*.hex")
	if err != nil {
		t.Fatal(err)
	}
	all := vectors(t)
	for _, f := range files {
		if name := strings.TrimSuffix(filepath.Base(f), ".hex"); all[name] == nil {
			t.Errorf("no test makes %s", f)
		}
	}
	if len(files) != len(all) {
		t.Errorf("%d files, %d vectors", len(files), len(all))
	}
}

func TestEveryTruncationAndExtensionIsAnError(t *testing.T) {
	for name, b := range vectors(t) {
		for n := range b {
			if parseAny(name, b[:n]) == nil {
				t.Errorf("%s cut to %d of %d bytes is accepted", name, n, len(b))
			}
		}
		if parseAny(name, append(bytes.Clone(b), 0)) == nil {
			t.Errorf("%s with a byte more is accepted", name)
		}
	}
}

// Whatever single bit is changed, an envelope is refused by Parse or Verify, or
// at least has another hash and another content that is signed: none of them
// passes as the original.
func TestEveryBitOfAnEnvelopeIsCovered(t *testing.T) {
	b := fixedSealed(t).Bytes()
	for i := range len(b) * 8 {
		c := bytes.Clone(b)
		c[i/8] ^= 1 << (i % 8)
		s, err := Parse(c)
		if err != nil {
			continue
		}
		if err := s.Verify(); !errors.Is(err, keys.ErrBadSignature) {
			t.Errorf("bit %d changed: Verify = %v", i, err)
		}
	}
}

func TestSealParseRoundTrip(t *testing.T) {
	s := fixedSealed(t)
	got, err := Parse(s.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.Envelope, s.Envelope) {
		t.Errorf("got %+v\nwant %+v", got.Envelope, s.Envelope)
	}
	if got.Hash() != s.Hash() || got.Hash() != HashOf(s.Bytes()) {
		t.Error("hashes differ")
	}
	s.Bytes()[0] = 0
	if err := s.Verify(); err != nil || s.Bytes()[0] == 0 {
		t.Error("Bytes is no copy")
	}
}

func TestSealFillsIn(t *testing.T) {
	a := fixedIdentity(t, "agent-a", 1)
	e := fixedEnvelope(t)
	e.Nonce, e.From, e.Key = Nonce{}, "agent-x", e.ToKey
	e.Time = time.Date(2026, 11, 23, 11, 0, 0, 123456789, time.FixedZone("", 3600))
	s, err := Seal(a, e)
	if err != nil {
		t.Fatal(err)
	}
	if s.Nonce.IsZero() || s.From != "agent-a" || s.Key != a.PublicKey() {
		t.Errorf("got %+v", s.Envelope)
	}
	if want := time.Date(2026, 11, 23, 10, 0, 0, 123e6, time.UTC); s.Time != want {
		t.Errorf("Time = %v, want %v", s.Time, want)
	}
	again, err := Seal(a, e)
	if err != nil {
		t.Fatal(err)
	}
	if again.Nonce == s.Nonce {
		t.Error("two envelopes with one nonce")
	}
}

// A signature for one kind, mesh, author or recipient is none for another.
func TestSignatureIsBoundToItsPurpose(t *testing.T) {
	for name, change := range map[string]func(*Sealed){
		"kind": func(s *Sealed) { s.Kind = Ask },
		"mesh": func(s *Sealed) { s.Mesh = "other" },
		"from": func(s *Sealed) { s.From = "agent-x" },
		"to":   func(s *Sealed) { s.To = "agent-x" },
		"key":  func(s *Sealed) { s.Key = s.ToKey },
	} {
		s := fixedSealed(t)
		change(s)
		if err := s.Verify(); !errors.Is(err, keys.ErrBadSignature) {
			t.Errorf("%s changed: %v", name, err)
		}
	}
}

func TestEnvelopeRules(t *testing.T) {
	a := fixedIdentity(t, "agent-a", 1)
	for field, change := range map[string]func(*Envelope){
		"Kind":     func(e *Envelope) { e.Kind = 6 },
		"Mesh":     func(e *Envelope) { e.Mesh = "" },
		"To":       func(e *Envelope) { e.To = "agent-a" },
		"To ":      func(e *Envelope) { e.To = "*" },
		"Instance": func(e *Envelope) { e.Instance = Instance{} },
		"Time":     func(e *Envelope) { e.Time = time.Unix(-1, 0) },
		"Time ":    func(e *Envelope) { e.Time = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"Ref":      func(e *Envelope) { e.Ref = Hash{1} },
		"Ref ":     func(e *Envelope) { e.Kind = Candidate },
	} {
		e := fixedEnvelope(t)
		change(&e)
		_, err := Seal(a, e)
		var fe *FormatError
		if !errors.As(err, &fe) || fe.What != strings.TrimSpace(field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	if _, err := Seal(nil, fixedEnvelope(t)); err == nil {
		t.Error("sealed without an identity")
	}
}

// TestEnvelopeKeys: neither the author's key nor the recipient's may be anything but a
// key; the latter may be missing.
func TestEnvelopeKeys(t *testing.T) {
	a, e := fixedIdentity(t, "agent-a", 1), fixedEnvelope(t)
	for name, x := range map[string]struct {
		key, toKey []byte
		bad        string
	}{
		"both":              {a.PublicKey().Bytes(), e.ToKey.Bytes(), ""},
		"no recipient":      {a.PublicKey().Bytes(), nil, ""},
		"no author":         {nil, nil, "Key"},
		"a short author":    {a.PublicKey().Bytes()[:31], nil, "Key"},
		"a short recipient": {a.PublicKey().Bytes(), e.ToKey.Bytes()[:31], "ToKey"},
		"a long recipient":  {a.PublicKey().Bytes(), append(e.ToKey.Bytes(), 0), "ToKey"},
	} {
		raw := encode(&sealed{Version: version, Signature: make([]byte, 64), Payload: encode(&payload{
			Kind: uint64(e.Kind), Mesh: e.Mesh, From: "agent-a", To: e.To, Key: x.key, ToKey: x.toKey, Instance: e.Instance,
			Generation: e.Generation, Nonce: e.Nonce, Time: uint64(e.Time.UnixMilli()), Body: e.Body,
		})})
		_, err := Parse(raw)
		var fe *FormatError
		if x.bad == "" && err != nil || x.bad != "" && (!errors.As(err, &fe) || fe.What != x.bad) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSpread: a pause is within a fifth of what is wanted, on either side.
func TestSpread(t *testing.T) {
	shorter, longer := 0, 0
	for range 1000 {
		switch d := spread(time.Second); {
		case d < 800*time.Millisecond || d > 1200*time.Millisecond:
			t.Fatalf("%v", d)
		case d < 900*time.Millisecond:
			shorter++
		case d > 1100*time.Millisecond:
			longer++
		}
	}
	if shorter < 100 || longer < 100 {
		t.Errorf("of 1000 pauses %d are shorter by a tenth, %d longer", shorter, longer)
	}
}

func TestEnvelopeSize(t *testing.T) {
	a := fixedIdentity(t, strings.Repeat("a", 255), 1)
	e := fixedEnvelope(t)
	e.Kind, e.Ref = Answer, Hash{1}
	e.To, e.Mesh = strings.Repeat("b", 255), strings.Repeat("m", 255)
	e.Generation = 1<<64 - 1
	e.Body = make([]byte, MaxBody)
	s, err := Seal(a, e)
	if err != nil {
		t.Fatalf("the greatest body under the longest names: %v", err)
	}
	if n := len(encodeEnvelopeMsg(s.Bytes())); n > MaxMessage {
		t.Errorf("message of %d bytes", n)
	}
	e.Body = make([]byte, MaxBody+1)
	if _, err := Seal(a, e); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a byte more: %v", err)
	}
	if _, err := Parse(make([]byte, MaxEnvelope+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("Parse: %v", err)
	}
	if _, err := decodeMessage(make([]byte, MaxMessage+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("decodeMessage: %v", err)
	}
}

func TestUnknownVersionsAndTypes(t *testing.T) {
	var ve *VersionError
	future := encode(&challengeMsg{Version: 2, Type: typeChallenge, Nonce: [32]byte{1}})
	if _, err := decodeMessage(future); !errors.As(err, &ve) || *ve != (VersionError{Ours: 1, Theirs: 2}) {
		t.Errorf("message of version 2: %v", err)
	}
	unknown := encode(&challengeMsg{Version: 1, Type: 99, Nonce: [32]byte{1}})
	if _, err := decodeMessage(unknown); !errors.As(err, &ve) || *ve != (VersionError{Ours: 1, Theirs: 1, Type: 99}) {
		t.Errorf("message of type 99: %v", err)
	}
	if _, err := Parse(encode(&sealed{Version: 3, Payload: []byte{1}})); !errors.As(err, &ve) || ve.Theirs != 3 {
		t.Errorf("envelope of version 3: %v", err)
	}
}

// None of these is the one encoding of a value.
func TestOnlyDeterministicEncoding(t *testing.T) {
	zeros := strings.Repeat("00", 31)
	for name, s := range map[string]string{
		"version in two bytes":         "83" + "1801" + "01" + "5820" + "01" + zeros,
		"length in three bytes":        "83" + "01" + "01" + "590020" + "01" + zeros,
		"indefinite array":             "9f" + "01" + "01" + "5820" + "01" + zeros + "ff",
		"indefinite string":            "83" + "01" + "01" + "5f5820" + "01" + zeros + "ff",
		"tag":                          "83" + "01" + "01" + "d818" + "5820" + "01" + zeros,
		"float version":                "83" + "f93c00" + "01" + "5820" + "01" + zeros,
		"nonce too short":              "83" + "01" + "01" + "581f" + "01" + zeros[2:],
		"nonce too long":               "83" + "01" + "01" + "5821" + "01" + zeros + "00",
		"nonce as text":                "83" + "01" + "01" + "7820" + "01" + zeros,
		"nonce null":                   "83" + "01" + "01" + "f6",
		"an element more":              "84" + "01" + "01" + "5820" + "01" + zeros + "00",
		"an element less":              "82" + "01" + "01",
		"map":                          "a1" + "01" + "01",
		"nothing":                      "",
		"null":                         "f6",
		"negative version":             "83" + "20" + "01" + "5820" + "01" + zeros,
		"nonce as array of integers":   "83" + "01" + "01" + "9820" + "01" + zeros,
		"trailing second message":      "83" + "01" + "01" + "5820" + "01" + zeros + "00",
		"notice with null ref":         "85" + "01" + "06" + "01" + "60" + "f6",
		"notice with text not in UTF8": "85" + "01" + "06" + "01" + "61ff" + "40",
	} {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(name, err)
		}
		m, err := decodeMessage(b)
		var fe *FormatError
		if !errors.As(err, &fe) {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
	good, _ := hex.DecodeString("83" + "01" + "01" + "5820" + "01" + zeros)
	if _, err := decodeMessage(good); err != nil {
		t.Errorf("the plain form: %v", err)
	}
}

// The empty string is the only way to say none.
func TestNoneHasOneEncoding(t *testing.T) {
	valid := func() payload {
		var outer sealed
		var p payload
		if err := decode("envelope", fixedSealed(t).Bytes(), &outer); err != nil {
			t.Fatal(err)
		}
		if err := decode("envelope", outer.Payload, &p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	for name, change := range map[string]func(*payload){
		"zero ref":      func(p *payload) { p.Ref = make([]byte, 32) },
		"short ref":     func(p *payload) { p.Kind, p.Ref = uint64(Answer), make([]byte, 31) },
		"zero to-key":   func(p *payload) { p.ToKey = make([]byte, 32) },
		"short to-key":  func(p *payload) { p.ToKey = p.ToKey[1:] },
		"no key":        func(p *payload) { p.Key = nil },
		"far future":    func(p *payload) { p.Time = maxTime + 1 },
		"beyond int64":  func(p *payload) { p.Time = 1<<64 - 1 },
		"kind 257":      func(p *payload) { p.Kind += 256 },
		"zero instance": func(p *payload) { p.Instance = Instance{} },
		"zero nonce":    func(p *payload) { p.Nonce = Nonce{} },
	} {
		p := valid()
		change(&p)
		_, err := Parse(encode(&sealed{Version: 1, Payload: encode(&p), Signature: make([]byte, 64)}))
		var fe *FormatError
		var ve *VersionError
		if !errors.As(err, &fe) && !errors.As(err, &ve) {
			t.Errorf("%s: %v", name, err)
		}
	}
	p := valid()
	if _, err := Parse(encode(&sealed{Version: 1, Payload: encode(&p), Signature: make([]byte, 64)})); err != nil {
		t.Errorf("unchanged: %v", err)
	}
	if _, err := Parse(encode(&sealed{Version: 1, Payload: encode(&p), Signature: make([]byte, 63)})); err == nil {
		t.Error("a short signature is accepted")
	}
}

func TestMessageRules(t *testing.T) {
	reg := func(change func(*registerMsg)) []byte {
		m, err := decodeMessage(vectors(t)["register"])
		if err != nil {
			t.Fatal(err)
		}
		change(m.(*registerMsg))
		return encode(m.(wired))
	}
	agents := make([]presentAgent, MaxPresenceBatch+1)
	for i := range agents {
		agents[i] = presentAgent{Agent: fmt.Sprint("a", i), Key: make([]byte, 32)}
	}
	for name, b := range map[string][]byte{
		"zero nonce":          encode(&challengeMsg{Version: 1, Type: 1}),
		"bad mesh":            reg(func(m *registerMsg) { m.Mesh = "a b" }),
		"bad agent":           reg(func(m *registerMsg) { m.Agent = "" }),
		"short key":           reg(func(m *registerMsg) { m.Key = m.Key[1:] }),
		"short signature":     reg(func(m *registerMsg) { m.Signature = m.Signature[1:] }),
		"no instance":         reg(func(m *registerMsg) { m.Instance = Instance{} }),
		"no server":           reg(func(m *registerMsg) { m.Server = "" }),
		"server not lower":    reg(func(m *registerMsg) { m.Server = "S1" }),
		"server default port": reg(func(m *registerMsg) { m.Server = "s1:443" }),
		"server too long":     reg(func(m *registerMsg) { m.Server = strings.Repeat("s", MaxServerName+1) }),
		"yield":               reg(func(m *registerMsg) { m.Yield = 2 }),
		"server beyond ASCII": reg(func(m *registerMsg) { m.Server = "bücher.example" }),
		"welcome time":        encode(&welcomeMsg{Version: 1, Type: 3, MaxEnvelope: 1, Idle: 1, Rate: 1, Burst: 1}),
		"welcome late":        encode(&welcomeMsg{Version: 1, Type: 3, MaxEnvelope: 1, Idle: 1, Rate: 1, Burst: 1, Time: maxTime + 1}),
		"notice late":         encode(&noticeMsg{Version: 1, Type: 6, Code: 1, Time: maxTime + 1}),
		"welcome size 0":      encode(&welcomeMsg{Version: 1, Type: 3, Idle: 1, Rate: 1, Burst: 1, Time: 1}),
		"welcome size":        encode(&welcomeMsg{Version: 1, Type: 3, MaxEnvelope: MaxEnvelope + 1, Idle: 1, Rate: 1, Burst: 1, Time: 1}),
		"welcome idle":        encode(&welcomeMsg{Version: 1, Type: 3, MaxEnvelope: 1, Rate: 1, Burst: 1, Time: 1}),
		"welcome rate":        encode(&welcomeMsg{Version: 1, Type: 3, MaxEnvelope: 1, Idle: 1, Burst: 1, Time: 1}),
		"welcome burst":       encode(&welcomeMsg{Version: 1, Type: 3, MaxEnvelope: 1, Idle: 1, Rate: 1, Burst: 1 << 60, Time: 1}),
		"empty envelope":      encode(&envelopeMsg{Version: 1, Type: 4}),
		"presence change":     encode(&presenceMsg{Version: 1, Type: 5, Change: 3, Agents: agents[:1]}),
		"presence empty":      encode(&presenceMsg{Version: 1, Type: 5, Change: 1}),
		"presence too many":   encode(&presenceMsg{Version: 1, Type: 5, Change: 1, Agents: agents}),
		"presence name":       encode(&presenceMsg{Version: 1, Type: 5, Change: 1, Agents: []presentAgent{{Agent: "*", Key: make([]byte, 32)}}}),
		"presence key":        encode(&presenceMsg{Version: 1, Type: 5, Change: 1, Agents: []presentAgent{{Agent: "a"}}}),
		"notice code 0":       encode(&noticeMsg{Version: 1, Type: 6}),
		"notice code 256":     encode(&noticeMsg{Version: 1, Type: 6, Code: 256}),
		"notice text":         encode(&noticeMsg{Version: 1, Type: 6, Code: 1, Text: strings.Repeat("x", MaxNoticeText+1)}),
		"notice ref":          encode(&noticeMsg{Version: 1, Type: 6, Code: 1, Ref: []byte{1}}),
		"notice zero ref":     encode(&noticeMsg{Version: 1, Type: 6, Code: 1, Ref: make([]byte, 32)}),
	} {
		var fe *FormatError
		if _, err := decodeMessage(b); !errors.As(err, &fe) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNoticeTextIsCutBetweenCharacters(t *testing.T) {
	b := Notice{Code: CodeRefused, Text: strings.Repeat("é", MaxNoticeText)}.encode()
	m, err := decodeMessage(b)
	if err != nil {
		t.Fatal(err)
	}
	if got := m.(*noticeMsg).Text; got != strings.Repeat("é", MaxNoticeText/2) {
		t.Errorf("%d bytes: %q", len(got), got)
	}
	if got := cut("aé", 2); got != "a" {
		t.Errorf("cut = %q", got)
	}
}

func TestNames(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range []fmt.Stringer{
		Offer, Answer, Candidate, Reject, Ask, Kind(0),
		CodeNotRegistered, CodeBadSender, CodeRateLimited, CodeTooLarge, CodeReplaced, CodeRefused,
		CodeDraining, CodeVersion, CodeProtocol, CodeWrongServer, CodeDuplicate, CodeUnavailable, Code(99),
		EventEnvelope, EventJoined, EventLeft, EventNotice, EventUp, EventDown, EventKind(99),
		StateConnecting, StateOpen, StateWaiting, StateRefused, StateReplaced, StateSpare, StateDuplicate, State(99),
	} {
		if s.String() == "" || seen[fmt.Sprintf("%T %s", s, s)] {
			t.Errorf("%T: %q is empty or not unique", s, s)
		}
		seen[fmt.Sprintf("%T %s", s, s)] = true
	}
}

func FuzzParse(f *testing.F) {
	for name, b := range vectors(f) {
		if strings.HasPrefix(name, "sealed") {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Parse(b)
		if err != nil {
			return
		}
		if !bytes.Equal(s.Bytes(), b) {
			t.Error("accepted bytes are not kept")
		}
		if err := s.check(); err != nil {
			t.Errorf("accepted against the rules: %v", err)
		}
		s.Verify()
	})
}

func FuzzMessage(f *testing.F) {
	for _, b := range vectors(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := decodeMessage(b); err == nil && !bytes.Equal(encode(m.(wired)), b) {
			t.Errorf("%x has another encoding: %x", b, encode(m.(wired)))
		}
	})
}
