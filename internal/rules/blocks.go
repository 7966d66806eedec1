package rules

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/doc/comment"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"regexp"
	"slices"
	"strings"
)

// block is one piece of Go in a text.
type block struct {
	at     string // "file:line" of its first line
	params string // what a fragment takes for given
	text   string // as it stands there
}

// goBlock is a Go block of a document, perhaps with the line above that says what it takes for given.
var goBlock = regexp.MustCompile("(?ms)(?:^<!-- go: ([^\n]*) -->\n+)?^```go\n(.*?)^```$")

// fragmentImports are what fragments use without importing it, besides the packages of this
// module.
var fragmentImports = []string{"context", "encoding/json", "errors", "fmt", "log", "log/slog", "net/http", "os", "testing", "time"}

// Blocks reports Go in the given documents, by name, and in the comments of the packages that the
// compiler refuses: what is printed is copied.
//
// In a document Go stands between ```go and ```. A block with a package clause is a
// whole file. Another is a fragment: the statements of a function whose parameters
// the line above declares, such as
//
//	<!-- go: ctx context.Context, node *mesh.Node -->
//
// It may use the packages of this module and some of the standard library without imports, and need not
// use what it declares. In a comment Go is a code block of statements that name a package of
// this module, with ctx and t given. The go command, run in dir, says what packages export.
func (t Tree) Blocks(dir string, documents map[string][]byte) ([]string, error) {
	blocks := t.commentBlocks()
	for _, name := range slices.Sorted(maps.Keys(documents)) {
		blocks = append(blocks, documentBlocks(name, documents[name])...)
	}
	if len(blocks) == 0 {
		return nil, nil
	}
	imports := slices.Concat(fragmentImports, t.packages())
	fset := token.NewFileSet()
	imp, err := exports(fset, dir, imports)
	if err != nil {
		return nil, err
	}
	var bad []string
	for _, b := range blocks {
		bad = append(bad, b.check(fset, imp, imports)...)
	}
	return bad, nil
}

func documentBlocks(name string, text []byte) []block {
	var blocks []block
	for _, m := range goBlock.FindAllSubmatchIndex(text, -1) {
		b := block{at: fmt.Sprintf("%s:%d", name, 1+bytes.Count(text[:m[4]], []byte("\n"))), text: string(text[m[4]:m[5]])}
		if m[2] >= 0 {
			b.params = string(text[m[2]:m[3]])
		}
		blocks = append(blocks, b)
	}
	return blocks
}

// commentBlocks are those of the package comments.
func (t Tree) commentBlocks() []block {
	var named []string
	for _, p := range t.packages() {
		named = append(named, path.Base(p)+".")
	}
	var blocks []block
	for _, f := range t {
		for _, part := range new(comment.Parser).Parse(f.AST.Doc.Text()).Content {
			c, ok := part.(*comment.Code)
			names := func(p string) bool { return ok && strings.Contains(c.Text, p) }
			if ok && slices.ContainsFunc(named, names) && statements(c.Text) {
				at := fmt.Sprintf("%s:%d", f.Path, f.fset.Position(f.AST.Doc.Pos()).Line)
				blocks = append(blocks, block{at: at, params: "ctx context.Context, t *testing.T", text: c.Text})
			}
		}
	}
	return blocks
}

// statements says whether the text parses as the body of a function.
func statements(text string) bool {
	_, err := parser.ParseFile(token.NewFileSet(), "", wrap("", nil, text), 0)
	return err == nil
}

// wrap makes a file of a fragment.
func wrap(params string, imports []string, text string) string {
	var b strings.Builder
	b.WriteString("package p; ")
	for _, p := range imports {
		fmt.Fprintf(&b, "import %q; ", p)
	}
	fmt.Fprintf(&b, "func _(%s) {\n%s\n}\n", params, text)
	return b.String()
}

// packages are the import paths that a user of the module may import.
func (t Tree) packages() []string {
	var paths []string
	order, files := t.dirs()
	for _, dir := range order {
		usable := slices.ContainsFunc(files[dir], func(f *File) bool { return !f.Test() && f.AST.Name.Name != "main" })
		if usable && dir != "." && !strings.Contains("/"+dir+"/", "/internal/") {
			paths = append(paths, path.Join(Module, dir))
		}
	}
	return paths
}

func (b block) check(fset *token.FileSet, imp types.Importer, imports []string) []string {
	text, fragment := "//line "+b.at+"\n"+b.text, false
	if _, err := parser.ParseFile(token.NewFileSet(), "", text, parser.PackageClauseOnly); err != nil {
		text, fragment = wrap(b.params, imports, text), true
	}
	file, err := parser.ParseFile(fset, "fragment", text, 0)
	if err != nil {
		return []string{err.Error()}
	}
	var bad []string
	conf := types.Config{Importer: imp, Error: func(err error) {
		var e types.Error
		// Soft errors are about what is declared or imported and not used.
		if !errors.As(err, &e) || !e.Soft || !fragment {
			bad = append(bad, err.Error())
		}
	}}
	if _, err := conf.Check("p", fset, []*ast.File{file}, nil); err != nil && len(bad) == 0 && !fragment {
		bad = append(bad, err.Error())
	}
	return bad
}

// exports imports the packages and what they need from what the go command has built.
func exports(fset *token.FileSet, dir string, paths []string) (types.Importer, error) {
	cmd := exec.Command("go", append([]string{"list", "-export", "-deps", "-json=ImportPath,Export", "--"}, paths...)...)
	cmd.Dir = dir
	var problem bytes.Buffer
	cmd.Stderr = &problem
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("rules: go list: %w\n%s", err, problem.Bytes())
	}
	files := map[string]string{}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct{ ImportPath, Export string }
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("rules: go list: %w", err)
		}
		files[p.ImportPath] = p.Export
	}
	return importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) {
		if files[path] == "" {
			return nil, fmt.Errorf("package %s is not known", path)
		}
		return os.Open(files[path])
	}), nil
}
