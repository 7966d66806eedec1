package meshtest

import (
	"bytes"
	"encoding/binary"
	"net"
	"testing"
)

// sink keeps what is written to it.
type sink struct {
	net.Conn
	got []byte
}

func (s *sink) Write(p []byte) (int, error) { s.got = append(s.got, p...); return len(p), nil }

// frameOf is a frame of a server with a payload of so many bytes that begins so.
func frameOf(first byte, begins []byte, size int) []byte {
	b := []byte{first, byte(size)}
	switch {
	case size > 1<<16-1:
		b = binary.BigEndian.AppendUint64([]byte{first, 127}, uint64(size))
	case size > 125:
		b = binary.BigEndian.AppendUint16([]byte{first, 126}, uint16(size))
	}
	return append(append(b, begins...), bytes.Repeat([]byte{7}, size-len(begins))...)
}

// TestMuddledStream: whatever pieces it is written in, a stream of frames arrives as it
// is, and when it is muddled, whole frames of envelopes are missing or come again and
// nothing else changes.
func TestMuddledStream(t *testing.T) {
	var frames [][]byte
	for i, size := range []int{4, 60, 125, 126, 3000, 65535, 65536, 70000} {
		envelope := frameOf(wholeBinary, envelopeBegins, size)
		envelope[len(envelope)-1] = byte(i)
		frames = append(frames, envelope, frameOf(wholeBinary, []byte{0x83, 1, 6}, size), frameOf(0x89, nil, size%100))
	}
	whole := bytes.Join(frames, nil)
	for _, piece := range []int{1, 7, 4096, len(whole)} {
		out := new(sink)
		c := &muddledConn{Conn: out, m: new(muddle)}
		for rest := whole; len(rest) > 0; {
			n, err := c.Write(rest[:min(piece, len(rest))])
			if err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if !bytes.Equal(out.got, whole) {
			t.Errorf("in pieces of %d another stream arrives", piece)
		}
	}

	out := new(sink)
	c := &muddledConn{Conn: out, m: new(muddle)}
	c.m.set(30, 1)
	const rounds = 100
	for range rounds {
		for _, f := range frames {
			if _, err := c.Write(f); err != nil {
				t.Fatal(err)
			}
		}
	}
	var envelopes, others, again int
	var last []byte
	for rest := out.got; len(rest) > 0; {
		head, size := frame(rest)
		if size == 0 {
			t.Fatal("the last frame is not whole")
		}
		if rest[0] == wholeBinary && bytes.HasPrefix(rest[head:], envelopeBegins) {
			envelopes++
			if bytes.Equal(last, rest[:size]) {
				again++
			}
			last = rest[:size]
		} else {
			others++
		}
		rest = rest[size:]
	}
	sent := rounds * len(frames) / 3
	if others != 2*sent {
		t.Errorf("%d other frames of %d", others, 2*sent)
	}
	// As many are lost as come again, 30 % each; the standard deviation of the sum is 22.
	if envelopes < sent-100 || envelopes > sent+100 {
		t.Errorf("%d envelopes of %d", envelopes, sent)
	}
	if again == 0 {
		t.Error("none came twice")
	}
}
