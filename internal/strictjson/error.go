package strictjson

import (
	"bytes"
	"errors"
	"fmt"
	"unicode/utf8"
)

// What is wrong with a text: the kinds of an Error.
var (
	ErrSyntax    = errors.New("not one JSON value")
	ErrUTF8      = errors.New("text is not valid UTF-8")
	ErrSurrogate = errors.New("an escape is half of a surrogate pair")
	ErrDuplicate = errors.New("an object has a name twice")
	ErrDepth     = errors.New("nests too deep")
	ErrLoose     = errors.New("white space between tokens")
)

// Error says what is wrong with a text, and where. It carries no value, which may
// be secret: of the text it holds one byte, or one name.
type Error struct {
	Kind   error  // one of the errors above, which Error matches
	Offset int    // byte from 0 where it goes wrong, the length of the text if that ends too early
	Found  string // for ErrSyntax: what stands there, for people
	Name   string // for ErrDuplicate: the name
}

func (e *Error) Error() string {
	text := e.Kind.Error()
	if e.Found != "" {
		text += ": unexpected " + e.Found
	}
	return fmt.Sprintf("%s at byte %d", text, e.Offset)
}

// Unwrap returns e.Kind.
func (e *Error) Unwrap() error { return e.Kind }

// found names what stands at a byte where no token can.
func found(src []byte, at int) string {
	if at >= len(src) {
		return "end"
	}
	switch b := src[at:]; {
	case bytes.HasPrefix(b, []byte("\ufeff")):
		return "byte order mark"
	case at == 0 && (bytes.HasPrefix(b, []byte{0xff, 0xfe}) || bytes.HasPrefix(b, []byte{0xfe, 0xff})):
		return "byte order mark of UTF-16"
	case b[0] == '\\' && len(b) > 1:
		return "escape"
	case b[0] <= ' ' || b[0] >= utf8.RuneSelf-1:
		return fmt.Sprintf("byte %#02x", b[0])
	}
	return fmt.Sprintf("%q", src[at])
}

// Source returns where in src the byte stands that is at byte at of its compact
// form. src was found sound.
func Source(src []byte, at int) int {
	inString := false
	for i := 0; i < len(src); i++ {
		switch c := src[i]; {
		case !inString && c <= ' ':
			continue
		case inString && c == '\\':
			if at < 2 {
				return i + at
			}
			i, at = i+1, at-1
		case c == '"':
			inString = !inString
		}
		if at == 0 {
			return i
		}
		at--
	}
	return len(src)
}

// Member returns the name of that member of the object src in whose value a byte
// stands; "" if it stands elsewhere. src is sound up to there.
func Member(src []byte, at int) string {
	var last, name []byte // the last string of the object itself, and the one before a colon
	depth := 0
	for i := 0; i < min(at, len(src)); i++ {
		switch src[i] {
		case '"':
			n := skip(src[i:])
			if depth == 1 {
				last = src[i : i+n]
			}
			i += n - 1
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return "" // behind the value
			}
		case ':':
			if depth == 1 {
				name = last
			}
		case ',':
			if depth == 1 {
				name = nil
			}
		}
	}
	if !bytes.HasPrefix(bytes.TrimLeft(src, " \t\r\n"), []byte("{")) {
		return ""
	}
	text, _ := Unquote(name)
	return text
}
