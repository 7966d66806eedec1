package rules

import (
	"go/ast"
	"slices"
	"strings"
)

// bubbleMark, at the beginning of a line in a function's comment, says that the
// function is to be called inside a synctest bubble only.
const bubbleMark = "bubble:"

// Sleeps reports uses of time.Sleep for which it is not plain that they run
// inside a synctest bubble, where sleeping costs no time. Plain is, lexically:
//
//   - in a function literal that is an argument of synctest.Test or of
//     meshtest.Run, or of a
//     function in the same directory that calls its parameter inside such a
//     literal and nowhere else, or
//   - in a function that is an argument of synctest.Test by its name, or
//   - in a function whose comment has a line that begins with "bubble:".
//
// Calls of a function of the last two kinds, in its own directory, must be in
// such a place themselves. The rule is for test files and for helpers of tests, which import
// testing; elsewhere a time.Sleep is for a reader to judge.
func (t Tree) Sleeps() []string {
	var bad []string
	order, files := t.dirs()
	for _, dir := range order {
		helpers, starters := bubbleHelpers(files[dir]), bubbleStarters(files[dir])
		for _, f := range files[dir] {
			if f.Test() || f.name("testing") != "" {
				bad = append(bad, sleeps(f, helpers, starters)...)
			}
		}
	}
	return bad
}

// helper is a function that must be called inside a bubble.
type helper struct {
	name   string
	method bool
}

// bubbleHelpers are those of one directory.
func bubbleHelpers(files Tree) map[helper]bool {
	helpers := map[helper]bool{}
	for _, f := range files {
		ast.Inspect(f.AST, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				for line := range strings.Lines(n.Doc.Text()) {
					if strings.HasPrefix(line, bubbleMark) {
						helpers[helperOf(n)] = true
					}
				}
			case *ast.CallExpr:
				if startsBubble(f, n) {
					for _, arg := range n.Args {
						if id, ok := arg.(*ast.Ident); ok && !parameter(id.Name) {
							helpers[helper{name: id.Name}] = true
						}
					}
				}
			}
			return true
		})
	}
	return helpers
}

// bubbleStarters are the functions of one directory that run a function they are
// given in a bubble: each call of a parameter is inside a literal passed to
// synctest.Test, and there is one.
func bubbleStarters(files Tree) map[helper]bool {
	starters := map[helper]bool{}
	for _, f := range files {
		for _, decl := range f.AST.Decls {
			if d, ok := decl.(*ast.FuncDecl); ok && d.Body != nil && starts(f, d) {
				starters[helperOf(d)] = true
			}
		}
	}
	return starters
}

func starts(f *File, d *ast.FuncDecl) bool {
	given := map[string]bool{} // parameters that are functions
	for _, field := range d.Type.Params.List {
		if _, ok := field.Type.(*ast.FuncType); ok {
			for _, name := range field.Names {
				given[name.Name] = true
			}
		}
	}
	all, inBubble := 0, 0
	count := func(n *int) func(ast.Node) bool {
		return func(node ast.Node) bool {
			if id, ok := node.(*ast.Ident); ok && given[id.Name] {
				*n++
			}
			return true
		}
	}
	ast.Inspect(d.Body, count(&all))
	ast.Inspect(d.Body, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || !startsBubble(f, call) {
			return true
		}
		for _, arg := range call.Args {
			if lit, ok := arg.(*ast.FuncLit); ok {
				ast.Inspect(lit.Body, count(&inBubble))
			}
		}
		return false
	})
	return all > 0 && all == inBubble
}

// parameter says whether an identifier passed to synctest.Test is the usual
// name of its *testing.T rather than of a function.
func parameter(name string) bool { return name == "t" || name == "tb" }

func helperOf(d *ast.FuncDecl) helper { return helper{d.Name.Name, d.Recv != nil} }

// startsBubble says whether call is synctest.Test(…), or meshtest.Run(…), which is
// made of it.
func startsBubble(f *File, call *ast.CallExpr) bool {
	return isSelector(call.Fun, f.name("testing/synctest"), "Test") || isSelector(call.Fun, f.name(meshTest), "Run")
}

const meshTest = Module + "/mesh/meshtest"

// isSelector says whether e is pkg.name.
func isSelector(e ast.Expr, pkg, name string) bool {
	s, ok := e.(*ast.SelectorExpr)
	if !ok || pkg == "" || s.Sel.Name != name {
		return false
	}
	x, ok := s.X.(*ast.Ident)
	return ok && x.Name == pkg
}

// sleeps are the offences of one file.
func sleeps(f *File, helpers, starters map[helper]bool) []string {
	var bad []string
	clock := f.name("time")
	if clock == "." {
		return []string{f.at(f.AST.Package, "imports time with a dot, which hides Sleep")}
	}
	bubbles := map[ast.Node]bool{} // function literals that run in one
	var stack []ast.Node
	inside := func() bool {
		return slices.ContainsFunc(stack, func(n ast.Node) bool {
			d, ok := n.(*ast.FuncDecl)
			return bubbles[n] || ok && helpers[helperOf(d)]
		})
	}
	ast.Inspect(f.AST, func(n ast.Node) bool {
		if n == nil {
			stack = stack[:len(stack)-1]
			return true
		}
		stack = append(stack, n)
		switch n := n.(type) {
		case *ast.CallExpr:
			h, named := called(n)
			if startsBubble(f, n) || named && starters[h] {
				for _, arg := range n.Args {
					bubbles[arg] = true
				}
			}
			if named && helpers[h] && !inside() {
				bad = append(bad, f.at(n.Pos(), "%s is called outside a synctest bubble", h.name))
			}
		case *ast.SelectorExpr:
			if isSelector(n, clock, "Sleep") && !inside() {
				bad = append(bad, f.at(n.Pos(), "time.Sleep outside a synctest bubble"))
			}
		}
		return true
	})
	return bad
}

// called is the function or method that a call names.
func called(c *ast.CallExpr) (helper, bool) {
	switch fun := c.Fun.(type) {
	case *ast.Ident:
		return helper{name: fun.Name}, true
	case *ast.SelectorExpr:
		return helper{fun.Sel.Name, true}, true
	}
	return helper{}, false
}

// skips are the ways not to run a test.
var skips = []string{"Skip", "Skipf", "SkipNow"}

// Skips reports tests that skip, or that do less with -short: a test that does
// not run here runs nowhere. A fuzz target returns instead.
func (t Tree) Skips() []string {
	var bad []string
	for _, f := range t {
		if !f.Test() && f.name("testing") == "" {
			continue
		}
		ast.Inspect(f.AST, func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			_, plain := s.X.(*ast.Ident)
			if plain && slices.Contains(skips, s.Sel.Name) {
				bad = append(bad, f.at(s.Pos(), "a test skips"))
			}
			if isSelector(s, f.name("testing"), "Short") {
				bad = append(bad, f.at(s.Pos(), "a test asks for -short"))
			}
			return true
		})
	}
	return bad
}
