package mesh

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
)

// piecesEnd is a conn that keeps what is written, and reads it.
type piecesEnd struct {
	conn
	all [][]byte
}

func (c *piecesEnd) Write(b []byte) error {
	c.all = append(c.all, bytes.Clone(b))
	return nil
}

func (c *piecesEnd) Read(b []byte) (int, error) {
	f := c.all[0]
	c.all = c.all[1:]
	return copy(b, f), nil
}

// TestPieces: frames of every size arrive as they were, no piece is so small that
// two fit into a packet, or so large that it fills one.
func TestPieces(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	end := &piecesEnd{}
	c := newSlimConn(end)
	buf := make([]byte, maxFrame)
	for n := 1; n <= maxFrame; n += 1 + r.IntN(60) {
		frame := make([]byte, n)
		for i := range frame {
			frame[i] = byte(r.Uint32())
		}
		before := c.extra.Load()
		if err := c.Write(frame); err != nil {
			t.Fatal(err)
		}
		wire := 0
		for _, p := range end.all {
			wire += len(p)
			// Common header, and the header of a chunk with or without interleaving.
			if 12+2*(16+len(p)) <= 1191 || len(p) > pieceMost {
				t.Fatalf("a piece of %d bytes", len(p))
			}
		}
		if got := c.extra.Load() - before; got != int64(wire-n) {
			t.Fatalf("%d bytes take %d, and %d are counted", n, wire, got)
		}
		got, err := c.Read(buf)
		if err != nil || !bytes.Equal(buf[:got], frame) || len(end.all) > 0 {
			t.Fatalf("%d bytes come as %d, %v", n, got, err)
		}
	}
}

// TestPiecesRefused: what does not follow, or is no piece, ends the session.
func TestPiecesRefused(t *testing.T) {
	piece := func(rest uint64, n int) []byte {
		return (&pieceFrame{Rest: rest, Bytes: make([]byte, n)}).encode()
	}
	for what, list := range map[string][][]byte{
		"another frame":            {(&echoFrame{Ping: 1}).encode()},
		"no frame":                 {{1, 2}},
		"cut":                      {piece(0, 5)[:20]},
		"too much behind":          {piece(maxFrame, 5)},
		"more than was announced":  {piece(10, 5), piece(0, 11)},
		"less than was announced":  {piece(10, 5), piece(0, 9)},
		"another count":            {piece(10, 5), piece(6, 5)},
		"pieces of nothing, never": {piece(10, 0)},
	} {
		if _, err := newSlimConn(&piecesEnd{all: list}).Read(make([]byte, maxFrame)); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
