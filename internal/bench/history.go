package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The history has a file for each release, with the last figures of each row. A run of some rows
// replaces those, and leaves the others. The README's table is drawn from the last release's file.

// A Release is what the file of one holds.
type Release struct {
	Release string `json:"release"`
	Rows    []Kept `json:"rows"` // in the order of the rows
}

// A Kept is a row's result, and where it comes from. Curves are left out.
type Kept struct {
	Measured string   `json:"measured"` // the day
	Command  string   `json:"command"`
	Where    []string `json:"where"` // kernel, processors, Go
	Load     string   `json:"load"`  // of the machine beforehand
	Result
}

// keepResults writes the results into the history.
func keepResults(all []Result, dir, release string) error {
	if !isRelease(release) {
		return fmt.Errorf("%q is no release: v0.1.0, say", release)
	}
	path := filepath.Join(dir, release+".json")
	kept, err := readRelease(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	kept.Release = release
	for _, r := range all {
		if r.Error != "" || r.NotRun != "" {
			continue // the last figures are better than none
		}
		r.Curves = nil
		k := Kept{Measured: time.Now().UTC().Format(time.DateOnly), Command: commandLine(), Where: where(), Load: loadBefore, Result: r}
		if i := slices.IndexFunc(kept.Rows, func(k Kept) bool { return k.Row == r.Row }); i >= 0 {
			kept.Rows[i] = k
		} else {
			kept.Rows = append(kept.Rows, k)
		}
	}
	slices.SortStableFunc(kept.Rows, func(a, b Kept) int { return cmp.Compare(placeOf(a.Row), placeOf(b.Row)) })
	b, err := json.MarshalIndent(kept, "", "\t")
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err == nil {
		err = os.WriteFile(path, append(b, '\n'), 0o644)
	}
	return err
}

// placeOf is where a row stands in the table. One that there is no more stands behind.
func placeOf(name string) int {
	if i := slices.IndexFunc(rows, func(r *row) bool { return r.name == name }); i >= 0 {
		return i
	}
	return len(rows)
}

func readRelease(path string) (r Release, err error) {
	b, err := os.ReadFile(path)
	if err == nil {
		if err = json.Unmarshal(b, &r); err != nil {
			err = fmt.Errorf("%s: %w", path, err)
		}
	}
	return r, err
}

// lastRelease reads the file of the last release in the history.
func lastRelease(dir string) (Release, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return Release{}, err
	}
	last := ""
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".json")
		if ok && isRelease(name) && (last == "" || slices.Compare(versionOf(name), versionOf(last)) > 0) {
			last = name
		}
	}
	if last == "" {
		return Release{}, fmt.Errorf("%s has no release: %w", dir, os.ErrNotExist)
	}
	return readRelease(filepath.Join(dir, last+".json"))
}

// versionOf returns the numbers of a release: nil if it is none.
func versionOf(release string) (numbers []int) {
	text, ok := strings.CutPrefix(release, "v")
	if !ok {
		return nil
	}
	for part := range strings.SplitSeq(text, ".") {
		n, err := strconv.Atoi(part)
		if err != nil || n < 0 {
			return nil
		}
		numbers = append(numbers, n)
	}
	return numbers
}

func isRelease(name string) bool { return len(versionOf(name)) == 3 }

// releaseOf returns the newest release that a changelog names.
func releaseOf(changelog string) (string, error) {
	b, err := os.ReadFile(changelog)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		heading, ok := strings.CutPrefix(line, "## ")
		if !ok {
			continue
		}
		if name, _, _ := strings.Cut(strings.TrimSpace(heading), " "); isRelease(name) {
			return name, nil
		}
	}
	return "", fmt.Errorf("%s names no release", changelog)
}
