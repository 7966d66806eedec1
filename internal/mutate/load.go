package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// source is one package whose files are to be changed.
type source struct {
	path  string // import path
	dir   string // absolute
	files []*file
	fset  *token.FileSet
	info  *types.Info
	imp   types.Importer
}

// file is one of its files.
type file struct {
	path string // absolute
	name string // relative to the root, with slashes
	text []byte
	tree *ast.File
}

// lines is the size of the package.
func (s *source) lines() int {
	n := 0
	for _, f := range s.files {
		n += bytes.Count(f.text, []byte("\n"))
	}
	return n
}

// listed is what the go command says of a package.
type listed struct {
	ImportPath, Dir, Export string
	GoFiles                 []string
	DepOnly                 bool
}

// list asks the go command about the packages that are named, relative to root,
// and everything that they import.
func list(root string, names []string) ([]listed, error) {
	args := []string{"list", "-export", "-deps", "-json=ImportPath,Dir,Export,GoFiles,DepOnly", "--"}
	for _, n := range names {
		args = append(args, "./"+n)
	}
	cmd := exec.Command("go", args...)
	cmd.Dir = root
	var problem bytes.Buffer
	cmd.Stderr = &problem
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w\n%s", err, problem.Bytes())
	}
	var all []listed
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var l listed
		switch err := d.Decode(&l); {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, fmt.Errorf("go list: %w", err)
		}
		all = append(all, l)
	}
}

// load reads and checks the packages with the given directories below root.
func load(root string, names []string) ([]*source, error) {
	all, err := list(root, names)
	if err != nil {
		return nil, err
	}
	fset := token.NewFileSet()
	exports := map[string]string{}
	for _, l := range all {
		exports[l.ImportPath] = l.Export
	}
	imp := importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) {
		return os.Open(exports[path])
	})
	var sources []*source
	for _, l := range all {
		if l.DepOnly {
			continue
		}
		s := &source{path: l.ImportPath, dir: l.Dir, fset: fset, imp: imp}
		if err := s.read(root, l.GoFiles); err != nil {
			return nil, err
		}
		sources = append(sources, s)
	}
	return sources, nil
}

func (s *source) read(root string, names []string) error {
	for _, n := range names {
		path := filepath.Join(s.dir, n)
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		tree, err := parser.ParseFile(s.fset, path, text, parser.ParseComments)
		if err != nil {
			return err
		}
		short, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		s.files = append(s.files, &file{path: path, name: filepath.ToSlash(short), text: text, tree: tree})
	}
	s.info = &types.Info{
		Types:      map[ast.Expr]types.TypeAndValue{},
		Uses:       map[*ast.Ident]types.Object{},
		Defs:       map[*ast.Ident]types.Object{},
		Selections: map[*ast.SelectorExpr]*types.Selection{},
	}
	return s.check(s.info, nil, nil)
}

// check type-checks the package, with the changed text of one file in its place, if
// there is one.
func (s *source) check(info *types.Info, changed *file, text []byte) error {
	var trees []*ast.File
	for _, f := range s.files {
		tree := f.tree
		if f == changed {
			var err error
			if tree, err = parser.ParseFile(token.NewFileSet(), f.path, text, parser.SkipObjectResolution); err != nil {
				return err
			}
		}
		trees = append(trees, tree)
	}
	conf := types.Config{Importer: s.imp, Sizes: types.SizesFor("gc", runtime.GOARCH)}
	_, err := conf.Check(s.path, s.fset, trees, info)
	return err
}

// compiles says whether the package still builds with the change.
func (s *source) compiles(m mutant) bool { return s.check(nil, m.file, m.text()) == nil }

// short is the package as it is named on the command line.
func (s *source) short() string {
	return strings.TrimPrefix(filepath.ToSlash(filepath.Dir(s.files[0].name)), "./")
}
