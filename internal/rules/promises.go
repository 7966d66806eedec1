package rules

import (
	"fmt"
	"go/ast"
	"regexp"
	"slices"
)

// testName is a test as documents name it.
var testName = regexp.MustCompile(`\bTest[A-Z][A-Za-z0-9_]*\b`)

// Promises reports tests that a text names and that do not exist: a promise
// that names its test must not outlive it. The texts are the given documents,
// by name, and the comments of the packages.
func (t Tree) Promises(documents map[string][]byte) []string {
	exists := map[string]bool{}
	texts := map[string]string{}
	for name, text := range documents {
		texts[name] = string(text)
	}
	for _, f := range t {
		if !f.Test() {
			texts[f.Path] = f.AST.Doc.Text()
			continue
		}
		for _, d := range f.AST.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil {
				exists[fn.Name.Name] = true
			}
		}
	}
	var bad []string
	for name, text := range texts {
		for _, test := range testName.FindAllString(text, -1) {
			if !exists[test] {
				bad = append(bad, fmt.Sprintf("%s: there is no %s", name, test))
			}
		}
	}
	slices.Sort(bad)
	return bad
}
