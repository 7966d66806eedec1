package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// module writes a module of files into a directory and returns that.
func module(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	files["go.mod"] = "module example\n\ngo 1.26\n"
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// loaded loads the package p that the text is.
func loaded(t *testing.T, text string) *source {
	t.Helper()
	sources, err := load(module(t, map[string]string{"p/p.go": text}), []string{"p"})
	if err != nil {
		t.Fatal(err)
	}
	return sources[0]
}

// TestOperators applies every operator that fits a line.
func TestOperators(t *testing.T) {
	for _, tt := range []struct {
		line string // in func f(x, y int, ok bool, s string, c chan int) (n int, err error)
		want []string
	}{
		{"if ok { n = y }", []string{"if false && (ok) { n = y }", "if true || (ok) { n = y }", "if ok {  }"}},
		{"n = x + 2", []string{"", "n = x - 2", "n = x + (2 + 1)"}},
		{"n += x * y", []string{"", "n -= x * y", "n += x / y"}},
		{"s = s + s", []string{""}},
		{"n++", []string{"", "n--"}},
		{"c <- x", []string{""}},
		{"defer close(c)", []string{""}},
		{"ok = x < y && ok", []string{"", "ok = x <= y && ok", "ok = x < y || ok"}},
		{"ok = true", []string{"", "ok = false"}},
		{"ok = s == s", []string{"", "ok = s != s"}},
		{"c = make(chan int, 3)", []string{""}},
		{"fmt.Println(x + 1)", []string{""}},
		{"panic(x + 1)", nil},
		{"slog.Info(s)", nil},
		{"return 0, errors.New(s)", []string{"return 1, errors.New(s)", "return 0, nil"}},
		{"switch { case ok: n = 0 }", []string{"switch { case false && (ok): n = 0 }", "switch { case ok:  }", "switch { case ok: n = 1 }"}},
		{"for range x { break }", []string{"for range x {  }"}},
		{"const k = 7; n = k", []string{"const k = (2 * 7); n = k", "const k = 7; "}},
		{"func() { _ = ok }()", []string{"", "func() {  }()"}},
		{"v := x; n = v", nil}, // without the assignment v is not used
		{"ctx, cancel := context.WithCancel(context.Background()); defer cancel(); _ = ctx", nil},
		{"b := make([]byte, 7); defer clear(b)", nil},
	} {
		head := "package p\n\nimport (\n\"context\"\n\"errors\"\n\"fmt\"\n\"log/slog\"\n)\n\nvar _, _, _, _ = context.Canceled, errors.New, fmt.Print, slog.Info\n\n" +
			"func f(x, y int, ok bool, s string, c chan int) (n int, err error) {\n"
		s := loaded(t, head+tt.line+"\npanic(1)\n}\n")
		var got []string
		for _, m := range s.mutants() {
			if line := strings.Split(string(m.text()), "\n"); m.line == 13 && m.operator != "empty" && s.compiles(m) && len(line) == 16 {
				got = append(got, line[12])
			}
		}
		slices.Sort(got)
		slices.Sort(tt.want)
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s:\n got %q\nwant %q", tt.line, got, tt.want)
		}
	}
}

// TestLeftOut has functions in which nothing is changed, beside one in which it is.
func TestLeftOut(t *testing.T) {
	s := loaded(t, `package p

type observer struct{}

func (o *observer) told(n int) { n = n + 1 }

type T struct{}

func (T) String() string { if true { return "a" }; return "b" }

func (T) Empty(o *observer) (int, error) { o.told(1); panic("no") }
`)
	var got []string
	for _, m := range s.mutants() {
		got = append(got, m.String())
	}
	want := []string{"p/p.go:11:43: empty: Empty → return *new(int), *new(error);"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func TestQuotas(t *testing.T) {
	for _, tt := range []struct {
		n     int
		sizes []int
		want  []int
	}{
		{10, []int{1, 1}, []int{5, 5}},
		{10, []int{98, 1, 1}, []int{10, 0, 0}},
		{5, []int{1, 1, 1}, []int{2, 2, 1}},
		{200, []int{3000, 3500, 5000, 9000}, []int{29, 34, 49, 88}},
		{0, []int{1}, []int{0}},
	} {
		if got := quotas(tt.n, tt.sizes); !slices.Equal(got, tt.want) {
			t.Errorf("%d among %d: %d, want %d", tt.n, tt.sizes, got, tt.want)
		}
	}
}

// TestSampleReplays draws twice with one seed and once with another.
func TestSampleReplays(t *testing.T) {
	text := "package p\n\nfunc f(x int) int {\n" + strings.Repeat("if x > 1 {\nx += 2\n}\n", 50) + "return x\n}\n"
	draw := func(seed uint64) (drawn []string) {
		for _, m := range sample([]*source{loaded(t, text)}, 20, seed) {
			drawn = append(drawn, m.String())
		}
		return drawn
	}
	first := draw(1)
	if len(first) != 20 || !slices.Equal(first, draw(1)) || slices.Equal(first, draw(2)) {
		t.Errorf("one seed draws %q", first)
	}
	lines := map[string]bool{}
	for _, m := range first {
		at := strings.Join(strings.Split(m, ":")[:2], ":")
		if lines[at] {
			t.Errorf("%s is drawn twice", at)
		}
		lines[at] = true
	}
}

func TestParseProfile(t *testing.T) {
	s := loaded(t, "package p\n\nfunc f(x int) int {\n\tif x > 1 {\n\t\treturn 2\n\t}\n\treturn x\n}\n")
	all, ran, err := parseProfile([]byte("mode: set\nexample/p/p.go:3.19,4.11 1 1\nexample/p/p.go:4.11,6.3 1 0\n"), s)
	if err != nil {
		t.Fatal(err)
	}
	u := &suite{blocks: all, tests: []test{{name: "A", reaches: ran}, {name: "B"}}}
	for _, m := range s.mutants() {
		want := ""
		if m.line < 5 {
			want = "A"
		}
		var got string
		for _, t := range u.reaching(m) {
			got += t.name
		}
		if got != want {
			t.Errorf("%s is reached by %q, want %q", m, got, want)
		}
	}
	if _, _, err := parseProfile([]byte("mode: set\nnonsense\n"), s); err == nil {
		t.Error("nonsense is a profile")
	}
}

// TestWhatRuns: a change is tried with the tests that run its statement, as coverage counts it.
func TestWhatRuns(t *testing.T) {
	s := loaded(t, `package p

func f(x int, c chan int) int {
	switch {
	case x > 1:
		return 11
	case x > 2:
		return 12
	}
	select {
	case c <- x + 3:
		return 13
	default:
	}
	if x > 4 {
		return 14
	} else if x > 5 {
		return 15
	}
	g(func() int { return 16 }, x+6)
	return 17
}

func g(func() int, int) {}
`)
	// The blocks of f, by their places, as the go command's cover has them.
	blocks := map[string]block{
		"start":     {position{3, 31}, position{4, 9}},
		"case 11":   {position{5, 13}, position{6, 12}},
		"case 12":   {position{7, 13}, position{8, 12}},
		"select":    {position{10, 2}, position{10, 9}},
		"case 13":   {position{11, 18}, position{12, 12}},
		"default":   {position{13, 10}, position{13, 10}},
		"if":        {position{15, 2}, position{15, 11}},
		"then":      {position{15, 11}, position{17, 3}},
		"else":      {position{17, 8}, position{17, 18}},
		"else then": {position{17, 18}, position{19, 3}},
		"call":      {position{20, 2}, position{20, 15}},
		"literal":   {position{20, 15}, position{20, 28}},
		"end":       {position{21, 2}, position{21, 11}},
	}
	u := &suite{blocks: map[string][]block{}}
	for name, b := range blocks {
		u.blocks["p/p.go"] = append(u.blocks["p/p.go"], b)
		u.tests = append(u.tests, test{name: name, reaches: map[string][]block{"p/p.go": {b}}})
	}
	want := map[string]string{
		"1": "start", "2": "start", "3": "select", "4": "if", "5": "else", "6": "call",
		"11": "case 11", "12": "case 12", "13": "case 13", "14": "then", "15": "else then", "16": "literal", "17": "end",
	}
	for _, m := range s.mutants() {
		number := string(m.file.text[m.from:m.to])
		if m.operator != "number" {
			continue
		}
		var got []string
		for _, t := range u.reaching(m) {
			got = append(got, t.name)
		}
		if !slices.Equal(got, []string{want[number]}) {
			t.Errorf("%s is reached by %q, want %q", m, got, want[number])
		}
		delete(want, number)
	}
	if len(want) > 0 {
		t.Errorf("not changed: %v", want)
	}
}

func TestBatches(t *testing.T) {
	var tests []test
	for i := range 12 {
		tests = append(tests, test{lasts: time.Duration(i) * 100 * time.Millisecond})
	}
	var got []int
	for _, b := range batches(tests) {
		got = append(got, len(b))
	}
	if want := []int{3, 3, 5, 1}; !slices.Equal(got, want) {
		t.Errorf("batches of %d, want %d", got, want)
	}
}

// TestMutateUnbuilt: a change with which the tests do not compile is none.
func TestMutateUnbuilt(t *testing.T) {
	root := module(t, map[string]string{
		"p/p.go":      "package p\n\nfunc Size() int { return size + 1 }\n\nconst size = 3\n",
		"p/p_test.go": "package p\n\nimport \"testing\"\n\nfunc TestSize(t *testing.T) {\n\tvar b [4]bool\n\tb[size] = Size() == 4\n\tif !b[3] {\n\t\tt.Error(b)\n\t}\n}\n",
	})
	var out strings.Builder
	o := options{packages: "p", seed: 1, jobs: 2, least: 90, patience: time.Second}
	if err := mutate(t.Context(), &out, root, o); err != nil {
		t.Error(err)
	}
	for _, want := range []string{"LEFT OUT p/p.go:5:14: number: 3 → (2 * 3): the tests do not compile with it\n", "1 mutants, 1 noticed (100.0 %)\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the report has no %q:\n%s", want, &out)
		}
	}
}

// TestMutate tries every change of a small package whose tests notice some. One
// of them makes a loop endless.
func TestMutate(t *testing.T) {
	root := module(t, map[string]string{
		"p/p.go": `package p

func Sum(n int) int {
	sum := 0
	for n > 0 {
		sum += n
		n--
	}
	return sum
}

func untested(n int) bool { return n > 7 }
`,
		"p/p_test.go": `package p

import "testing"

func TestSum(t *testing.T) {
	if Sum(3) != 6 {
		t.Error("wrong")
	}
}
`})
	before, err := os.ReadFile(filepath.Join(root, "p/p.go"))
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	o := options{packages: "p", n: 7, seed: 1, jobs: 2, least: 90, patience: time.Second}
	err = mutate(t.Context(), &out, root, o)
	if !errors.Is(err, errTooFew) {
		t.Errorf("error %v, want that too few are noticed", err)
	}
	for _, want := range []string{"seed 1\n", "SURVIVED p/p.go:12:40: number: 7 → (7 + 1) (0 tests run it)\n", "6 mutants, 5 noticed (83.3 %)\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the report has no %q:\n%s", want, &out)
		}
	}
	if after, err := os.ReadFile(filepath.Join(root, "p/p.go")); err != nil || string(after) != string(before) {
		t.Errorf("the source has changed: %v", err)
	}
	o.least, o.at = 0, "p/p.go:3"
	out.Reset()
	if err := mutate(t.Context(), &out, root, o); err != nil {
		t.Error(err)
	}
	if want := "1 mutants, 1 noticed (100.0 %)\n"; !strings.HasSuffix(out.String(), want) {
		t.Errorf("the report ends not with %q:\n%s", want, &out)
	}
}

// TestMutateRefuses has tests that fail without a change, and flags out of range.
func TestMutateRefuses(t *testing.T) {
	root := module(t, map[string]string{
		"p/p.go":      "package p\n\nfunc F(n int) int { return n + 1 }\n",
		"p/p_test.go": "package p\n\nimport \"testing\"\n\nfunc TestF(t *testing.T) { t.Error(F(1)) }\n",
	})
	for _, o := range []options{
		{packages: "p", n: 1, jobs: 1},
		{packages: "q", n: 1, jobs: 1},
		{packages: "p", n: -1, jobs: 1},
		{packages: "p", n: 1},
		{packages: "p", n: 1, jobs: 1, least: 101},
		{packages: "p", n: 1, jobs: 1, at: "p/p.go:1"},
	} {
		if err := mutate(t.Context(), &strings.Builder{}, root, o); err == nil || errors.Is(err, errTooFew) {
			t.Errorf("%+v: error %v", o, err)
		}
	}
}

// TestEachStops has an error end what each does.
func TestEachStops(t *testing.T) {
	failed, calls := errors.New("no"), 0
	err := each(1, 10, func(i int) error {
		calls++
		if i == 3 {
			return fmt.Errorf("%d: %w", i, failed)
		}
		return nil
	})
	if !errors.Is(err, failed) || calls != 4 {
		t.Errorf("%d calls, error %v", calls, err)
	}
}
