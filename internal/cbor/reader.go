package cbor

import (
	"errors"
	"fmt"
	"math"
	"unicode/utf8"
)

// ErrFormat means that the bytes are not the one encoding of what was expected.
var ErrFormat = errors.New("cbor: not the expected value in deterministic encoding")

// Reader reads values one after another. Its first error stays: the caller
// reads a whole structure and asks Done once.
type Reader struct {
	b   []byte
	at  int
	err error
}

// NewReader returns a Reader of b, which must not change while strings of it
// are in use.
func NewReader(b []byte) *Reader { return &Reader{b: b} }

func (r *Reader) fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s at byte %d", ErrFormat, what, r.at)
	}
}

// Err returns the first error.
func (r *Reader) Err() error { return r.err }

// Done returns the first error, or one if bytes are left.
func (r *Reader) Done() error {
	if r.err == nil && r.at != len(r.b) {
		r.fail("trailing bytes")
	}
	return r.err
}

// head reads an initial byte of the given major type and its argument.
func (r *Reader) head(major byte, what string) uint64 {
	if r.err != nil {
		return 0
	}
	if r.at >= len(r.b) || r.b[r.at]&0xe0 != major {
		r.fail("no " + what)
		return 0
	}
	info := r.b[r.at] & 0x1f
	if info < 24 {
		r.at++
		return uint64(info)
	}
	size := 1 << (info - 24)
	if info > 27 || len(r.b)-r.at-1 < size {
		r.fail("bad head of " + what)
		return 0
	}
	var n uint64
	for _, c := range r.b[r.at+1 : r.at+1+size] {
		n = n<<8 | uint64(c)
	}
	// The shortest form: what fits a smaller argument must use it.
	if n < 24 || size > 1 && n < 1<<(4*size) {
		r.fail("head of " + what + " is not in its shortest form")
		return 0
	}
	r.at += 1 + size
	return n
}

// Uint reads an unsigned integer.
func (r *Reader) Uint() uint64 { return r.head(majorUint, "unsigned integer") }

// UintMax reads an unsigned integer up to most.
func (r *Reader) UintMax(most uint64) uint64 {
	n := r.Uint()
	if n > most {
		r.fail(fmt.Sprintf("integer %d, more than %d,", n, most))
		return 0
	}
	return n
}

// Int reads an integer that fits 64 bits.
func (r *Reader) Int() int64 {
	negative := r.err == nil && r.at < len(r.b) && r.b[r.at]&0xe0 == majorNint
	var n uint64
	if negative {
		n = r.head(majorNint, "integer")
	} else {
		n = r.head(majorUint, "integer")
	}
	if n > math.MaxInt64 {
		r.fail("integer out of range")
		return 0
	}
	if negative {
		return -1 - int64(n)
	}
	return int64(n)
}

// Bytes reads a byte string of at most most bytes; it aliases the input.
func (r *Reader) Bytes(most int) []byte { return r.str(majorBytes, "byte string", most) }

// Fixed reads a byte string that has exactly the length of dst into dst.
func (r *Reader) Fixed(dst []byte) {
	s := r.Bytes(len(dst))
	if r.err == nil && len(s) != len(dst) {
		r.fail(fmt.Sprintf("byte string of %d bytes, not %d,", len(s), len(dst)))
		return
	}
	copy(dst, s)
}

// Text reads a text string of at most most bytes.
func (r *Reader) Text(most int) string {
	return r.TextLike(most)
}

// TextLike is Text that returns one of the known strings, without allocating,
// if it is the one.
func (r *Reader) TextLike(most int, known ...string) string {
	s := r.str(majorText, "text string", most)
	for _, k := range known {
		if string(s) == k {
			return k
		}
	}
	if !utf8.Valid(s) {
		r.fail("text that is not UTF-8")
		return ""
	}
	return string(s)
}

func (r *Reader) str(major byte, what string, most int) []byte {
	n := r.head(major, what)
	if r.err != nil {
		return nil
	}
	if n > uint64(most) {
		r.fail(fmt.Sprintf("%s of %d bytes, more than %d,", what, n, most))
		return nil
	}
	if n > uint64(len(r.b)-r.at) {
		r.fail(fmt.Sprintf("%s of %d bytes is cut off", what, n))
		return nil
	}
	s := r.b[r.at : r.at+int(n) : r.at+int(n)]
	r.at += int(n)
	return s
}

// Array reads the head of an array of exactly n elements.
func (r *Reader) Array(n int) {
	if got := r.head(majorArray, "array"); r.err == nil && got != uint64(n) {
		r.fail(fmt.Sprintf("array of %d elements, not %d,", got, n))
	}
}

// ArrayMax reads the head of an array of at most most elements and returns
// their number.
func (r *Reader) ArrayMax(most int) int { return r.count(majorArray, "array", most) }

// MapMax reads the head of a map of at most most pairs and returns their
// number. The caller reads the pairs and checks the order of the keys.
func (r *Reader) MapMax(most int) int { return r.count(majorMap, "map", most) }

// count never returns more than the bytes that are left, each element having
// one at least.
func (r *Reader) count(major byte, what string, most int) int {
	n := r.head(major, what)
	switch {
	case r.err != nil:
	case n > uint64(most):
		r.fail(fmt.Sprintf("%s of %d elements, more than %d,", what, n, most))
	case n > uint64(len(r.b)-r.at):
		r.fail(fmt.Sprintf("%s of %d elements is cut off", what, n))
	}
	if r.err != nil {
		return 0
	}
	return int(n)
}

// Before reports whether text key a stands before b in a map: shorter ones
// first, then by their bytes.
func Before(a, b string) bool {
	if len(a) != len(b) {
		return len(a) < len(b)
	}
	return a < b
}
