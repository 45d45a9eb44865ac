package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const source = `package p

import "context"

const (
	A Kind = iota
	B
	c
	D = 4
)

var Err, err error

type Kind uint8

func (Kind) String() string { return "" }
func (k *Kind) set()        {}

type hidden struct{ X int }

func (hidden) Seen() {}

type Event[T any] struct {
	Kind
	hidden
	Value  T
	Then   func(ctx context.Context, n int) error
	secret int
}

func (e *Event[T]) Each(yield func(v T) bool) {}

type Sealed interface {
	kind() string
	Name(of int) string
}

func Do[T any](ctx context.Context, a, b int, fn func(ctx context.Context) (T, error)) (v T, err error) { return }
func do()                                                                                      {}
`

func TestExported(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"p.go": source, "p_test.go": "package p\n\nfunc Test() {}\n", "p_windows.go": "package p\n\nfunc Elsewhere() {}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		"const A Kind",
		"const B Kind",
		"const D = 4",
		"field Event, embedded Kind",
		"field Event.Then func(context.Context, int) error",
		"field Event.Value T",
		"func Do[T any](context.Context, int, int, func(context.Context) (T, error)) (T, error)",
		"interface Sealed, Name(int) string",
		"interface Sealed, sealed",
		"method (*Event[T]) Each(func(T) bool)",
		"method (Kind) String() string",
		"type Event[T any] struct",
		"type Kind uint8",
		"type Sealed interface",
		"var Err error",
	}
	got, err := exported(dir, "linux")
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v\n%s\nwant\n%s", err, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestSame(t *testing.T) {
	t.Parallel()
	linux := map[string][]byte{"p.txt": []byte("func A()\nfunc B()\n"), "q.txt": []byte("func C()\n")}
	if err := same("darwin", linux, linux); err != nil {
		t.Error(err)
	}
	const want = "the API differs:\np.txt: \"func B()\" on linux alone\np.txt: \"func B(int)\" on darwin alone\nq.txt: \"func C()\" on linux alone"
	err := same("darwin", linux, map[string][]byte{"p.txt": []byte("func A()\nfunc B(int)\n"), "q.txt": []byte("")})
	if err == nil || err.Error() != want {
		t.Errorf("%v\nwant\n%s", err, want)
	}
}

func TestGained(t *testing.T) {
	t.Parallel()
	const before = "# Changelog\n\n## Unreleased\n\n- a\n- b\n\n## v0.1.0\n\n- c\n"
	for name, c := range map[string]struct {
		now  string
		want bool
	}{
		"the same":                 {before, false},
		"a line":                   {strings.Replace(before, "- a\n", "- a\n- new\n", 1), true},
		"a line changed":           {strings.Replace(before, "- a\n", "- a and more\n", 1), true},
		"a line gone":              {strings.Replace(before, "- a\n", "", 1), false},
		"a line of an old release": {strings.Replace(before, "- c\n", "- c\n- new\n", 1), false},
		"prose":                    {strings.Replace(before, "- a\n", "New.\n\n- a\n", 1), false},
		"a release":                {strings.Replace(before, "## Unreleased\n", "## Unreleased\n\n- d\n\n## v0.2.0\n", 1), true},
	} {
		if got := gained(before, c.now); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
