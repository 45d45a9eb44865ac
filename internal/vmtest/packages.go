package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// testPackage is a package of the repository with its built test.
type testPackage struct {
	name   string // relative to the repository's root: "internal/nl"
	dir    string
	binary string
}

// findRoot returns the repository's root: the directory of the library's module,
// seen from a directory below it.
func findRoot(from string) (string, error) {
	dir, err := filepath.Abs(from)
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		b, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(b), "module github.com/boxwire/boxwire\n") {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("run it inside the repository: no directory above has the go.mod of github.com/boxwire/boxwire")
		}
	}
}

// listPackages returns the packages with tests that the patterns name, relative
// to the root: "link", "internal/...", and "./..." if there is none. A pattern
// is looked up in the module whose directory it is in.
func listPackages(ctx context.Context, root string, patterns []string) ([]testPackage, error) {
	if len(patterns) == 0 {
		patterns = []string{"./..."}
	}
	var packages []testPackage
	for _, pattern := range patterns {
		pattern = filepath.ToSlash(filepath.Clean(pattern))
		if !filepath.IsLocal(pattern) {
			return nil, fmt.Errorf("%s is not a package below the repository's root", pattern)
		}
		module := moduleOf(root, pattern)
		rel, err := filepath.Rel(module, filepath.Join(root, pattern))
		if err != nil {
			return nil, err
		}
		list, err := output(ctx, module, "go", "list", "-f",
			"{{.Dir}}\t{{len .TestGoFiles}} {{len .XTestGoFiles}}", "./"+filepath.ToSlash(rel))
		if err != nil {
			return nil, err
		}
		found := false
		for line := range strings.Lines(list) {
			dir, tests, _ := strings.Cut(strings.TrimSpace(line), "\t")
			if tests == "0 0" {
				continue
			}
			name, err := filepath.Rel(root, dir)
			if err != nil {
				return nil, err
			}
			found = true
			p := testPackage{name: filepath.ToSlash(name), dir: dir}
			if !slices.ContainsFunc(packages, func(q testPackage) bool { return q.name == p.name }) {
				packages = append(packages, p)
			}
		}
		if !found {
			return nil, fmt.Errorf("%s: no package with tests", pattern)
		}
	}
	return packages, nil
}

// moduleOf returns the directory of the module that a pattern is in.
func moduleOf(root, pattern string) string {
	dir := filepath.Join(root, strings.TrimSuffix(pattern, "..."))
	for ; dir != root; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
	}
	return dir
}

// build builds each package's test for a guest that has no libraries.
func build(ctx context.Context, packages []testPackage, to string) error {
	for i := range packages {
		p := &packages[i]
		p.binary = filepath.Join(to, strings.ReplaceAll(p.name, "/", "-")+".test")
		// Stack traces need no symbol table.
		if _, err := goBuild(ctx, p.dir, "test", "-c", "-vet=off", "-ldflags=-s -w", "-o", p.binary, "."); err != nil {
			return fmt.Errorf("building the tests of %s: %w", p.name, err)
		}
	}
	return nil
}

// goBuild runs the go command for a static program of the guest.
func goBuild(ctx context.Context, dir string, args ...string) (string, error) {
	return output(ctx, dir, "env", append([]string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "go"}, args...)...)
}
