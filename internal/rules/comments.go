package rules

import (
	"fmt"
	"go/ast"
	"go/token"
	"path"
	"regexp"
	"slices"
	"strings"
)

// PackageComments reports directories whose package has no package comment, more
// than one, or one that does not begin with "Package NAME" or, for a command,
// with "Command" or its own name, capital: "Gofmt formats…". Test files do not
// count.
func (t Tree) PackageComments() []string {
	var bad []string
	order, files := t.dirs()
	for _, dir := range order {
		var with []*File
		var pkg *File
		for _, f := range files[dir] {
			if f.Test() {
				continue
			}
			pkg = f
			if f.AST.Doc.Text() != "" {
				with = append(with, f)
			}
		}
		switch {
		case pkg == nil:
		case len(with) == 0:
			bad = append(bad, fmt.Sprintf("%s: no package comment", dir))
		case len(with) > 1:
			bad = append(bad, fmt.Sprintf("%s: package comments in %s and %s", dir, with[0].Path, with[1].Path))
		default:
			f := with[0]
			if want := opening(f); !slices.ContainsFunc(want, func(w string) bool { return beginsWith(f.AST.Doc.Text(), w) }) {
				bad = append(bad, f.at(f.AST.Doc.Pos(), "the package comment does not begin with %q", want[0]))
			}
		}
	}
	return bad
}

// opening is how the package comment in f may begin.
func opening(f *File) []string {
	if f.AST.Name.Name != "main" {
		return []string{"Package " + f.AST.Name.Name}
	}
	command := path.Base(f.Dir())
	return []string{"Command " + command, strings.ToUpper(command[:1]) + command[1:]}
}

// EventNames reports constants of the type Name in package witness that have no
// comment beginning with their own name, and values that occur twice: operators
// look events up, and query them, by these names.
func (t Tree) EventNames() []string {
	var bad []string
	seen := map[string]string{}
	for _, f := range t {
		if f.Dir() != "witness" || f.Test() {
			continue
		}
		for _, decl := range f.AST.Decls {
			d, ok := decl.(*ast.GenDecl)
			if !ok || d.Tok != token.CONST {
				continue
			}
			for _, spec := range d.Specs {
				v := spec.(*ast.ValueSpec)
				if id, ok := v.Type.(*ast.Ident); !ok || id.Name != "Name" {
					continue
				}
				doc := v.Doc
				if !d.Lparen.IsValid() {
					doc = d.Doc
				}
				for i, name := range v.Names {
					if !beginsWith(doc.Text(), name.Name) {
						bad = append(bad, f.at(name.Pos(), "event %s has no comment that begins with its name", name.Name))
					}
					if i < len(v.Values) {
						if lit, ok := v.Values[i].(*ast.BasicLit); ok {
							if other, twice := seen[lit.Value]; twice {
								bad = append(bad, f.at(name.Pos(), "events %s and %s are both %s", other, name.Name, lit.Value))
							}
							seen[lit.Value] = name.Name
						}
					}
				}
			}
		}
	}
	return bad
}

// beginsWith says whether the first word of text is word.
func beginsWith(text, word string) bool {
	rest, ok := strings.CutPrefix(text, word)
	return ok && rest != "" && strings.ContainsAny(rest[:1], " ,.:\n")
}

// unfinished are the words that promise work instead of doing it. (They are put
// together so that this file does not contain them.)
var unfinished = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X|HA` + `CK)\b`)

// Unfinished reports lines with such a word, in code, comments and strings.
func (t Tree) Unfinished() []string {
	var bad []string
	for _, f := range t {
		for i, line := range strings.Split(string(f.Source), "\n") {
			if word := unfinished.FindString(line); word != "" {
				bad = append(bad, fmt.Sprintf("%s:%d: %s", f.Path, i+1, word))
			}
		}
	}
	return bad
}
