package mesh

import (
	"fmt"
	"strings"
	"time"

	"github.com/infrafabric/agentmesh/internal/cbor"
	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
)

// The bodies of envelopes, CBOR arrays. Envelope versions them.
type (
	// descriptionBody is the body of an offer and of an answer.
	descriptionBody struct {
		SDP         string
		Fingerprint keys.Fingerprint // of the author's DTLS certificate
		Reason      Reason           // why the session is made; an answer repeats it
		Relay       string           // the TURN server that the author uses, "" for none
		Avoid       avoid            // what did no good; in an answer only avoidFull, for this session
	}
	// askBody says why its author wants an offer.
	askBody struct {
		Reason Reason
		Avoid  avoid
	}
	// candidateBody carries candidates found after the description left.
	candidateBody struct {
		Candidates []string // candidate-attribute values (RFC 8839 §5.1)
	}
	// rejectBody says that an offer will not be answered, or an ask not heeded.
	rejectBody struct {
		Code rejectCode
		Text string
		// Where time is the reason: that of the envelope, and of its recipient's clock,
		// in milliseconds since 1970; 0 otherwise.
		Theirs, Ours uint64
	}
)

// rejectCode says why an offer is not answered.
type rejectCode uint8

const (
	rejectUntrusted rejectCode = 1 // the offerer's key is not trusted
	rejectReplaced  rejectCode = 2 // a newer instance of the offerer is known
	rejectBusy      rejectCode = 3 // a limit; try again later
	rejectClock     rejectCode = 4 // the clocks are too far apart
	rejectMalformed rejectCode = 5 // the offer makes no sense to its recipient
	rejectUnable    rejectCode = 6 // something is wrong with the recipient
	rejectClosed    rejectCode = 7 // the recipient has closed the Peer that it is to go on with
)

// rejectedError is a verified reject.
type rejectedError struct {
	code  rejectCode
	text  string
	clock *ClockError // with rejectClock
}

// rejected reads what a verified reject says.
func rejected(e *signaling.Sealed) error {
	b, err := decodeReject(e.Body)
	if err != nil {
		return err
	}
	r := &rejectedError{code: b.Code, text: printable(b.Text)}
	if b.Code == rejectClock {
		r.clock = &ClockError{Peer: e.From, Theirs: time.UnixMilli(int64(b.Ours)).UTC(), Ours: time.UnixMilli(int64(b.Theirs)).UTC()}
	}
	return r
}

func (e *rejectedError) Error() string {
	switch e.code {
	case rejectUntrusted:
		return ErrRefused.Error() + ": " + e.text
	case rejectReplaced:
		return ErrReplaced.Error()
	case rejectClosed:
		return ErrPeerClosed.Error()
	case rejectClock:
		return e.clock.Error()
	case rejectMalformed:
		return "the other side cannot read the offer: " + e.text
	case rejectUnable:
		return "the other side cannot answer: " + e.text
	}
	return "the other side is busy: " + e.text
}

func (e *rejectedError) Unwrap() error {
	switch e.code {
	case rejectUntrusted:
		return ErrRefused
	case rejectReplaced:
		return ErrReplaced
	case rejectClosed:
		return ErrPeerClosed
	case rejectClock:
		return e.clock
	}
	return nil
}

// final reports whether trying again is pointless.
func (e *rejectedError) final() bool {
	return e.code == rejectUntrusted || e.code == rejectReplaced || e.code == rejectClosed
}

// goesOn reports whether an offer or ask is to go on with a Peer that its author has,
// and not to make one.
func goesOn(e *signaling.Sealed) bool {
	r := cbor.NewReader(e.Body)
	if e.Kind == signaling.Ask {
		r.Array(2)
	} else {
		r.Array(5)
		r.Text(maxSDP)
		r.Fixed(make([]byte, len(keys.Fingerprint{})))
	}
	return readReason(r) != ReasonDial && r.Err() == nil
}

func (d *descriptionBody) encode() []byte {
	b := cbor.AppendBytes(cbor.AppendText(cbor.AppendArray(nil, 5), d.SDP), d.Fingerprint[:])
	return cbor.AppendUint(cbor.AppendText(cbor.AppendUint(b, uint64(d.Reason)), d.Relay), uint64(d.Avoid))
}

func (a *askBody) encode() []byte {
	return cbor.AppendUint(cbor.AppendUint(cbor.AppendArray(nil, 2), uint64(a.Reason)), uint64(a.Avoid))
}

func decodeAsk(b []byte) (a askBody, err error) {
	r := cbor.NewReader(b)
	r.Array(2)
	a.Reason, a.Avoid = readReason(r), avoid(r.UintMax(255))
	return a, bodyDone(r)
}

// readReason reads a reason. One that this version does not know makes no
// difference to what is done.
func readReason(r *cbor.Reader) Reason {
	if v := r.UintMax(255); v < uint64(reasonEnd) {
		return Reason(v)
	}
	return ReasonRequested
}

func (c *candidateBody) encode() []byte {
	b := cbor.AppendArray(cbor.AppendArray(nil, 1), len(c.Candidates))
	for _, s := range c.Candidates {
		b = cbor.AppendText(b, s)
	}
	return b
}

func decodeCandidates(b []byte) (c candidateBody, err error) {
	r := cbor.NewReader(b)
	r.Array(1)
	for range r.ArrayMax(maxListed) {
		// One that is too long is ignored by itself.
		c.Candidates = append(c.Candidates, r.Text(maxSDP))
	}
	return c, bodyDone(r)
}

func (j *rejectBody) encode() []byte {
	b := cbor.AppendText(cbor.AppendUint(cbor.AppendArray(nil, 4), uint64(j.Code)), j.Text)
	return cbor.AppendUint(cbor.AppendUint(b, j.Theirs), j.Ours)
}

func decodeReject(b []byte) (j rejectBody, err error) {
	r := cbor.NewReader(b)
	r.Array(4)
	j.Code, j.Text = rejectCode(r.UintMax(255)), r.Text(maxReason)
	j.Theirs, j.Ours = r.UintMax(maxMillis), r.UintMax(maxMillis)
	return j, bodyDone(r)
}

// bodyDone ends reading a body.
func bodyDone(r *cbor.Reader) error {
	if err := r.Done(); err != nil {
		return protocolErrorf("envelope body: %v", err)
	}
	return nil
}

// decodeDescription reads the body of an offer or answer and checks that its
// SDP names the signed fingerprint and no other. (A session-level fingerprint
// would override a media-level one: RFC 8122 §5.)
func decodeDescription(b []byte) (*descriptionBody, error) {
	r := cbor.NewReader(b)
	r.Array(5)
	d := &descriptionBody{SDP: r.Text(maxSDP)}
	r.Fixed(d.Fingerprint[:])
	d.Reason, d.Relay = readReason(r), printable(r.Text(maxRelayName))
	d.Avoid = avoid(r.UintMax(255))
	if err := bodyDone(r); err != nil {
		return nil, err
	}
	found := 0
	for line := range sdpLines(d.SDP) {
		if strings.HasPrefix(line, "m=") && !strings.HasPrefix(line, "m=application ") {
			return nil, protocolErrorf("description of media, for which nobody asked")
		}
		value, ok := strings.CutPrefix(line, "a=fingerprint:")
		if !ok {
			continue
		}
		found++
		algorithm, hex, _ := strings.Cut(value, " ")
		fp, err := keys.ParseFingerprint(hex)
		if err != nil || !strings.EqualFold(algorithm, "sha-256") || fp != d.Fingerprint {
			return nil, protocolErrorf("description names another fingerprint than its envelope")
		}
	}
	if found == 0 {
		return nil, protocolErrorf("description without fingerprint")
	}
	return d, nil
}

// candidateTypes counts the candidates of a description or list by type, for
// errors that say what was tried.
type candidateTypes map[string]int

func (t candidateTypes) addSDP(sdp string) {
	for line := range strings.Lines(sdp) {
		if c, ok := strings.CutPrefix(strings.TrimSpace(line), "a="); ok {
			t.add(c)
		}
	}
}

// add counts a candidate-attribute value: "candidate:… typ host …".
func (t candidateTypes) add(candidate string) {
	if !strings.HasPrefix(candidate, "candidate:") {
		return
	}
	f := strings.Fields(candidate)
	if len(f) < 2 || f[1] != "1" {
		return // pion lists each candidate for RTCP as well
	}
	for i := 0; i+1 < len(f); i++ {
		if f[i] == "typ" {
			t[safeText(f[i+1])]++
			return
		}
	}
}

func (t candidateTypes) String() string {
	var parts []string
	for _, typ := range []string{"host", "srflx", "prflx", "relay"} {
		if t[typ] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", t[typ], typ))
		}
	}
	if parts == nil {
		return "none"
	}
	return strings.Join(parts, ", ")
}
