// Command api writes down what the library exports: one file for each package, one line for each name. It also writes
// the file unsupported.go of each package, with which other systems have the functions and methods of Linux. There each
// returns errors.ErrUnsupported.
//
//	go run ./internal/api                 write internal/api/*.txt and */unsupported.go
//	go run ./internal/api -check          fail if they are not what the code exports
//	go run ./internal/api -check -since REV
//	                                      fail also if they changed since the commit and CHANGELOG.md has no new line
//	                                      in its first section
//
// It runs in the root of the repository. The files hold the API on Linux; with -check, that of other systems has to be
// the same.
package main

//go:generate go -C ../.. run ./internal/api

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

const (
	directory = "internal/api"
	changelog = "CHANGELOG.md"
)

func main() {
	check := flag.Bool("check", false, "compare the files with the code and write nothing")
	since := flag.String("since", "", "with -check, the commit that a change of the files is measured from")
	flag.Parse()
	var err error
	if *check {
		err = compare(*since)
	} else {
		err = write()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// write brings the files up to date.
func write() error {
	dirs, err := directories(".")
	if err != nil {
		return err
	}
	if _, err := writeStubs(dirs, false); err != nil {
		return err
	}
	files, err := generate(dirs, "linux")
	if err != nil {
		return err
	}
	for path, text := range files {
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// compare fails if the files differ from the code, or if they changed since a commit and the changelog did not.
func compare(since string) error {
	dirs, err := directories(".")
	if err != nil {
		return err
	}
	stale, err := writeStubs(dirs, true)
	if err != nil {
		return err
	}
	if len(stale) > 0 {
		return fmt.Errorf("%s: not what the Linux files export; run `go generate ./...`", strings.Join(stale, ", "))
	}
	files, err := generate(dirs, "linux")
	if err != nil {
		return err
	}
	for _, goos := range []string{"darwin", "windows"} {
		others, err := generate(dirs, goos)
		if err != nil {
			return err
		}
		if err := same(goos, files, others); err != nil {
			return err
		}
	}
	for path, want := range files {
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			stale = append(stale, path)
		}
	}
	kept, _ := filepath.Glob(directory + "/*.txt")
	for _, path := range kept {
		if _, ok := files[path]; !ok {
			stale = append(stale, path)
		}
	}
	if len(stale) > 0 {
		slices.Sort(stale)
		return fmt.Errorf("the API is not what %s says; run `go run ./internal/api` and name the change in %s", strings.Join(stale, ", "), changelog)
	}
	if since == "" {
		return nil
	}
	return announced(since)
}

// same fails if the API of another system is not that of Linux: a program that compiles on the one compiles on the other.
func same(goos string, linux, others map[string][]byte) error {
	var differ []string
	for path, text := range linux {
		want, got := strings.Split(string(text), "\n"), strings.Split(string(others[path]), "\n")
		for _, line := range slices.Concat(want, got) {
			if has := slices.Contains(got, line); has != slices.Contains(want, line) {
				differ = append(differ, fmt.Sprintf("\n%s: %q on %s alone", filepath.Base(path), line, map[bool]string{true: goos, false: "linux"}[has]))
			}
		}
	}
	if differ == nil {
		return nil
	}
	slices.Sort(differ)
	return fmt.Errorf("the API differs:%s", strings.Join(slices.Compact(differ), ""))
}

// announced fails if the files changed since a commit and the changelog's first section has no new line.
func announced(since string) error {
	changed, err := git("diff", "--name-only", since, "--", directory+"/*.txt")
	if err != nil {
		return err
	}
	if len(changed) == 0 {
		return nil
	}
	before, err := git("show", since+":"+changelog)
	if err != nil {
		return err
	}
	now, err := os.ReadFile(changelog)
	if err != nil {
		return err
	}
	if !gained(string(before), string(now)) {
		return fmt.Errorf("the API changed since %s (%s), and the first section of %s has no new line",
			since, strings.Join(strings.Fields(string(changed)), ", "), changelog)
	}
	return nil
}

func git(args ...string) ([]byte, error) {
	cmd := exec.Command("git", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("git %s: %w: %s", args[0], err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out, nil
}

// gained reports whether the first section of a changelog has an item that the older one did not have.
func gained(before, now string) bool {
	for line := range strings.Lines(firstSection(now)) {
		if strings.HasPrefix(line, "- ") && !strings.Contains(before, line) {
			return true
		}
	}
	return false
}

// firstSection returns the text from the first heading of the second level to the next.
func firstSection(text string) string {
	_, text, _ = strings.Cut(text, "\n## ")
	text, _, _ = strings.Cut(text, "\n## ")
	return text
}
