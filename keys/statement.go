package keys

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// ErrStatement means that a [Statement] has no domain or is larger than [MaxStatementSize].
var ErrStatement = errors.New("statement cannot be signed")

// Statement is what a signature is over. Its first four parts tie the signature to one purpose, one
// mesh and one pair of parties, so that nothing signed for one can be replayed as another.
type Statement struct {
	Domain string // purpose and version, such as "agentmesh/v1 offer"; never empty
	Mesh   string // the mesh it is valid in
	From   string // who signs
	To     string // for whom: an agent ID, a server name, or empty for everybody
	Body   []byte // the content itself
}

// Bytes returns the encoding that is signed: domain, mesh, from, to and body in this order, each
// preceded by its length in bytes as a 32 bit big-endian number. The lengths make it unambiguous: no
// bytes can move from one part to the next without changing it. It panics when a part is 4 GiB or
// larger; Sign and Verify refuse such a statement before.
func (s Statement) Bytes() []byte {
	b := make([]byte, 0, s.size())
	b = appendPart(b, s.Domain)
	b = appendPart(b, s.Mesh)
	b = appendPart(b, s.From)
	b = appendPart(b, s.To)
	return appendPart(b, s.Body)
}

func appendPart[T string | []byte](b []byte, part T) []byte {
	if uint64(len(part)) > math.MaxUint32 {
		panic("keys: part of a Statement of 4 GiB or more")
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(part)))
	return append(b, part...)
}

func (s Statement) size() int {
	return 5*4 + len(s.Domain) + len(s.Mesh) + len(s.From) + len(s.To) + len(s.Body)
}

func (s Statement) check() error {
	if s.Domain == "" {
		return fmt.Errorf("%w: Domain is empty", ErrStatement)
	}
	if n := s.size(); n > MaxStatementSize {
		return fmt.Errorf("%w: %d bytes, more than %d", ErrStatement, n, MaxStatementSize)
	}
	return nil
}
