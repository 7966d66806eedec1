package main

import (
	"go/ast"
	"go/constant"
	"go/token"
	"go/types"
	"slices"
	"strings"
)

// opposite operators, by the name of what exchanges them.
var opposite = map[token.Token]struct {
	name string
	with token.Token
}{
	token.LSS: {"boundary", token.LEQ}, token.LEQ: {"boundary", token.LSS},
	token.GTR: {"boundary", token.GEQ}, token.GEQ: {"boundary", token.GTR},
	token.EQL: {"equality", token.NEQ}, token.NEQ: {"equality", token.EQL},
	token.LAND: {"logic", token.LOR}, token.LOR: {"logic", token.LAND},
	token.ADD: {"arithmetic", token.SUB}, token.SUB: {"arithmetic", token.ADD},
	token.MUL: {"arithmetic", token.QUO}, token.QUO: {"arithmetic", token.MUL},
	token.SHL: {"arithmetic", token.SHR}, token.SHR: {"arithmetic", token.SHL},
	token.AND: {"arithmetic", token.OR}, token.OR: {"arithmetic", token.AND},
	token.ADD_ASSIGN: {"arithmetic", token.SUB_ASSIGN}, token.SUB_ASSIGN: {"arithmetic", token.ADD_ASSIGN},
	token.OR_ASSIGN: {"arithmetic", token.AND_ASSIGN}, token.AND_ASSIGN: {"arithmetic", token.OR_ASSIGN},
	token.INC: {"arithmetic", token.DEC}, token.DEC: {"arithmetic", token.INC},
}

// finder collects the changes of one file.
type finder struct {
	s     *source
	f     *file
	found []mutant
	stack []ast.Node // what is looked at, and above it what it stands in
}

// mutants are all changes of the package, in the order of its files. Not all of them compile.
func (s *source) mutants() []mutant {
	var all []mutant
	for _, f := range s.files {
		if strings.HasSuffix(f.name, "/doc.go") {
			continue
		}
		w := &finder{s: s, f: f}
		ast.Inspect(f.tree, w.visit)
		all = append(all, w.found...)
	}
	return all
}

func (w *finder) visit(n ast.Node) bool {
	if n == nil {
		w.stack = w.stack[:len(w.stack)-1]
		return true
	}
	if w.leftOut(n) {
		return false
	}
	w.stack = append(w.stack, n)
	switch n := n.(type) {
	case *ast.FuncDecl:
		w.empty(n)
	case *ast.IfStmt:
		w.condition(n.Cond)
		w.add("always", n.Cond.Pos(), n.Cond.End(), "true || ("+w.source(n.Cond)+")")
	case *ast.CaseClause:
		if s, ok := w.parent(1).(*ast.SwitchStmt); ok && s.Tag == nil && len(n.List) == 1 {
			w.condition(n.List[0])
		}
	case *ast.BinaryExpr:
		if w.numeric(n.X) || n.Op.Precedence() <= token.EQL.Precedence() {
			w.operator(n.Op, n.OpPos)
		}
	case *ast.AssignStmt:
		if n.Tok != token.DEFINE {
			w.statement(n, "remove")
		}
		if w.numeric(n.Lhs[0]) {
			w.operator(n.Tok, n.TokPos)
		}
	case *ast.IncDecStmt:
		w.statement(n, "remove")
		w.operator(n.Tok, n.TokPos)
	case *ast.ExprStmt, *ast.SendStmt, *ast.GoStmt, *ast.BranchStmt:
		w.statement(n.(ast.Stmt), "remove")
	case *ast.DeferStmt:
		w.statement(n, "defer")
	case *ast.ReturnStmt:
		w.returned(n)
	case *ast.BasicLit:
		w.number(n)
	case *ast.Ident:
		w.truth(n)
	}
	return true
}

// parent is the node in which that stands which is looked at, for 0, or one above it.
func (w *finder) parent(n int) ast.Node {
	if len(w.stack) <= n+1 {
		return nil
	}
	return w.stack[len(w.stack)-2-n]
}

// begins is where the innermost statement of a list begins that holds what is looked at,
// or no place. Coverage counts those: what chooses between cases runs when their switch does, and
// what stands behind a function literal when the literal's statement does.
func (w *finder) begins() token.Pos {
	for i := len(w.stack) - 1; i > 0; i-- {
		n := w.stack[i]
		switch n.(type) {
		case *ast.FuncDecl, *ast.FuncLit:
			return token.NoPos
		case *ast.CaseClause, *ast.CommClause:
			continue // of the list of a switch or select
		}
		switch in := w.stack[i-1].(type) {
		case *ast.BlockStmt:
			return n.Pos()
		case *ast.IfStmt:
			if in.Else == n {
				return n.Pos()
			}
		case *ast.CaseClause:
			if !slices.ContainsFunc(in.List, func(e ast.Expr) bool { return e == n }) {
				return n.Pos()
			}
		case *ast.CommClause:
			if in.Comm != n {
				return n.Pos()
			}
		}
	}
	return token.NoPos
}

func (w *finder) source(n ast.Node) string {
	return string(w.f.text[w.s.fset.Position(n.Pos()).Offset:w.s.fset.Position(n.End()).Offset])
}

func (w *finder) add(operator string, from, to token.Pos, with string) {
	at := w.s.fset.Position(from)
	runs := at
	if s := w.begins(); s.IsValid() {
		runs = w.s.fset.Position(s)
	}
	w.found = append(w.found, mutant{source: w.s, file: w.f, operator: operator, inside: w.inside(),
		from: at.Offset, to: w.s.fset.Position(to).Offset, with: with, line: at.Line, column: at.Column,
		runs: position{runs.Line, runs.Column}})
}

// inside says whether what is looked at is part of a function.
func (w *finder) inside() bool {
	return slices.ContainsFunc(w.stack, func(n ast.Node) bool {
		switch n.(type) {
		case *ast.FuncDecl, *ast.FuncLit:
			return true
		}
		return false
	})
}

func (w *finder) condition(c ast.Expr) {
	w.add("never", c.Pos(), c.End(), "false && ("+w.source(c)+")")
}

func (w *finder) operator(op token.Token, at token.Pos) {
	if o, ok := opposite[op]; ok {
		w.add(o.name, at, at+token.Pos(len(op.String())), o.with.String())
	}
}

// statement removes one from a list of them.
func (w *finder) statement(s ast.Stmt, name string) {
	switch w.parent(0).(type) {
	case *ast.BlockStmt, *ast.CaseClause:
		w.add(name, s.Pos(), s.End(), "")
	case *ast.CommClause:
		if w.parent(0).(*ast.CommClause).Comm != s {
			w.add(name, s.Pos(), s.End(), "")
		}
	}
}

// empty makes a function return at once.
func (w *finder) empty(d *ast.FuncDecl) {
	if d.Body == nil || len(d.Body.List) == 0 {
		return
	}
	var zeros []string
	for _, r := range fields(d.Type.Results) {
		zeros = append(zeros, "*new("+w.source(r.Type)+")")
		for range max(0, len(r.Names)-1) {
			zeros = append(zeros, zeros[len(zeros)-1])
		}
	}
	if len(d.Body.List) == 1 && len(zeros) > 0 {
		return // what it returns is changed by itself
	}
	w.add("empty", d.Body.Lbrace+1, d.Body.Lbrace+1, " return "+strings.Join(zeros, ", ")+"; ")
	m := &w.found[len(w.found)-1]
	m.what, m.inside = d.Name.Name, true
}

func fields(l *ast.FieldList) []*ast.Field {
	if l == nil {
		return nil
	}
	return l.List
}

// returned changes errors and truths that are returned.
func (w *finder) returned(r *ast.ReturnStmt) {
	for _, e := range r.Results {
		tv := w.s.info.Types[e]
		switch {
		case tv.Type == nil || tv.IsNil():
		case types.Implements(tv.Type, errorType):
			w.add("swallow", e.Pos(), e.End(), "nil")
		case types.Identical(tv.Type.Underlying(), types.Typ[types.Bool]) && tv.Value == nil:
			if _, compared := e.(*ast.BinaryExpr); !compared {
				w.add("negate", e.Pos(), e.End(), "!("+w.source(e)+")")
			}
		}
	}
}

var errorType = types.Universe.Lookup("error").Type().Underlying().(*types.Interface)

func (w *finder) numeric(e ast.Expr) bool {
	t := w.s.info.Types[e].Type
	if t == nil {
		return false
	}
	b, ok := t.Underlying().(*types.Basic)
	return ok && b.Info()&types.IsNumeric != 0
}

func (w *finder) number(l *ast.BasicLit) {
	if l.Kind != token.INT && l.Kind != token.FLOAT {
		return
	}
	zero := constant.Sign(constant.MakeFromLiteral(l.Value, l.Kind, 0)) == 0
	switch {
	case zero:
		w.add("number", l.Pos(), l.End(), "1")
	case w.constant() || l.Kind == token.FLOAT:
		w.add("number", l.Pos(), l.End(), "(2 * "+l.Value+")")
	default:
		w.add("number", l.Pos(), l.End(), "("+l.Value+" + 1)")
	}
}

// constant says whether what is looked at stands in a constant's declaration.
func (w *finder) constant() bool {
	for _, n := range w.stack {
		if d, ok := n.(*ast.GenDecl); ok {
			return d.Tok == token.CONST
		}
	}
	return false
}

func (w *finder) truth(id *ast.Ident) {
	switch w.s.info.Uses[id] {
	case types.Universe.Lookup("true"):
		w.add("bool", id.Pos(), id.End(), "false")
	case types.Universe.Lookup("false"):
		w.add("bool", id.Pos(), id.End(), "true")
	}
}
