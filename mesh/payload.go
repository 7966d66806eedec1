package mesh

import (
	"errors"
	"strconv"

	"github.com/infrafabric/agentmesh/internal/strictjson"
)

// compactJSON appends one JSON value to dst with the white space between its
// tokens removed and nothing else changed: numbers keep their digits, strings
// their escapes. It refuses what two readers could understand differently
// (RFC 8259 §4 leaves duplicate names to chance).
func compactJSON(dst, src []byte) ([]byte, error) {
	return strictjson.AppendCompact(dst, src, MaxNesting)
}

// jsonReason words an error of compactJSON without the text it is about, which
// may be a secret.
func jsonReason(err error) string {
	switch {
	case errors.Is(err, strictjson.ErrDepth):
		return "nests deeper than " + strconv.Itoa(MaxNesting) + " levels"
	case errors.Is(err, strictjson.ErrDuplicate):
		return "has an object with a name twice"
	case errors.Is(err, strictjson.ErrUTF8):
		return "holds text that is not valid UTF-8"
	case errors.Is(err, strictjson.ErrLoose):
		return "is not in compact form"
	}
	return "is not one JSON value"
}
