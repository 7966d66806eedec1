package mesh

import (
	"errors"

	"github.com/infrafabric/agentmesh/internal/strictjson"
)

// compactJSON appends one JSON value to dst with the white space between its
// tokens removed and nothing else changed: numbers keep their digits, strings
// their escapes. It refuses what two readers could understand differently
// (RFC 8259 §4 leaves duplicate names to chance).
func compactJSON(dst, src []byte) ([]byte, error) {
	return strictjson.AppendCompact(dst, src, MaxNesting)
}

// jsonError words an error of strictjson about the value of a field without the
// text it is about, which may be a secret.
func jsonError(field string, err error) error {
	e := &MessageError{Field: field, Reason: "is not one JSON value"}
	var at *strictjson.Error
	if !errors.As(err, &at) {
		return e
	}
	e.Offset = at.Offset
	switch at.Kind {
	case strictjson.ErrDepth:
		e.Reason, e.Size, e.Limit = "nests too deep", MaxNesting+1, MaxNesting
	case strictjson.ErrDuplicate:
		e.Reason = `has an object with the name "` + safeText(at.Name) + `" twice`
	case strictjson.ErrUTF8:
		e.Reason = "holds text that is not valid UTF-8"
	case strictjson.ErrSurrogate:
		e.Reason = `holds an escape \uD800 to \uDFFF that is half of a surrogate pair`
	case strictjson.ErrLoose:
		e.Reason = "is not in compact form"
	default:
		e.Reason += ": unexpected " + at.Found
	}
	return e
}
