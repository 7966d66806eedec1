package mesh

import (
	"encoding/base64"
	"errors"
	"strconv"
	"time"

	"github.com/infrafabric/agentmesh/internal/strictjson"
)

// The readers below take values in compact form. Each has one form only.

// eachField calls f for every member of the compact JSON object b, and adds to
// its error where in b the value stands.
func eachField(b []byte, what string, f func(name string, v []byte) error) error {
	ok, err := strictjson.Fields(b, func(name string, v []byte, at int) error {
		err := f(name, v)
		if err == nil {
			return nil
		}
		var me *MessageError
		if errors.As(err, &me) {
			me.Offset += at
		}
		return err
	})
	if !ok {
		return &MessageError{Field: what, Reason: "is " + jsonKind(b) + ", not an object"}
	}
	return err
}

// jsonKind names what a compact JSON value is.
func jsonKind(v []byte) string {
	switch v[0] {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a string"
	case 'n':
		return "null"
	case 't', 'f':
		return string(v)
	}
	return "a number"
}

func text(field string, v []byte, dst *string) error {
	s, ok := strictjson.Unquote(v)
	if !ok {
		return &MessageError{Field: field, Reason: "is " + jsonKind(v) + ", not a string"}
	}
	*dst = s
	return nil
}

func texts(field string, v []byte, dst *[]string) error {
	list, ok := strictjson.Strings(v)
	if !ok {
		return &MessageError{Field: field, Reason: "is not an array of strings"}
	}
	*dst = list
	return nil
}

func integer(field string, v []byte, dst *int) error {
	n, err := strconv.ParseInt(string(v), 10, 32)
	if err != nil || strconv.FormatInt(n, 10) != string(v) {
		return &MessageError{Field: field, Reason: "is " + shownNumber(v) + ", not an integer of 32 bits in digits alone"}
	}
	*dst = int(n)
	return nil
}

func number(field string, v []byte, dst *uint64) error {
	n, err := strconv.ParseUint(string(v), 10, 64)
	if err != nil || strconv.FormatUint(n, 10) != string(v) {
		return &MessageError{Field: field, Reason: "is " + shownNumber(v) + ", not a whole number of 64 bits in digits alone"}
	}
	*dst = n
	return nil
}

// shownNumber is a number for an error, and the kind of anything else.
func shownNumber(v []byte) string {
	if kind := jsonKind(v); kind != "a number" {
		return kind
	}
	return safeText(string(v))
}

func timestamp(field string, v []byte, dst *time.Time) error {
	var s string
	if err := text(field, v, &s); err != nil {
		return err
	}
	t, err := time.Parse(timestampFormat, s)
	if err != nil || t.Format(timestampFormat) != s {
		return &MessageError{Field: field, Reason: "is " + quoted(s) + ", not RFC 3339 in UTC with milliseconds, such as " + timestampFormat}
	}
	*dst = t.UTC()
	return nil
}

// decodeBase64 decodes size bytes in the one form that they have: padded, with
// zero bits at the end, and without the line breaks that the decoder skips. A
// text of the right length with a line break in it decodes to fewer bytes.
func decodeBase64(s string, size int) (raw []byte, ok bool) {
	if len(s) != base64.StdEncoding.EncodedLen(size) {
		return nil, false
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(s)
	return raw, err == nil && len(raw) == size
}
