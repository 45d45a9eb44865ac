package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// repository makes a small one: the library with two tested packages and an
// untested one, and a module inside.
func repository(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	t.Setenv("GOFLAGS", "-mod=mod")
	t.Setenv("GOWORK", "off")
	for name, content := range map[string]string{
		"go.mod":                 "module github.com/boxwire/boxwire\n\ngo 1.26.0\n",
		"link/link.go":           "package link\n",
		"link/link_test.go":      "package link\n",
		"internal/nl/nl_test.go": "package nl_test\n",
		"internal/fail/fail.go":  "package fail\n",
		"examples/cni/go.mod":    "module github.com/boxwire/boxwire/examples/cni\n\ngo 1.26.0\n",
		"examples/cni/x_test.go": "package main\n",
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestPackagesAreFoundFromTheRoot(t *testing.T) {
	root := repository(t)
	for _, c := range []struct {
		patterns string
		want     string
	}{
		{"", "internal/nl link"},
		{"./...", "internal/nl link"},
		{"link", "link"},
		{"./link internal/... link", "link internal/nl"},
		{"examples/cni", "examples/cni"},
		{"examples/cni/... link", "examples/cni link"},
	} {
		packages, err := listPackages(t.Context(), root, strings.Fields(c.patterns))
		var got []string
		for _, p := range packages {
			got = append(got, p.name)
			if p.dir != filepath.Join(root, p.name) {
				t.Errorf("%s is in %s", p.name, p.dir)
			}
		}
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%q: %v, %v, want %s", c.patterns, got, err, c.want)
		}
	}
	for pattern, want := range map[string]string{
		"internal/fail": "internal/fail: no package with tests",
		"nothing":       "nothing",
		"../elsewhere":  "../elsewhere is not a package below the repository's root",
		"/etc":          "/etc is not a package below the repository's root",
	} {
		if packages, err := listPackages(t.Context(), root, []string{pattern}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v, want %q", pattern, packages, err, want)
		}
	}
}

func TestRootIsThatOfTheLibrary(t *testing.T) {
	root := repository(t)
	if got, err := findRoot(filepath.Join(root, "examples/cni")); err != nil || got != root {
		t.Errorf("findRoot: %s, %v, want %s", got, err, root)
	}
	if got, err := findRoot(t.TempDir()); err == nil {
		t.Errorf("findRoot outside: %s", got)
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	o, err := parseOptions([]string{"-kernel", "7.2", "-run", "A/b", "-user", "link", "route"})
	if err != nil || !slices.Equal(o.kernels, []string{"7.2"}) || o.run != "A/b" || !o.user || !slices.Equal(o.packages, []string{"link", "route"}) {
		t.Errorf("parseOptions: %+v, %v", o, err)
	}
	for args, want := range map[string]string{
		"-kernel 4.19": `kernel "4.19" is not known`,
		"-run A/(":     "-run A/(: error parsing regexp",
		"-parallel 0":  "at least one guest",
	} {
		if _, err := parseOptions(strings.Fields(args)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
}
