package main

import (
	"bytes"
	"cmp"
	"fmt"
	"go/ast"
	"go/build"
	"go/format"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// stubFile is the name of the generated file of a package.
const stubFile = "unsupported.go"

const module = "github.com/boxwire/boxwire/"

// A stub is a declaration of a Linux file that other systems lack.
type stub struct {
	receiver string // of a method: "*NS"
	name     string
	typ      *ast.FuncType     // nil for a type
	imports  map[string]string // of its file: path by name
}

// generateStubs returns the stubs that the package in a directory needs on other systems, nil
// for none: what its Linux files export, and what its other files use of them.
func generateStubs(dir string) ([]byte, error) {
	p := stubPackage{declared: map[string]bool{}, used: map[string]bool{}}
	if err := p.read(dir); err != nil {
		return nil, err
	}
	if err := p.collect(); err != nil || len(p.stubs) == 0 {
		return nil, err
	}
	return p.write()
}

// stubPackage is a package on its way to its stubs.
type stubPackage struct {
	name     string
	linux    []*ast.File     // of Linux alone
	declared map[string]bool // in the other files: "New", "NS.Close"
	used     map[string]bool // by the other files, each of which does not declare it
	stubs    []stub
}

// read sorts the files into those of Linux alone and the others.
func (p *stubPackage) read(dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return err
	}
	linux, other := build.Default, build.Default
	linux.GOOS, linux.GOARCH, linux.CgoEnabled = "linux", "amd64", false
	other.GOOS, other.GOARCH, other.CgoEnabled = "darwin", "amd64", false
	for _, path := range names {
		name := filepath.Base(path)
		here, err := linux.MatchFile(dir, name)
		if err != nil {
			return err
		}
		elsewhere, err := other.MatchFile(dir, name)
		if err != nil {
			return err
		}
		if name == stubFile || !here && !elsewhere {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		test := strings.HasSuffix(name, "_test.go")
		switch {
		case elsewhere:
			p.use(file, !test)
		case !test:
			p.name = file.Name.Name
			p.linux = append(p.linux, file)
		}
	}
	return nil
}

// use notes what a file of other systems has and needs.
func (p *stubPackage) use(file *ast.File, declares bool) {
	for _, id := range file.Unresolved {
		p.used[id.Name] = true
	}
	if !declares {
		return
	}
	for _, d := range file.Decls {
		for _, name := range declaredBy(d) {
			p.declared[name] = true
		}
	}
}

// declaredBy returns the names of a declaration; that of a method is "NS.Close".
func declaredBy(d ast.Decl) (names []string) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Recv == nil {
			return []string{d.Name.Name}
		}
		return []string{base(d.Recv.List[0].Type) + "." + d.Name.Name}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				names = append(names, spec.Name.Name)
			case *ast.ValueSpec:
				for _, name := range spec.Names {
					names = append(names, name.Name)
				}
			}
		}
	}
	return names
}

// collect finds what needs a stub.
func (p *stubPackage) collect() error {
	for _, file := range p.linux {
		imports := importsOf(file)
		for _, d := range file.Decls {
			if err := p.add(d, imports); err != nil {
				return err
			}
		}
	}
	slices.SortFunc(p.stubs, func(a, b stub) int {
		return cmp.Or(a.kind()-b.kind(), cmp.Compare(a.receiver, b.receiver), cmp.Compare(a.name, b.name))
	})
	return nil
}

// add notes the stubs of a declaration.
func (p *stubPackage) add(d ast.Decl, imports map[string]string) error {
	for _, name := range declaredBy(d) {
		if p.declared[name] || !p.needs(name) {
			continue
		}
		s := stub{name: name, imports: imports}
		switch d := d.(type) {
		case *ast.FuncDecl:
			s.name, s.typ = d.Name.Name, d.Type
			if d.Recv != nil {
				s.receiver = text(d.Recv.List[0].Type)
			}
		case *ast.GenDecl:
			if d.Tok != token.TYPE {
				return fmt.Errorf("package %s: %s %s is in a Linux file, and other systems need it", p.name, d.Tok, name)
			}
		}
		p.stubs = append(p.stubs, s)
	}
	return nil
}

// importsOf returns the paths that a file imports, by the names that it uses.
func importsOf(file *ast.File) map[string]string {
	imports := map[string]string{}
	for _, i := range file.Imports {
		from, _ := strconv.Unquote(i.Path.Value)
		name := path.Base(from)
		if i.Name != nil {
			name = i.Name.Name
		}
		imports[name] = from
	}
	return imports
}

// needs reports whether other systems need what a Linux file declares.
func (p *stubPackage) needs(name string) bool {
	of, method, ok := strings.Cut(name, ".")
	if !ok {
		return ast.IsExported(name) || p.used[name]
	}
	return ast.IsExported(of) && ast.IsExported(method)
}

// kind orders the stubs: types, functions, methods.
func (s *stub) kind() int {
	switch {
	case s.typ == nil:
		return 0
	case s.receiver == "":
		return 1
	}
	return 2
}

// write returns the file.
func (p *stubPackage) write() ([]byte, error) {
	var body bytes.Buffer
	imports := map[string]string{"errors": "errors", "runtime": "runtime", module + "internal/refuse": "refuse"}
	failure := "Error"
	if p.name != "netns" {
		failure, imports[module+"netns"] = "netns.Error", "netns"
	}
	yields := false
	for _, s := range p.stubs {
		s.write(&body, p.name)
		for name := range packagesOf(s.typ) {
			imports[s.imports[name]] = name
		}
		yields = yields || s.answer() == yielded
	}

	var w bytes.Buffer
	fmt.Fprintf(&w, "// Code generated by internal/api from the Linux files. DO NOT EDIT.\n\n//go:build !linux\n\npackage %s\n", p.name)
	writeImports(&w, imports)
	fmt.Fprintf(&w, `
func unsupported(op string) error {
	return &%s{Op: op, Err: refuse.As(errors.ErrUnsupported, "this needs Linux, and is %%s", runtime.GOOS)}
}
`, failure)
	if yields {
		w.WriteString(`
func unsupportedSeq[T any](op string) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var zero T
		yield(zero, unsupported(op))
	}
}
`)
	}
	w.Write(body.Bytes())
	return format.Source(w.Bytes())
}

// writeImports writes the imports, of which it gets the name by the path: those of the standard
// library first.
func writeImports(w *bytes.Buffer, imports map[string]string) {
	w.WriteString("\nimport (\n")
	for _, dotted := range []bool{false, true} {
		for _, from := range slices.Sorted(maps.Keys(imports)) {
			if strings.Contains(from, ".") != dotted {
				continue
			}
			if name := imports[from]; name != path.Base(from) {
				w.WriteString(name + " ")
			}
			fmt.Fprintf(w, "%q\n", from)
		}
		w.WriteString("\n")
	}
	w.WriteString(")\n")
}

// packagesOf returns the names of the packages that a function's type uses.
func packagesOf(t *ast.FuncType) map[string]bool {
	names := map[string]bool{}
	if t == nil {
		return names
	}
	ast.Inspect(t, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if id, ok := s.X.(*ast.Ident); ok {
				names[id.Name] = true
			}
		}
		return true
	})
	return names
}

// How a stub answers.
const (
	nothing  = iota // with zero values
	returned        // with an error behind zero values
	yielded         // with an error as the only item of a sequence
)

func (s *stub) answer() int {
	if s.typ == nil || s.typ.Results == nil || s.name == "Close" { // nothing is open
		return nothing
	}
	results := nameless(s.typ.Results).List
	switch {
	case strings.HasPrefix(text(results[0].Type), seq):
		return yielded
	case text(results[len(results)-1].Type) == "error":
		return returned
	}
	return nothing
}

const seq = "iter.Seq2["

// write writes one declaration.
func (s *stub) write(w *bytes.Buffer, pkg string) {
	if s.typ == nil {
		fmt.Fprintf(w, "\n// %s has no content: it needs Linux.\ntype %s struct{}\n", s.name, s.name)
		return
	}
	answer := s.answer()
	says := [...]string{"returns the zero value", "returns errors.ErrUnsupported", "yields errors.ErrUnsupported"}[answer]
	if s.typ.Results == nil {
		says = "does nothing"
	}
	fmt.Fprintf(w, "\n// %s %s: it needs Linux.\nfunc ", s.name, says)
	if s.receiver != "" {
		fmt.Fprintf(w, "(%s) ", s.receiver)
	}
	fmt.Fprintf(w, "%s%s%s", s.name, parameters(s.typ.TypeParams), signature(&ast.FuncType{Params: s.typ.Params}))
	if s.typ.Results == nil {
		w.WriteString(" {}\n")
		return
	}

	op := strconv.Quote(pkg + "." + s.name)
	results := nameless(s.typ.Results).List
	first := text(results[0].Type)
	switch {
	case answer == yielded:
		fmt.Fprintf(w, " %s { return unsupportedSeq[%s](%s) }\n", first, strings.TrimSuffix(strings.TrimPrefix(first, seq), ", error]"), op)
	case answer == returned && len(results) == 1:
		fmt.Fprintf(w, " error { return unsupported(%s) }\n", op)
	default:
		s.writeResults(w, results, op)
	}
}

// writeResults writes results with names, and their return: the last is an error, perhaps.
func (s *stub) writeResults(w *bytes.Buffer, results []*ast.Field, op string) {
	var names, values []string
	for i, f := range results {
		name, value := fmt.Sprintf("v%d", i), fmt.Sprintf("v%d", i)
		if i == len(results)-1 && s.answer() == returned {
			name, value = "_", "unsupported("+op+")"
		}
		names, values = append(names, name+" "+text(f.Type)), append(values, value)
	}
	fmt.Fprintf(w, " (%s) { return %s }\n", strings.Join(names, ", "), strings.Join(values, ", "))
}

// writeStubs brings the stubs of all exported packages up to date, or with check returns those
// that are not.
func writeStubs(dirs []string, check bool) (stale []string, err error) {
	for _, dir := range dirs {
		want, err := generateStubs(dir)
		if err != nil {
			return nil, err
		}
		path := filepath.Join(dir, stubFile)
		got, err := os.ReadFile(path)
		if err != nil && !os.IsNotExist(err) {
			return nil, err
		}
		switch {
		case bytes.Equal(got, want):
		case check:
			stale = append(stale, path)
		case want == nil:
			err = os.Remove(path)
		default:
			err = os.WriteFile(path, want, 0o644)
		}
		if err != nil && !os.IsNotExist(err) {
			return nil, err
		}
	}
	return stale, nil
}
