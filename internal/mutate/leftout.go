package main

import (
	"go/ast"
	"go/types"
	"slices"
	"strings"
)

// leftOut says whether nothing below n is changed, as the package comment
// explains.
func (w *finder) leftOut(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.GenDecl:
		return n.Tok.String() == "import"
	case *ast.FuncDecl:
		return slices.Contains(textMethods, n.Name.Name) || observes(n)
	case *ast.Field:
		return true // types and tags
	case *ast.ExprStmt:
		return w.tells(n) || w.panics(n)
	case *ast.DeferStmt:
		return w.tells(n) || w.freesOnly(n.Call)
	case *ast.CompositeLit:
		return w.tells(n.Type)
	case *ast.CallExpr:
		return w.texts(n)
	}
	return false
}

// textMethods make text for people.
var textMethods = []string{"String", "GoString", "Error", "Format", "LogValue"}

// observes says whether d is a method of a type named observer.
func observes(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return false
	}
	t := d.Recv.List[0].Type
	if s, ok := t.(*ast.StarExpr); ok {
		t = s.X
	}
	id, ok := t.(*ast.Ident)
	return ok && id.Name == "observer"
}

// telling says whether a package is for those who watch.
func telling(path string) bool {
	return path == "log/slog" || strings.HasPrefix(path, "go.opentelemetry.io/") ||
		strings.HasSuffix(path, "agentmesh/metrics") || strings.HasSuffix(path, "agentmesh/witness")
}

// tells says whether n uses something of a package for those who watch, or calls an
// observer, outside of function literals.
func (w *finder) tells(n ast.Node) bool {
	if n == nil {
		return false
	}
	found := false
	ast.Inspect(n, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			return false
		case *ast.Ident:
			if o := w.s.info.Uses[n]; o != nil {
				found = found || o.Pkg() != nil && telling(o.Pkg().Path()) || ofObserver(o)
			}
		}
		return !found
	})
	return found
}

// ofObserver says whether o is a method of a type named observer.
func ofObserver(o types.Object) bool {
	f, ok := o.(*types.Func)
	if !ok || f.Signature().Recv() == nil {
		return false
	}
	t := f.Signature().Recv().Type()
	if p, ok := t.(*types.Pointer); ok {
		t = p.Elem()
	}
	named, ok := t.(*types.Named)
	return ok && named.Obj().Name() == "observer"
}

// panics says whether s speaks of our own mistakes.
func (w *finder) panics(s *ast.ExprStmt) bool {
	c, ok := s.X.(*ast.CallExpr)
	return ok && w.builtin(c.Fun, "panic")
}

func (w *finder) builtin(f ast.Expr, names ...string) bool {
	id, ok := f.(*ast.Ident)
	if !ok || !slices.Contains(names, id.Name) {
		return false
	}
	_, ok = w.s.info.Uses[id].(*types.Builtin)
	return ok
}

// texts says whether a call makes text for people, panics or makes room.
func (w *finder) texts(c *ast.CallExpr) bool {
	switch fun := c.Fun.(type) {
	case *ast.Ident:
		return w.builtin(fun, "panic", "make")
	case *ast.SelectorExpr:
		o := w.s.info.Uses[fun.Sel]
		if o == nil || o.Pkg() == nil {
			return false
		}
		path := o.Pkg().Path()
		return path == "fmt" || path == "errors" && o.Name() == "New"
	}
	return false
}

// freesOnly says whether a deferred call does nothing but free memory early, or wipe it.
func (w *finder) freesOnly(c *ast.CallExpr) bool {
	if w.builtin(c.Fun, "clear") {
		return true
	}
	if t := w.s.info.Types[c.Fun].Type; t != nil && t.String() == "context.CancelFunc" {
		return true
	}
	sel, ok := c.Fun.(*ast.SelectorExpr)
	if !ok || sel.Sel.Name != "Stop" {
		return false
	}
	o := w.s.info.Uses[sel.Sel]
	return o != nil && o.Pkg() != nil && o.Pkg().Path() == "time"
}
