package corpus_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/big"
	"regexp"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"go.uber.org/goleak"

	"github.com/infrafabric/agentmesh/internal/corpus"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func incidents(t *testing.T) [][]byte {
	t.Helper()
	all, err := corpus.Incidents()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestCountAndSizes(t *testing.T) {
	all := incidents(t)
	if len(all) != 200 {
		t.Fatalf("%d reports, want 200", len(all))
	}
	var large, usual int
	for i, r := range all {
		switch n := len(r); {
		case n < 100 || n > 20000:
			t.Errorf("line %d has %d bytes, want 100 to 20000", i+1, n)
		case n > 16<<10:
			large++
		case n >= 300 && n <= 3000:
			usual++
		}
	}
	if large < 10 {
		t.Errorf("%d reports over 16 KiB, want 10 at least", large)
	}
	if usual <= 100 {
		t.Errorf("%d reports of 300 to 3000 bytes, want more than half", usual)
	}
}

// TestWellFormed: one object a line, by a parser that refuses duplicate names
// and invalid UTF-8, both of which encoding/json lets pass.
func TestWellFormed(t *testing.T) {
	deepest := 0
	for i, r := range incidents(t) {
		if !utf8.Valid(r) {
			t.Errorf("line %d is not UTF-8", i+1)
		}
		depth, err := parse(r)
		if err != nil {
			t.Errorf("line %d: %v", i+1, err)
		}
		if depth > 8 {
			t.Errorf("line %d is nested %d deep, want 8 at most", i+1, depth)
		}
		deepest = max(deepest, depth)
	}
	if deepest != 8 {
		t.Errorf("the deepest report has %d levels, want 8", deepest)
	}
}

// parse returns how deep one object is nested.
func parse(r []byte) (depth int, err error) {
	d := jsontext.NewDecoder(bytes.NewReader(r),
		jsontext.AllowDuplicateNames(false), jsontext.AllowInvalidUTF8(false))
	if k := d.PeekKind(); k != '{' {
		return 0, fmt.Errorf("starts with %v, want an object", k)
	}
	values := 0
	for {
		_, err := d.ReadToken()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return depth, err
		}
		depth = max(depth, d.StackDepth())
		if d.StackDepth() == 0 {
			values++
		}
	}
	if values != 1 {
		return depth, fmt.Errorf("%d values on a line, want 1", values)
	}
	return depth, nil
}

// TestParseRefuses makes sure that the parser of these tests can fail.
func TestParseRefuses(t *testing.T) {
	for _, bad := range []string{`{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, `[]`, `{}{}`, `{"a":"` + "\xff" + `"}`, `{"a":"\ud800"}`, `{`} {
		if _, err := parse([]byte(bad)); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

// TestHolds: every property that the package promises is there, as bytes.
func TestHolds(t *testing.T) {
	text := bytes.Join(incidents(t), []byte("\n"))
	for what, pattern := range map[string]string{
		"1.0":                     `[:,\[] ?1\.0[,}\]]`,
		"negative zero":           `-0\.0[,}\]]`,
		"exponent e-":             `\de-\d`,
		"exponent E+":             `\dE\+\d`,
		"exponent without a sign": `\d[eE]\d`,
		"2^64-1":                  `[^0-9]18446744073709551615[^0-9]`,
		"empty object":            `[:,\[] ?\{\}`,
		"empty array":             `[:,\[] ?\[\]`,
		"raw <":                   `<`,
		"raw >":                   `>`,
		"raw &":                   `&`,
		"escaped <":               `\\u003c`,
		"escaped &":               `\\u0026`,
		"escaped /":               `\\/`,
		"escaped quote":           `\\"`,
		"escaped backslash":       `\\\\`,
		"escaped line end":        `\\n`,
		"escaped NUL":             `\\u0000`,
		"escaped ESC":             `\\u001b`,
		"escaped letter":          `\\u00e9`,
		"upper-case escape":       `\\u00[C-F][0-9A-F]`,
		"surrogate pair":          `\\ud83[cd]\\ud[c-f]`,
		"raw line separator":      "\u2028",
		"raw soft hyphen":         "\u00ad",
		"raw joiner":              "\u200d",
		"space after a colon":     `": `,
		"no space after a colon":  `":["{0-9tfn]`,
	} {
		if !regexp.MustCompile(pattern).Match(text) {
			t.Errorf("no %s", what)
		}
	}
}

func TestHoldsBigIntegers(t *testing.T) {
	limit := new(big.Int).Lsh(big.NewInt(1), 53)
	count := 0
	for _, m := range regexp.MustCompile(`[:,\[] ?(\d{16,})[,}\]]`).FindAllSubmatch(bytes.Join(incidents(t), []byte("\n")), -1) {
		if n, ok := new(big.Int).SetString(string(m[1]), 10); ok && n.Cmp(limit) > 0 {
			count++
		}
	}
	if count < 50 {
		t.Errorf("%d integers above 2^53, want 50 at least", count)
	}
}

func TestHoldsScripts(t *testing.T) {
	text := string(bytes.Join(incidents(t), []byte("\n")))
	for name, table := range map[string]*unicode.RangeTable{
		"Arabic": unicode.Arabic, "Cyrillic": unicode.Cyrillic, "Devanagari": unicode.Devanagari, "Greek": unicode.Greek,
		"Han": unicode.Han, "Hangul": unicode.Hangul, "Hebrew": unicode.Hebrew, "Hiragana": unicode.Hiragana,
		"Katakana": unicode.Katakana, "Thai": unicode.Thai, "combining mark": unicode.Mn, "spacing mark": unicode.Mc,
		"symbol (emoji)": unicode.So,
	} {
		if !strings.ContainsFunc(text, func(r rune) bool { return unicode.Is(table, r) }) {
			t.Errorf("no raw %s", name)
		}
	}
}

// TestReportsAreDistinct: a test that loses one and doubles another must notice.
func TestReportsAreDistinct(t *testing.T) {
	seen := map[string]int{}
	for i, r := range incidents(t) {
		if j, ok := seen[string(r)]; ok {
			t.Errorf("lines %d and %d are the same", j, i+1)
		}
		seen[string(r)] = i + 1
	}
}

func TestReportsDoNotShareMemory(t *testing.T) {
	all := incidents(t)
	second := string(all[1])
	_ = append(all[0], "overwritten?"...)
	if string(all[1]) != second {
		t.Error("appending to a report changed the next")
	}
}

func TestOutsideTheModule(t *testing.T) {
	t.Chdir(t.TempDir())
	if _, err := corpus.Incidents(); !errors.Is(err, corpus.ErrNoModule) {
		t.Errorf("got %v", err)
	}
}
