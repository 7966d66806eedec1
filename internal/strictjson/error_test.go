package strictjson

import (
	"errors"
	"strings"
	"testing"
)

// TestWhere: every error says at which byte, and what stands there.
func TestWhere(t *testing.T) {
	many := strings.Repeat(`"a`, 1)
	for i := range 40 {
		many += `","b` + strings.Repeat("x", i)
	}
	many = `{` + strings.ReplaceAll(many, `","`, `":0,"`) + `":1,`
	for in, want := range map[string]Error{
		``:                            {ErrSyntax, 0, "end", ""},
		`{"a":1`:                      {ErrSyntax, 6, "end", ""},
		`["abc`:                       {ErrSyntax, 5, "end", ""},
		`[1,]`:                        {ErrSyntax, 3, "']'", ""},
		`{'a':1}`:                     {ErrSyntax, 1, `'\''`, ""},
		`{"a":1} x`:                   {ErrSyntax, 8, "'x'", ""},
		`[NaN]`:                       {ErrSyntax, 1, "'N'", ""},
		`[nul]`:                       {ErrSyntax, 4, "']'", ""},
		`[01]`:                        {ErrSyntax, 2, "'1'", ""},
		`[1] // x`:                    {ErrSyntax, 4, "'/'", ""},
		"[\"a\nb\"]":                  {ErrSyntax, 3, "byte 0x0a", ""},
		`["a\xb"]`:                    {ErrSyntax, 3, "escape", ""},
		"[\u00a01]":                   {ErrSyntax, 1, "byte 0xc2", ""},
		"\ufeff[1]":                   {ErrSyntax, 0, "byte order mark", ""},
		" \ufeff[1]":                  {ErrSyntax, 1, "byte order mark", ""},
		"\xff\xfe[\x001\x00]\x00":     {ErrSyntax, 0, "byte order mark of UTF-16", ""},
		"\xfe\xff\x00[\x00]":          {ErrSyntax, 0, "byte order mark of UTF-16", ""},
		"[\x00":                       {ErrSyntax, 1, "byte 0x00", ""},
		"[\"ä\xff\"]":                 {ErrUTF8, 4, "", ""},
		"[\"\xed\xa0\x80\"]":          {ErrUTF8, 2, "", ""},
		`["a\ud83d"]`:                 {ErrSurrogate, 3, "", ""},
		`["\udc00"]`:                  {ErrSurrogate, 2, "", ""},
		` {"a":{"b":1,"\u0062":2}}`:   {ErrDuplicate, 13, "", "b"},
		many + `"bxx":2}`:             {ErrDuplicate, len(many), "", "bxx"},
		strings.Repeat("[", depth+1):  {ErrDepth, depth, "", ""},
		strings.Repeat(" [", depth+1): {ErrDepth, 2*depth + 1, "", ""},
	} {
		_, err := AppendCompact(nil, []byte(in), depth)
		var got *Error
		if !errors.As(err, &got) || *got != want || !errors.Is(err, want.Kind) {
			t.Errorf("%.40q: %+v, want %+v", in, err, want)
		}
	}
	var loose *Error
	if err := Check([]byte(`{"a": 1}`), depth); !errors.As(err, &loose) || *loose != (Error{Kind: ErrLoose, Offset: 5}) {
		t.Errorf("white space: %v", err)
	}
	if err := Check([]byte(` 1`), depth); !errors.As(err, &loose) || *loose != (Error{Kind: ErrLoose}) {
		t.Errorf("white space in front: %v", err)
	}
}

// TestSource: what stands in the compact form is found again in the text.
func TestSource(t *testing.T) {
	src := []byte(" {\n\t\"a b\" : [ 1 , \"\\\" \\\\\" ] , \"c\" : null }\n")
	compact, err := AppendCompact(nil, src, depth)
	if err != nil {
		t.Fatal(err)
	}
	last := -1
	for i, c := range compact {
		at := Source(src, i)
		if at <= last || src[at] != c {
			t.Errorf("byte %d (%q) of %s is found at %d", i, c, compact, at)
		}
		last = at
	}
	if at := Source(src, len(compact)); at != len(src) {
		t.Errorf("the end is found at %d", at)
	}
}

func TestMember(t *testing.T) {
	const text = ` { "a" : 1 , "b" : { "c" : [ "d:,}" , 2 ] } , "e" : "x" } `
	for part, want := range map[string]string{
		`"a"`: "", `1`: "a", `"b"`: "", `"c"`: "b", `2`: "b", `"x"`: "e", `{`: "",
	} {
		if got := Member([]byte(text), strings.Index(text, part)); got != want {
			t.Errorf("%s belongs to %q, want %q", part, got, want)
		}
	}
	if got := Member([]byte(`{"a":{"b":1}} x`), 14); got != "" {
		t.Errorf("what stands behind belongs to %q", got)
	}
	for _, other := range []string{``, `[{"a":1}]`, `"a":1`, `{"a`} {
		if got := Member([]byte(other), len(other)); got != "" {
			t.Errorf("%s: %q", other, got)
		}
	}
}
