package mesh

import (
	"bytes"
	"errors"

	"github.com/go-json-experiment/json/jsontext"
)

// errNesting is the reason of a payload deeper than MaxNesting.
var errNesting = errors.New("nests too deep")

// errLoose is the reason of white space where there must be none.
var errLoose = errors.New("not compact")

// compactJSON appends one JSON value to dst with the white space between its
// tokens removed and nothing else changed: numbers keep their digits, strings
// their escapes. It refuses what is not exactly one value of valid UTF-8
// without duplicate names (RFC 8259 §4 leaves those to chance, and two readers
// that choose differently would disagree on what was signed).
func compactJSON(dst, src []byte) ([]byte, error) {
	if tooDeep(src) {
		return nil, errNesting
	}
	return jsontext.AppendFormat(dst, src, jsontext.PreserveRawStrings(true))
}

// checkCompact reports whether compactJSON would return src as it is.
func checkCompact(src []byte) error {
	c, err := compactJSON(make([]byte, 0, len(src)), src)
	if err == nil && !bytes.Equal(c, src) {
		return errLoose
	}
	return err
}

// tooDeep reports whether brackets nest deeper than MaxNesting. It runs before
// the parser, so that a megabyte of brackets costs one pass.
func tooDeep(src []byte) bool {
	depth, inString := 0, false
	for i := 0; i < len(src); i++ {
		switch c := src[i]; {
		case inString:
			if c == '\\' {
				i++
			} else if c == '"' {
				inString = false
			}
		case c == '"':
			inString = true
		case c == '{' || c == '[':
			if depth++; depth > MaxNesting {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}
