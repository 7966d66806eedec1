package strictjson

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/infrafabric/agentmesh/internal/corpus"
)

const depth = 64

// reference is what a general library makes of the same input.
func reference(src []byte) ([]byte, error) {
	return jsontext.AppendFormat(nil, src, jsontext.PreserveRawStrings(true))
}

func TestCompact(t *testing.T) {
	for in, want := range map[string]string{
		` null `:                       `null`,
		"\t{ \"a\" : [ 1 , 2.50 ] }\n": `{"a":[1,2.50]}`,
		`[9007199254740993,1.0,-0,-0.0,1E+2,1e-07,0]`:        `[9007199254740993,1.0,-0,-0.0,1E+2,1e-07,0]`,
		`{"":"","\u0061":"\/","A":"\ud83d\ude00","ä":"<&>"}`: `{"":"","\u0061":"\/","A":"\ud83d\ude00","ä":"<&>"}`,
		`{"a":{"a":{"a":1}},"b":{"a":2}}`:                    `{"a":{"a":{"a":1}},"b":{"a":2}}`,
		`[[],{},[{}], true,false]`:                           `[[],{},[{}],true,false]`,
	} {
		got, err := AppendCompact([]byte("x"), []byte(in), depth)
		if err != nil || string(got) != "x"+want {
			t.Errorf("%s: %s, %v", in, got, err)
		}
	}
}

func TestRefused(t *testing.T) {
	many := new(strings.Builder)
	for i := range 100 {
		fmt.Fprintf(many, `"k%d":0,`, i)
	}
	for in, want := range map[string]error{
		``: ErrSyntax, ` `: ErrSyntax, `1 2`: ErrSyntax, `{`: ErrSyntax, `[1,]`: ErrSyntax, `[,1]`: ErrSyntax, `{"a"}`: ErrSyntax,
		`{"a":1,}`: ErrSyntax, `{a:1}`: ErrSyntax, `01`: ErrSyntax, `1.`: ErrSyntax, `.5`: ErrSyntax, `+1`: ErrSyntax, `1e`: ErrSyntax, `-`: ErrSyntax,
		`nul`: ErrSyntax, `nulll`: ErrSyntax, `True`: ErrSyntax, `"`: ErrSyntax, `"\`: ErrSyntax, `"\x"`: ErrSyntax, `"\u12"`: ErrSyntax, `"\u12g4"`: ErrSyntax,
		"\"\n\"": ErrSyntax, "\"\x00\"": ErrSyntax, `'a'`: ErrSyntax, "\ufeff1": ErrSyntax, `[1}`: ErrSyntax, `{"a":1]`: ErrSyntax, `1//x`: ErrSyntax, "\u00a01": ErrSyntax,
		"\"\xff\"": ErrUTF8, "\"\xc0\x80\"": ErrUTF8, "\"\xed\xa0\x80\"": ErrUTF8, `"\ud800"`: ErrSurrogate, `"\udc00"`: ErrSurrogate, `"\ud800\u0041"`: ErrSurrogate, `"\ud800x"`: ErrSurrogate,
		`{"a":1,"a":1}`: ErrDuplicate, `{"a":1,"\u0061":1}`: ErrDuplicate, `{"x":{"b":1,"c":2,"b":3}}`: ErrDuplicate, `{"\n":1,"\u000a":1}`: ErrDuplicate,
		`{"😀":1,"\ud83d\ude00":1}`:                            ErrDuplicate,
		`{` + many.String() + `"k7":1}`:                       ErrDuplicate,
		strings.Repeat("[", 65) + strings.Repeat("]", 65):     ErrDepth,
		strings.Repeat(`{"a":`, 65) + strings.Repeat("}", 65): ErrDepth,
	} {
		if got, err := AppendCompact(nil, []byte(in), depth); !errors.Is(err, want) {
			t.Errorf("%.40q: %s, %v, want %v", in, got, err, want)
		}
	}
	if _, err := AppendCompact(nil, []byte(strings.Repeat("[", 64)+strings.Repeat("]", 64)), depth); err != nil {
		t.Errorf("64 levels: %v", err)
	}
	if _, err := AppendCompact(nil, []byte(`{`+many.String()+`"k":1}`), depth); err != nil {
		t.Errorf("100 names: %v", err)
	}
}

func TestCorpus(t *testing.T) {
	lines, err := corpus.Incidents()
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range lines {
		want, err := reference(line)
		if err != nil {
			t.Fatal(err)
		}
		got, err := AppendCompact(nil, line, depth)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("line %d: %v", i, err)
		}
		for cut := range got[:min(len(got), 500)] {
			if _, err := AppendCompact(nil, got[:cut], depth); err == nil {
				t.Fatalf("line %d cut at %d: no error", i, cut)
			}
		}
	}
}

func TestParts(t *testing.T) {
	src := []byte(`{"a":1,"b\n\"":{"x":[1,{"y":"}"}]},"c":"\ud83d\ude00,:\\","d":[],"e":null}`)
	var names, values []string
	ok, err := Fields(src, func(name string, value []byte, at int) error {
		names, values = append(names, name), append(values, string(value))
		if !bytes.HasPrefix(src[at:], value) {
			t.Errorf("%s does not stand at byte %d", value, at)
		}
		return nil
	})
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
	if want := []string{"a", "b\n\"", "c", "d", "e"}; !slices.Equal(names, want) {
		t.Errorf("names %q", names)
	}
	if want := []string{`1`, `{"x":[1,{"y":"}"}]}`, `"\ud83d\ude00,:\\"`, `[]`, `null`}; !slices.Equal(values, want) {
		t.Errorf("values %q", values)
	}
	if text, ok := Unquote([]byte(values[2])); !ok || text != "😀,:\\" {
		t.Errorf("unquoted %q, %v", text, ok)
	}
	if list, ok := Strings([]byte(`["a","\u00e4",""]`)); !ok || !slices.Equal(list, []string{"a", "ä", ""}) {
		t.Errorf("strings %q, %v", list, ok)
	}
	for _, bad := range []string{`[1]`, `["a",null]`, `{}`, `"a"`, `[[]]`} {
		if _, ok := Strings([]byte(bad)); ok {
			t.Errorf("%s is a list of strings", bad)
		}
	}
	for _, bad := range []string{`[]`, `1`, `"{}"`, `null`} {
		if ok, _ := Fields([]byte(bad), nil); ok {
			t.Errorf("%s is an object", bad)
		}
	}
	stop := errors.New("stop")
	if _, err := Fields([]byte(`{"a":1,"b":2}`), func(string, []byte, int) error { return stop }); err != stop {
		t.Errorf("callback's error: %v", err)
	}
}

// kind returns which error it is.
func kind(err error) error {
	if e := new(Error); errors.As(err, &e) {
		return e.Kind
	}
	return err
}

func FuzzCompact(f *testing.F) {
	f.Add([]byte(`{"a":[1,2.5e-3,"\u00e4\ud83d\ude00",{"b":null}], "c":true }`))
	f.Add([]byte(`{"a":1,"\u0061":2}`))
	f.Add([]byte("\"\xed\xa0\x80\""))
	f.Add([]byte(" "))
	f.Add([]byte(` [ "\ud83d" ] `))
	f.Fuzz(func(t *testing.T, src []byte) {
		got, err := AppendCompact(nil, src, 1000)
		want, wantErr := reference(src)
		if (err == nil) != (wantErr == nil) || err == nil && !bytes.Equal(got, want) {
			t.Fatalf("%q: %q, %v; the library says %q, %v", src, got, err, want, wantErr)
		}
		check := Check(src, 1000)
		if loose := err == nil && !bytes.Equal(got, src); loose != errors.Is(check, ErrLoose) || !loose && kind(check) != kind(err) {
			t.Fatalf("%q: Check says %v, AppendCompact %v", src, check, err)
		}
		if err != nil {
			at := err.(*Error).Offset
			if at < 0 || at > len(src) {
				t.Fatalf("%q: %v", src, err)
			}
			_ = Member(src, at)
			return
		}
		last := -1
		for i, c := range got[:min(len(got), 100)] {
			if at := Source(src, i); at <= last || src[at] != c {
				t.Fatalf("%q: byte %d of %q is at %d, after %d", src, i, got, at, last)
			} else {
				last = at
			}
		}
		if again, err := AppendCompact(nil, got, 1000); err != nil || !bytes.Equal(again, got) {
			t.Fatalf("%q is not stable: %q, %v", got, again, err)
		}
		if text, ok := Unquote(got); ok {
			back, ok := Unquote(AppendQuote(nil, text))
			if !ok || back != text {
				t.Fatalf("%q quoted and unquoted is %q", text, back)
			}
			if lib, err := jsontext.AppendQuote(nil, text); err != nil || !bytes.Equal(lib, AppendQuote(nil, text)) {
				t.Fatalf("%q is quoted %q, the library says %q, %v", text, AppendQuote(nil, text), lib, err)
			}
		}
		_, _ = Fields(got, func(string, []byte, int) error { return nil })
		_, _ = Strings(got)
	})
}

func BenchmarkCompact(b *testing.B) {
	src := []byte(`{"id":"a1b2","status":"degraded","rtt":12.5,"peers":["agent-a","agent-b"],"detail":{"relay":"turn-2","loss":0.013,"since":"2026-11-23T08:30:00Z"},"text":"the relay answers late and drops one packet in eighty, see the attached report"}`)
	dst := make([]byte, 0, len(src))
	for name, f := range map[string]func() error{
		"strict":  func() error { _, err := AppendCompact(dst, src, depth); return err },
		"check":   func() error { return Check(src, depth) },
		"library": func() error { _, err := jsontext.AppendFormat(dst, src, jsontext.PreserveRawStrings(true)); return err },
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(src)))
			for b.Loop() {
				if err := f(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
