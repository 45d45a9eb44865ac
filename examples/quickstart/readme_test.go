package main_test

import (
	"os"
	"strings"
	"testing"
)

// The program in the README is the body of Example, so that it always compiles.
func TestREADMEShowsTheExample(t *testing.T) {
	source, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, body, ok := strings.Cut(string(source), "\nfunc Example() {\n")
	body, _, closed := strings.Cut(body, "\n}\n")
	if !ok || !closed {
		t.Fatal("example_test.go has no func Example")
	}
	body = strings.TrimPrefix(strings.ReplaceAll("\n"+body, "\n\t", "\n"), "\n")
	if !strings.Contains(string(readme), "```go\n"+body+"\n```\n") {
		t.Errorf("README.md does not hold the body of Example as a go block; it should read:\n%s", body)
	}
}
