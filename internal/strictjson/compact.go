package strictjson

import (
	"bytes"
	"sync"
	"unicode/utf8"
)

// AppendCompact appends the JSON value src to dst without the white space
// between its tokens. Arrays and objects may nest up to depth levels. src must
// be one value; dst is undefined after an error, which is an *Error.
func AppendCompact(dst, src []byte, depth int) ([]byte, error) {
	s := scanner{src: src, dst: dst, depth: depth, copying: true}
	err := s.run()
	return append(s.dst, src[s.from:]...), err
}

// Check reports whether src is one value in the form that AppendCompact
// returns. The error is an *Error, of kind ErrLoose if only white space is wrong.
func Check(src []byte, depth int) error {
	s := scanner{src: src, depth: depth}
	if err := s.run(); err != nil {
		return err
	}
	if s.loose > 0 {
		return &Error{Kind: ErrLoose, Offset: s.loose - 1}
	}
	return nil
}

// scanner goes over src once and copies what lies between white space.
type scanner struct {
	src, dst []byte
	at       int // after an error the byte that is wrong
	from     int // src before it is copied or left out
	copying  bool
	loose    int      // the byte after the first white space, 0 for none
	depth    int      // levels left
	names    [][]byte // of the objects around, innermost last
	twice    []byte   // the name of an ErrDuplicate
}

// pool keeps lists of names between values.
var pool = sync.Pool{New: func() any { return new([4 * manyNames][]byte) }}

func (s *scanner) run() error {
	list := pool.Get().(*[4 * manyNames][]byte)
	s.names = list[:0]
	defer func() {
		clear(list[:]) // they alias src
		pool.Put(list)
	}()
	s.space()
	if err := s.value(); err != nil {
		return s.fail(err)
	}
	s.space()
	if s.at != len(s.src) {
		return s.fail(ErrSyntax)
	}
	return nil
}

func (s *scanner) fail(kind error) error {
	e := &Error{Kind: kind, Offset: s.at, Name: string(s.twice)}
	if kind == ErrSyntax {
		e.Found = found(s.src, s.at)
	}
	return e
}

func (s *scanner) space() {
	if s.at >= len(s.src) || s.src[s.at] > ' ' {
		return
	}
	start := s.at
	for s.at < len(s.src) {
		if c := s.src[s.at]; c != ' ' && c != '\t' && c != '\n' && c != '\r' {
			break
		}
		s.at++
	}
	if s.at == start {
		return
	}
	if s.loose == 0 {
		s.loose = start + 1
	}
	if s.copying {
		s.dst = append(s.dst, s.src[s.from:start]...)
	}
	s.from = s.at
}

// peek returns the next byte, 0 at the end: no token begins with it.
func (s *scanner) peek() byte {
	if s.at < len(s.src) {
		return s.src[s.at]
	}
	return 0
}

func (s *scanner) value() error {
	switch c := s.peek(); {
	case c == '{':
		return s.object()
	case c == '[':
		return s.array()
	case c == '"':
		_, _, err := s.str()
		return err
	case c == '-' || '0' <= c && c <= '9':
		return s.number()
	case c == 't':
		return s.literal("true")
	case c == 'f':
		return s.literal("false")
	case c == 'n':
		return s.literal("null")
	}
	return ErrSyntax
}

func (s *scanner) literal(word string) error {
	for i := range len(word) {
		if s.peek() != word[i] {
			return ErrSyntax
		}
		s.at++
	}
	return nil
}

func (s *scanner) array() error {
	if s.depth--; s.depth < 0 {
		return ErrDepth
	}
	s.at++
	if s.space(); s.peek() == ']' {
		s.at++
		s.depth++
		return nil
	}
	for {
		if err := s.value(); err != nil {
			return err
		}
		switch s.space(); s.peek() {
		case ',':
			s.at++
			s.space()
		case ']':
			s.at++
			s.depth++
			return nil
		default:
			return ErrSyntax
		}
	}
}

// manyNames is from how many names on a map finds duplicates faster than
// looking at each.
const manyNames = 16

func (s *scanner) object() error {
	if s.depth--; s.depth < 0 {
		return ErrDepth
	}
	s.at++
	if s.space(); s.peek() == '}' {
		s.at++
		s.depth++
		return nil
	}
	base := len(s.names)
	var seen map[string]struct{}
	for {
		if s.peek() != '"' {
			return ErrSyntax
		}
		start := s.at
		name, escaped, err := s.str()
		if err != nil {
			return err
		}
		if escaped {
			name = unescape(nil, name)
		}
		if seen, err = s.addName(base, seen, name); err != nil {
			s.at, s.twice = start, name
			return err
		}
		if s.space(); s.peek() != ':' {
			return ErrSyntax
		}
		s.at++
		s.space()
		if err := s.value(); err != nil {
			return err
		}
		switch s.space(); s.peek() {
		case ',':
			s.at++
			s.space()
		case '}':
			s.at++
			s.names = s.names[:base]
			s.depth++
			return nil
		default:
			return ErrSyntax
		}
	}
}

// addName notes a name of the object whose names begin at base.
func (s *scanner) addName(base int, seen map[string]struct{}, name []byte) (map[string]struct{}, error) {
	if seen != nil {
		if _, ok := seen[string(name)]; ok {
			return seen, ErrDuplicate
		}
		seen[string(name)] = struct{}{}
		return seen, nil
	}
	for _, n := range s.names[base:] {
		if bytes.Equal(n, name) {
			return nil, ErrDuplicate
		}
	}
	s.names = append(s.names, name)
	if len(s.names)-base < manyNames {
		return nil, nil
	}
	seen = make(map[string]struct{}, 4*manyNames)
	for _, n := range s.names[base:] {
		seen[string(n)] = struct{}{}
	}
	return seen, nil
}

// number passes a number (RFC 8259 §6).
func (s *scanner) number() error {
	if s.peek() == '-' {
		s.at++
	}
	switch c := s.peek(); {
	case c == '0':
		s.at++
	case '1' <= c && c <= '9':
		s.digits()
	default:
		return ErrSyntax
	}
	if s.peek() == '.' {
		s.at++
		if !s.digits() {
			return ErrSyntax
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.at++
		if c := s.peek(); c == '+' || c == '-' {
			s.at++
		}
		if !s.digits() {
			return ErrSyntax
		}
	}
	return nil
}

// digits passes digits and reports whether there was one.
func (s *scanner) digits() bool {
	start := s.at
	for s.at < len(s.src) && '0' <= s.src[s.at] && s.src[s.at] <= '9' {
		s.at++
	}
	return s.at > start
}

// str passes a string and returns what stands between its quotes, and whether
// that has escapes.
func (s *scanner) str() (inside []byte, escaped bool, err error) {
	start := s.at
	i := start + 1
	high := false
	for {
		for i < len(s.src) && plain[s.src[i]] {
			i++
		}
		if s.at = i; i >= len(s.src) {
			return nil, false, ErrSyntax
		}
		c := s.src[i]
		switch {
		case c == '"':
			inside = s.src[start+1 : i]
			if high && !utf8.Valid(inside) {
				s.at = start + 1 + invalid(inside)
				return nil, false, ErrUTF8
			}
			s.at = i + 1
			return inside, escaped, nil
		case c < 0x20:
			return nil, false, ErrSyntax
		case c == '\\':
			escaped = true
			n, err := checkEscape(s.src[i:])
			if err != nil {
				return nil, false, err
			}
			i += n
			continue
		case c >= utf8.RuneSelf:
			high = true
		}
		i++
	}
}

// invalid returns where text stops being UTF-8.
func invalid(text []byte) int {
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return len(text)
}

// plain marks the bytes that a string may hold without further thought.
var plain = func() (t [256]bool) {
	for c := 0x20; c < utf8.RuneSelf; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// checkEscape returns the length of the escape at the start of b. A surrogate
// pair counts as one.
func checkEscape(b []byte) (int, error) {
	if len(b) < 2 {
		return 0, ErrSyntax
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2, nil
	case 'u':
	default:
		return 0, ErrSyntax
	}
	r, ok := hex4(b[2:])
	switch {
	case !ok:
		return 0, ErrSyntax
	case r < 0xd800 || r > 0xdfff:
		return 6, nil
	case r > 0xdbff || len(b) < 12 || b[6] != '\\' || b[7] != 'u':
		return 0, ErrSurrogate
	}
	if low, ok := hex4(b[8:]); !ok {
		return 0, ErrSyntax
	} else if low < 0xdc00 || low > 0xdfff {
		return 0, ErrSurrogate
	}
	return 12, nil
}

func hex4(b []byte) (r rune, ok bool) {
	if len(b) < 4 {
		return 0, false
	}
	for _, c := range b[:4] {
		switch {
		case '0' <= c && c <= '9':
			r = r<<4 | rune(c-'0')
		case 'a' <= c && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case 'A' <= c && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return 0, false
		}
	}
	return r, true
}
