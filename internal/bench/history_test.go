package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheHistoryKeepsTheLastFiguresOfEachRow(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "history")
	if _, err := lastRelease(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a history: %v", err)
	}
	of := func(row string, us float64) Result {
		return Result{Row: row, Briefs: []Brief{{Work: row, Boxwire: us}}, Curves: []Curve{{Name: row}}}
	}
	for _, run := range []struct {
		release string
		all     []Result
	}{
		{"v0.9.0", []Result{of("publish", 1)}},
		{"v0.10.0", []Result{of("publish", 2), of("attach", 3)}},
		{"v0.10.0", []Result{of("publish", 4), {Row: "attach", Error: "failed"}, {Row: "detach", NotRun: "no ip"}}},
	} {
		if err := keepResults(run.all, dir, run.release); err != nil {
			t.Fatal(err)
		}
	}
	last, err := lastRelease(dir)
	if err != nil || last.Release != "v0.10.0" || len(last.Rows) != 2 {
		t.Fatalf("%+v, %v", last, err)
	}
	for i, want := range []struct {
		row string
		us  float64
	}{{"attach", 3}, {"publish", 4}} { // in the order of the rows
		k := last.Rows[i]
		if k.Row != want.row || k.Briefs[0].Boxwire != want.us || k.Curves != nil || len(k.Where) != 3 || k.Measured == "" {
			t.Errorf("%+v", k)
		}
	}
	for _, bad := range []string{"", "0.1.0", "v0.1", "v0.1.x", "../v0.1.0"} {
		if err := keepResults(nil, dir, bad); err == nil {
			t.Errorf("the release %q is kept", bad)
		}
	}
}

// README's table is drawn from the file of the last release, and from nothing else.
func TestReadmeIsDrawnFromTheHistory(t *testing.T) {
	t.Parallel()
	last, err := lastRelease("history")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, inner, _, err := between(text)
	if err != nil {
		t.Fatal(err)
	}
	if want := shortTable(last); string(inner) != want {
		t.Errorf("README.md has\n%s\nwant\n%s", inner, want)
	}
}

func TestTheReleaseIsTheNewestOfTheChangelog(t *testing.T) {
	t.Parallel()
	got, err := releaseOf("../../CHANGELOG.md")
	if err != nil || !strings.HasPrefix(got, "v") {
		t.Errorf("%q, %v", got, err)
	}
	path := filepath.Join(t.TempDir(), "CHANGELOG.md")
	if err := os.WriteFile(path, []byte("# Changelog\n\n## Unreleased\n\n## v1.2.0 (a day)\n\n## v1.1.0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := releaseOf(path); got != "v1.2.0" {
		t.Errorf("%q, %v", got, err)
	}
}
