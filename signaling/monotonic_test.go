package signaling

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// TestLivenessIsMonotonic: nothing here keeps a moment as a number of the wall clock,
// which a clock that is set would make older or younger; only the format does, in
// milliseconds. A dead server looks alive for an hour when the clock is set back by
// an hour and somebody compares such numbers.
func TestLivenessIsMonotonic(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	format := map[string]bool{"envelope.go": true, "clock.go": true}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			switch s.Sel.Name {
			case "Unix", "UnixNano", "UnixMicro":
				t.Errorf("%v: %s", fset.Position(s.Pos()), s.Sel.Name)
			case "UnixMilli":
				if !format[name] {
					t.Errorf("%v: %s", fset.Position(s.Pos()), s.Sel.Name)
				}
			}
			return true
		})
	}
}
