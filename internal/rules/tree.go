package rules

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Module is the module path that import paths of this project begin with.
const Module = "github.com/infrafabric/agentmesh"

// File is one parsed Go file.
type File struct {
	Path   string // relative to the root, with slashes
	Source []byte
	AST    *ast.File
	fset   *token.FileSet
}

// Dir is the directory of f, "." for the root.
func (f *File) Dir() string { return path.Dir(f.Path) }

// Test says whether f is compiled for tests only.
func (f *File) Test() bool { return strings.HasSuffix(f.Path, "_test.go") }

// imports are the paths that f imports.
func (f *File) imports() []string {
	var paths []string
	for _, spec := range f.AST.Imports {
		paths = append(paths, importPath(spec))
	}
	return paths
}

// name is what f calls the package with the given import path: "" when it does
// not import it.
func (f *File) name(importedPath string) string {
	for _, spec := range f.AST.Imports {
		switch {
		case importPath(spec) != importedPath:
		case spec.Name != nil:
			return spec.Name.Name
		default:
			return path.Base(importedPath)
		}
	}
	return ""
}

// at formats one offence.
func (f *File) at(pos token.Pos, format string, args ...any) string {
	return fmt.Sprintf("%s:%d: %s", f.Path, f.fset.Position(pos).Line, fmt.Sprintf(format, args...))
}

func importPath(spec *ast.ImportSpec) string {
	p, err := strconv.Unquote(spec.Path.Value)
	if err != nil {
		panic("rules: the parser let pass the import " + spec.Path.Value)
	}
	return p
}

// Tree is all Go files of a module.
type Tree []*File

// Load parses every Go file below the root of fsys, for all platforms. As the go
// command does, it leaves out directories named testdata, those that begin with
// a dot or an underscore, and nested modules. A file that does not parse is an
// error.
func Load(fsys fs.FS) (Tree, error) {
	var t Tree
	fset := token.NewFileSet()
	err := fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if outside(fsys, p) {
				return fs.SkipDir
			}
			return nil
		}
		if path.Ext(p) != ".go" {
			return nil
		}
		src, err := fs.ReadFile(fsys, p)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(fset, p, src, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		t = append(t, &File{Path: p, Source: src, AST: file, fset: fset})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("rules: load: %w", err)
	}
	return t, nil
}

// outside says whether directory p is not part of the module.
func outside(fsys fs.FS, p string) bool {
	if p == "." {
		return false
	}
	base := path.Base(p)
	if base == "testdata" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") {
		return true
	}
	_, err := fs.Stat(fsys, path.Join(p, "go.mod"))
	return err == nil
}

// dirs groups the files by directory, in order.
func (t Tree) dirs() (order []string, files map[string]Tree) {
	files = make(map[string]Tree)
	for _, f := range t {
		files[f.Dir()] = append(files[f.Dir()], f)
	}
	for dir := range files {
		order = append(order, dir)
	}
	slices.Sort(order)
	return order, files
}

// within says whether p is dir or below it.
func within(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }
