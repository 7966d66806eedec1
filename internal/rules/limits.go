package rules

import (
	"go/ast"
	"go/token"
	"path"
	"regexp"
)

// limitsFile is where a package with limits names them all.
const limitsFile = "limits.go"

// limitName is what a limit is called.
var limitName = regexp.MustCompile(`^(m|M)ax[A-Z]`)

// Limits reports constants that are called max… or Max… in a package with a
// limits.go, elsewhere than there, and those there without a comment: what a
// package bounds is to be read in one place, with what happens at it.
func (t Tree) Limits() []string {
	var bad []string
	order, files := t.dirs()
	for _, dir := range order {
		var central *File
		for _, f := range files[dir] {
			if path.Base(f.Path) == limitsFile {
				central = f
			}
		}
		if central == nil {
			continue
		}
		for _, f := range files[dir] {
			if f.Test() {
				continue
			}
			for _, d := range f.AST.Decls {
				if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.CONST {
					bad = append(bad, limits(f, g, f == central)...)
				}
			}
		}
	}
	return bad
}

// limits are the offences of one declaration.
func limits(f *File, g *ast.GenDecl, central bool) []string {
	var bad []string
	above := false // a comment may be about a row of lines without a gap
	line := -1
	for _, s := range g.Specs {
		v := s.(*ast.ValueSpec)
		at := f.fset.Position(v.Pos()).Line
		above = v.Doc.Text() != "" || v.Comment.Text() != "" || above && at == line+1 || len(g.Specs) == 1 && g.Doc.Text() != ""
		line = f.fset.Position(v.End()).Line
		for _, name := range v.Names {
			switch {
			case !limitName.MatchString(name.Name):
			case !central:
				bad = append(bad, f.at(name.Pos(), "%s belongs into %s", name.Name, limitsFile))
			case !above:
				bad = append(bad, f.at(name.Pos(), "%s does not say what happens at it", name.Name))
			}
		}
	}
	return bad
}
