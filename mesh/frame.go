package mesh

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/infrafabric/agentmesh/internal/cbor"
)

// frameVersion is the first element of every frame.
const frameVersion = 1

// frameKind is the second element of every frame. The package comment has the
// table.
type frameKind uint8

const (
	kindHello frameKind = iota
	kindBatch
	kindPart
	kindPositions
	kindSkip
	kindEcho
	kindGoodbye
	kindEnvelope
	kindPiece
	kindEnd // one past the last
)

// A frame is one message of the data channel: a CBOR array that begins with
// the version and the kind.
type (
	helloFrame struct {
		Body      []byte // what the signature is over, a helloBody
		Signature []byte
		// And zeros up to helloLeast bytes.
	}
	batchFrame struct {
		Signature []byte
		Records   [][]byte
		Positions []position // of the sender as a receiver; may be empty
	}
	partFrame struct {
		Total  uint64 // bytes of the whole batch frame
		Offset uint64 // where these bytes go; parts follow one another
		Bytes  []byte
	}
	positionsFrame struct {
		Positions []position
	}
	skipFrame struct {
		Flow   uint64
		Number uint64 // the next record's number
		Offset uint64 // bytes of all records before it, as credit counts them
	}
	echoFrame struct {
		Ping     uint64 // the sender's clock in microseconds, or 0 for none
		Pong     uint64 // the other side's Ping that this answers, or 0
		Held     uint64 // microseconds since that Ping came
		Sent     uint64 // packets that the sender has sent on this path
		Received uint64 // and received
	}
	// envelopeFrame carries an envelope of package signaling: the author's own
	// for the other side, or one that a neighbour passes on or is to pass on.
	envelopeFrame struct {
		Envelope []byte
	}
	goodbyeFrame struct {
		Code goodbyeCode
		Text string
	}
)

// position is what a receiver says of one flow: absolute numbers, merged by
// maximum, so that a lost one costs nothing.
type position struct {
	Flow      uint64
	Received  uint64 // every record up to this number has arrived
	Delivered uint64 // every record up to this number was handed to the application
	Credit    uint64 // bytes of records, counted from the first, that may be sent
}

// goodbyeCode says why a side ends the association.
type goodbyeCode uint8

const (
	goodbyeClosed    goodbyeCode = iota // the application closed the Peer
	goodbyeReplaced                     // a newer instance of the receiver's identity took over
	goodbyeUntrusted                    // the receiver's key is no longer trusted
	goodbyeProtocol                     // the receiver broke a rule
)

// errShortFrame is the detail of a frame too short to have a version and kind.
var errShortFrame = errors.New("frame without version and kind")

// peekFrame reads a frame's version and kind.
func peekFrame(b []byte) (frameKind, error) {
	// A CBOR array of up to 23 elements, then two unsigned integers up to 23:
	// one byte each (RFC 8949 §3).
	if len(b) < 3 || b[0] < 0x82 || b[0] > 0x97 || b[1] > 0x17 || b[2] > 0x17 {
		return 0, fmt.Errorf("%w: %w", ErrProtocol, errShortFrame)
	}
	if b[1] != frameVersion {
		return 0, &VersionError{Format: "frame", Ours: strconv.Itoa(frameVersion), Theirs: strconv.Itoa(int(b[1]))}
	}
	if k := frameKind(b[2]); k < kindEnd {
		return k, nil
	}
	return 0, protocolErrorf("frame of unknown kind %d", b[2])
}

// frameHead begins a frame of n elements after version and kind.
func frameHead(b []byte, kind frameKind, n int) []byte {
	return cbor.AppendUint(cbor.AppendUint(cbor.AppendArray(b, 2+n), frameVersion), uint64(kind))
}

// readFrame begins reading a frame whose kind was peeked.
func readFrame(b []byte, n int) *cbor.Reader {
	r := cbor.NewReader(b)
	r.Array(2 + n)
	r.Uint()
	r.Uint()
	return r
}

// frameDone ends reading a frame.
func frameDone(r *cbor.Reader) error {
	if err := r.Done(); err != nil {
		return protocolErrorf("frame: %v", err)
	}
	return nil
}

const signatureLen = 64

func (f *helloFrame) encode() []byte {
	b := frameHead(make([]byte, 0, helloLeast), kindHello, 3)
	b = cbor.AppendBytes(cbor.AppendBytes(b, f.Body), f.Signature)
	return cbor.AppendBytes(b, padding(helloLeast-len(b)))
}

// decodeHelloFrame reads a hello. One that fills no packet proves nothing about the
// path, so it is none.
func decodeHelloFrame(b []byte) (f helloFrame, err error) {
	if len(b) < helloLeast {
		return f, protocolErrorf("hello of %d bytes, less than %d", len(b), helloLeast)
	}
	r := readFrame(b, 3)
	f.Body, f.Signature = r.Bytes(maxFrame), r.Bytes(signatureLen)
	r.Bytes(helloLeast)
	return f, frameDone(r)
}

// padding is a string of zeros that takes n bytes with its head (RFC 8949 §3), one
// more where no string takes as many, and at least one.
func padding(n int) []byte {
	head := 3
	switch {
	case n <= 25:
		head = 1
	case n <= 258:
		head = 2
	}
	return make([]byte, max(n-head, 0))
}

func (f *batchFrame) encode(b []byte) []byte {
	b = frameHead(b, kindBatch, 3)
	b = cbor.AppendBytes(b, f.Signature)
	b = cbor.AppendArray(b, len(f.Records))
	for _, rec := range f.Records {
		b = cbor.AppendBytes(b, rec)
	}
	return appendPositions(b, f.Positions)
}

// decodeBatchFrame reads a batch; its records alias b.
func decodeBatchFrame(b []byte) (f batchFrame, err error) {
	r := readFrame(b, 3)
	f.Signature = r.Bytes(signatureLen)
	if n := r.ArrayMax(maxTree); n > 0 {
		f.Records = make([][]byte, n)
		for i := range f.Records {
			f.Records[i] = r.Bytes(MaxMessage)
		}
	}
	f.Positions = readPositions(r)
	return f, frameDone(r)
}

func (f *partFrame) encode() []byte {
	b := frameHead(make([]byte, 0, len(f.Bytes)+32), kindPart, 3)
	return cbor.AppendBytes(cbor.AppendUint(cbor.AppendUint(b, f.Total), f.Offset), f.Bytes)
}

func decodePartFrame(b []byte) (f partFrame, err error) {
	r := readFrame(b, 3)
	f.Total, f.Offset, f.Bytes = r.Uint(), r.Uint(), r.Bytes(maxFrame)
	return f, frameDone(r)
}

func (f *positionsFrame) encode() []byte {
	return appendPositions(frameHead(nil, kindPositions, 1), f.Positions)
}

func decodePositionsFrame(b []byte) (f positionsFrame, err error) {
	r := readFrame(b, 1)
	f.Positions = readPositions(r)
	return f, frameDone(r)
}

func (f *skipFrame) encode() []byte {
	b := frameHead(nil, kindSkip, 3)
	return cbor.AppendUint(cbor.AppendUint(cbor.AppendUint(b, f.Flow), f.Number), f.Offset)
}

func decodeSkipFrame(b []byte) (f skipFrame, err error) {
	r := readFrame(b, 3)
	f.Flow, f.Number, f.Offset = r.Uint(), r.Uint(), r.Uint()
	return f, frameDone(r)
}

func (f *echoFrame) encode() []byte {
	b := frameHead(nil, kindEcho, 5)
	for _, n := range [...]uint64{f.Ping, f.Pong, f.Held, f.Sent, f.Received} {
		b = cbor.AppendUint(b, n)
	}
	return b
}

func decodeEchoFrame(b []byte) (f echoFrame, err error) {
	r := readFrame(b, 5)
	f.Ping, f.Pong, f.Held, f.Sent, f.Received = r.Uint(), r.Uint(), r.Uint(), r.Uint(), r.Uint()
	return f, frameDone(r)
}

func (f *envelopeFrame) encode() []byte {
	return cbor.AppendBytes(frameHead(nil, kindEnvelope, 1), f.Envelope)
}

func decodeEnvelopeFrame(b []byte) (f envelopeFrame, err error) {
	r := readFrame(b, 1)
	f.Envelope = r.Bytes(maxFrame)
	return f, frameDone(r)
}

func (f *goodbyeFrame) encode() []byte {
	return cbor.AppendText(cbor.AppendUint(frameHead(nil, kindGoodbye, 2), uint64(f.Code)), f.Text)
}

func decodeGoodbyeFrame(b []byte) (f goodbyeFrame, err error) {
	r := readFrame(b, 2)
	f.Code, f.Text = goodbyeCode(r.UintMax(255)), r.Text(maxReason)
	return f, frameDone(r)
}

func appendPositions(b []byte, list []position) []byte {
	b = cbor.AppendArray(b, len(list))
	for _, p := range list {
		b = cbor.AppendArray(b, 4)
		for _, n := range [...]uint64{p.Flow, p.Received, p.Delivered, p.Credit} {
			b = cbor.AppendUint(b, n)
		}
	}
	return b
}

func readPositions(r *cbor.Reader) []position {
	n := r.ArrayMax(maxPositions)
	if n == 0 {
		return nil
	}
	list := make([]position, n)
	for i := range list {
		r.Array(4)
		list[i] = position{Flow: r.Uint(), Received: r.Uint(), Delivered: r.Uint(), Credit: r.Uint()}
	}
	return list
}
