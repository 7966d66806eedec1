package strictjson

import (
	"bytes"
	"unicode/utf16"
	"unicode/utf8"
)

// The functions below take values in the form that AppendCompact returns.

// Fields calls f for each member of an object, in order, until f fails; at is
// where the value begins in compact. ok is false when compact is no object.
func Fields(compact []byte, f func(name string, value []byte, at int) error) (ok bool, err error) {
	if len(compact) < 2 || compact[0] != '{' {
		return false, nil
	}
	for at := 1; compact[at] != '}'; {
		if compact[at] == ',' {
			at++
		}
		end := at + skip(compact[at:])
		name, _ := Unquote(compact[at:end])
		at = end + 1 // the colon
		end = at + skip(compact[at:])
		if err := f(name, compact[at:end:end], at); err != nil {
			return true, err
		}
		at = end
	}
	return true, nil
}

// Strings returns the elements of an array of strings. ok is false for
// anything else.
func Strings(compact []byte) (list []string, ok bool) {
	if len(compact) < 2 || compact[0] != '[' {
		return nil, false
	}
	for at := 1; compact[at] != ']'; {
		if compact[at] == ',' {
			at++
		}
		end := at + skip(compact[at:])
		s, ok := Unquote(compact[at:end])
		if !ok {
			return nil, false
		}
		list = append(list, s)
		at = end
	}
	return list, true
}

// skip returns the length of the value at the start of b.
func skip(b []byte) int {
	depth, inString := 0, false
	for i := 0; i < len(b); i++ {
		c := b[i]
		switch {
		case inString:
			if c == '\\' {
				i++
			} else if c == '"' {
				if inString = false; depth == 0 {
					return i + 1
				}
			}
		case c == '"':
			inString = true
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			if depth == 0 {
				return i // the end of what is around a number or literal
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case depth == 0 && (c == ',' || c == ':'):
			return i
		}
	}
	return len(b)
}

// Unquote returns the text of a string. ok is false for anything else.
func Unquote(compact []byte) (text string, ok bool) {
	n := len(compact)
	if n < 2 || compact[0] != '"' || compact[n-1] != '"' {
		return "", false
	}
	inside := compact[1 : n-1]
	if bytes.IndexByte(inside, '\\') < 0 {
		return string(inside), true
	}
	return string(unescape(make([]byte, 0, n), inside)), true
}

// unescape appends what stands between the quotes of a checked string to dst,
// with its escapes resolved.
func unescape(dst, s []byte) []byte {
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			dst = append(dst, s[i])
			continue
		}
		i++
		switch s[i] {
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			r, _ := hex4(s[i+1:])
			i += 4
			if utf16.IsSurrogate(r) {
				low, _ := hex4(s[i+3:])
				r = utf16.DecodeRune(r, low)
				i += 6
			}
			dst = utf8.AppendRune(dst, r)
		default: // quote, backslash, slash
			dst = append(dst, s[i])
		}
	}
	return dst
}

// AppendQuote appends a string with the escapes that JSON needs and no others
// (RFC 8785 §3.2.2.2); text is valid UTF-8.
func AppendQuote(dst []byte, text string) []byte {
	const digits = "0123456789abcdef"
	dst = append(dst, '"')
	for i := range len(text) {
		switch c := text[i]; {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c >= 0x20:
			dst = append(dst, c)
		case c == '\b':
			dst = append(dst, '\\', 'b')
		case c == '\f':
			dst = append(dst, '\\', 'f')
		case c == '\n':
			dst = append(dst, '\\', 'n')
		case c == '\r':
			dst = append(dst, '\\', 'r')
		case c == '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		}
	}
	return append(dst, '"')
}
