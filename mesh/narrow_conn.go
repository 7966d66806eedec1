package mesh

import (
	"sync"
	"sync/atomic"

	"github.com/infrafabric/agentmesh/internal/cbor"
)

// slimConn is a conn whose packets are small: each frame travels in pieces, messages of
// the data channel of their own. pion's SCTP has one size of packets and puts several
// messages into one, so a piece is large enough that no two of them fit.
//
//	12 common header + 2 × (16 chunk header + pieceLeast) > 1191
//	28 + pieceMost + 37 of DTLS = 1005 bytes of UDP, 1033 of IPv4
type slimConn struct {
	conn
	mu     sync.Mutex   // frames do not mix
	extra  atomic.Int64 // bytes that pieces are longer than their frames
	joined []byte       // the reader's own
}

func newSlimConn(c conn) *slimConn { return &slimConn{conn: c} }

// pieceFrame is one of them.
type pieceFrame struct {
	Rest  uint64 // bytes of the frame that follow in other pieces
	Bytes []byte
	// And zeros up to pieceLeast bytes.
}

func (f *pieceFrame) encode() []byte {
	b := frameHead(make([]byte, 0, pieceMost), kindPiece, 3)
	b = cbor.AppendBytes(cbor.AppendUint(b, f.Rest), f.Bytes)
	return cbor.AppendBytes(b, padding(pieceLeast-len(b)))
}

func decodePieceFrame(b []byte) (f pieceFrame, err error) {
	r := readFrame(b, 3)
	f.Rest, f.Bytes = r.UintMax(maxFrame), r.Bytes(pieceMost)
	r.Bytes(pieceMost)
	return f, frameDone(r)
}

func (c *slimConn) Write(b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for first := true; first || len(b) > 0; first = false {
		n := min(len(b), pieceSize)
		piece := (&pieceFrame{Rest: uint64(len(b) - n), Bytes: b[:n]}).encode()
		if err := c.conn.Write(piece); err != nil {
			return err
		}
		c.extra.Add(int64(len(piece) - n))
		b = b[n:]
	}
	return nil
}

func (c *slimConn) Read(b []byte) (int, error) {
	c.joined = c.joined[:0]
	for rest := -1; ; {
		n, err := c.conn.Read(b)
		if err != nil {
			return 0, err
		}
		if kind, err := peekFrame(b[:n]); err != nil {
			return 0, err
		} else if kind != kindPiece {
			return 0, protocolErrorf("frame kind %d where pieces are", kind)
		}
		f, err := decodePieceFrame(b[:n])
		if err != nil {
			return 0, err
		}
		if rest >= 0 && int(f.Rest)+len(f.Bytes) != rest || len(c.joined)+len(f.Bytes)+int(f.Rest) > min(maxFrame, len(b)) ||
			f.Rest > 0 && len(f.Bytes) == 0 {
			return 0, protocolErrorf("piece that does not follow the one before")
		}
		c.joined = append(c.joined, f.Bytes...)
		if rest = int(f.Rest); rest == 0 {
			return copy(b, c.joined), nil
		}
	}
}
