package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// generate returns the files of the exported packages in the directories on a system: path and text.
func generate(dirs []string, goos string) (map[string][]byte, error) {
	files := make(map[string][]byte)
	for _, dir := range dirs {
		lines, err := exported(dir, goos)
		if err != nil {
			return nil, err
		}
		if len(lines) > 0 {
			files[filepath.Join(directory, filepath.Base(dir)+".txt")] = []byte(strings.Join(lines, "\n") + "\n")
		}
	}
	return files, nil
}

// directories returns the directories below root that may hold an exported package.
func directories(root string) (dirs []string, err error) {
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		if name := d.Name(); path != root && (name[0] == '.' || name == "internal" || name == "examples" || name == "testdata") {
			return filepath.SkipDir
		}
		dirs = append(dirs, path)
		return nil
	})
	return dirs, err
}

// exported returns a line for each name that the package in a directory exports on a system, in order.
func exported(dir, goos string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	system := build.Default
	system.GOOS, system.GOARCH, system.CgoEnabled = goos, "amd64", false
	var s surface
	for _, e := range entries {
		name := e.Name()
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			continue
		}
		if match, err := system.MatchFile(dir, name); err != nil || !match {
			if err != nil {
				return nil, err
			}
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		for _, decl := range file.Decls {
			s.declaration(decl)
		}
	}
	slices.Sort(s.lines)
	return slices.Compact(s.lines), nil
}

// surface collects the lines of a package.
type surface struct{ lines []string }

func (s *surface) add(format string, args ...any) {
	s.lines = append(s.lines, fmt.Sprintf(format, args...))
}

func (s *surface) declaration(decl ast.Decl) {
	switch d := decl.(type) {
	case *ast.FuncDecl:
		s.function(d)
	case *ast.GenDecl:
		var kind ast.Expr // of the constants that have none of their own
		for _, spec := range d.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				s.typ(spec)
			case *ast.ValueSpec:
				if spec.Type != nil || len(spec.Values) > 0 {
					kind = spec.Type
				}
				s.values(d.Tok, spec, kind)
			}
		}
	}
}

func (s *surface) function(d *ast.FuncDecl) {
	if !d.Name.IsExported() {
		return
	}
	if d.Recv == nil {
		s.add("func %s%s%s", d.Name.Name, parameters(d.Type.TypeParams), signature(d.Type))
		return
	}
	if receiver := d.Recv.List[0].Type; ast.IsExported(base(receiver)) {
		s.add("method (%s) %s%s", text(receiver), d.Name.Name, signature(d.Type))
	}
}

// base returns the name of a type without its package, a pointer before it and type parameters behind it.
func base(t ast.Expr) string {
	name := strings.TrimPrefix(types.ExprString(t), "*")
	name, _, _ = strings.Cut(name, "[")
	return name[strings.LastIndexByte(name, '.')+1:]
}

func (s *surface) values(tok token.Token, spec *ast.ValueSpec, kind ast.Expr) {
	for i, name := range spec.Names {
		switch {
		case !name.IsExported():
		case kind != nil:
			s.add("%s %s %s", tok, name.Name, text(kind))
		case tok == token.CONST && i < len(spec.Values):
			s.add("%s %s = %s", tok, name.Name, types.ExprString(spec.Values[i]))
		default:
			s.add("%s %s", tok, name.Name)
		}
	}
}

func (s *surface) typ(spec *ast.TypeSpec) {
	if !spec.Name.IsExported() {
		return
	}
	name := "type " + spec.Name.Name + parameters(spec.TypeParams)
	if spec.Assign.IsValid() {
		name += " ="
	}
	switch t := spec.Type.(type) {
	case *ast.StructType:
		s.add("%s struct", name)
		s.members("field "+spec.Name.Name, t.Fields)
	case *ast.InterfaceType:
		s.add("%s interface", name)
		s.members("interface "+spec.Name.Name, t.Methods)
	default:
		s.add("%s %s", name, text(t))
	}
}

// members adds the fields of a struct or the methods of an interface. An interface with a method that is not exported is
// sealed, which users notice.
func (s *surface) members(of string, list *ast.FieldList) {
	for _, f := range list.List {
		if len(f.Names) == 0 && ast.IsExported(base(f.Type)) {
			s.add("%s, embedded %s", of, text(f.Type))
		}
		for _, name := range f.Names {
			fn, method := f.Type.(*ast.FuncType)
			switch {
			case strings.HasPrefix(of, "interface ") && method && !name.IsExported():
				s.add("%s, sealed", of)
			case !name.IsExported():
			case strings.HasPrefix(of, "interface ") && method:
				s.add("%s, %s%s", of, name.Name, signature(fn))
			default:
				s.add("%s.%s %s", of, name.Name, text(f.Type))
			}
		}
	}
}

// signature writes a function's parameters and results without their names.
func signature(t *ast.FuncType) string {
	bare := &ast.FuncType{Params: nameless(t.Params), Results: nameless(t.Results)}
	return strings.TrimPrefix(types.ExprString(bare), "func")
}

func nameless(list *ast.FieldList) *ast.FieldList {
	if list == nil {
		return nil
	}
	bare := &ast.FieldList{}
	for _, f := range list.List {
		for range max(1, len(f.Names)) {
			t := f.Type
			if fn, ok := t.(*ast.FuncType); ok {
				t = &ast.FuncType{Params: nameless(fn.Params), Results: nameless(fn.Results)}
			}
			bare.List = append(bare.List, &ast.Field{Type: t})
		}
	}
	return bare
}

// parameters writes a list of type parameters.
func parameters(list *ast.FieldList) string {
	if list == nil {
		return ""
	}
	var w bytes.Buffer
	for i, f := range list.List {
		for j, name := range f.Names {
			if i+j > 0 {
				w.WriteString(", ")
			}
			fmt.Fprintf(&w, "%s %s", name.Name, text(f.Type))
		}
	}
	return "[" + w.String() + "]"
}

// text writes a type in one line, functions without the names of their parameters.
func text(t ast.Expr) string {
	if fn, ok := t.(*ast.FuncType); ok {
		return "func" + signature(fn)
	}
	return types.ExprString(t)
}
