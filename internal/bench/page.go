package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// writePage writes the page of results: where it was measured, a table, the
// curves. Nothing in it is typed by hand.
func writePage(all []Result, plotDir, path string) error {
	var w bytes.Buffer
	fmt.Fprintf(&w, "# What the bench has measured\n\nThis page is written by the command below; do not edit it.\n\n    go -C internal/bench run . %s\n\n", strings.Join(os.Args[1:], " "))
	machine(&w)
	fmt.Fprintf(&w, "\nA ratio is the median of the ratios of single rounds, in which the contenders took turns.\n")
	for _, r := range all {
		section(&w, r)
	}
	names, _ := charts(all)
	if plotDir != "" && len(names) > 0 {
		fmt.Fprintf(&w, "\n## Curves\n\n")
		for _, name := range names {
			rel, err := filepath.Rel(filepath.Dir(path), filepath.Join(plotDir, name+".svg"))
			if err != nil {
				return err
			}
			fmt.Fprintf(&w, "![%s](%s)\n\n", name, filepath.ToSlash(rel))
		}
	}
	return os.WriteFile(path, w.Bytes(), 0o644)
}

func section(w *bytes.Buffer, r Result) {
	fmt.Fprintf(w, "\n## %s\n\n%s.\n\n", r.Row, r.Work)
	if r.Error != "" {
		fmt.Fprintf(w, "This row failed: %s\n", r.Error)
		return
	}
	fmt.Fprintf(w, "| contender | µs a %s, median | min | max | rounds |\n|---|---:|---:|---:|---:|\n", r.Unit)
	for _, s := range r.Series {
		fmt.Fprintf(w, "| %s | %.1f | %.1f | %.1f | %d |\n", s.Name, s.Median, s.Min, s.Max, s.Rounds)
	}
	if len(r.Claims) > 0 {
		fmt.Fprintf(w, "\n| ratio | measured | target | |\n|---|---:|---:|---|\n")
		for _, c := range r.Claims {
			word, holds := "≤", "holds"
			if c.Least {
				word = "≥"
			}
			if !c.Holds {
				holds = "**missed**"
			}
			fmt.Fprintf(w, "| %s | %.2f | %s %.2f | %s |\n", c.Text, c.Value, word, c.Bound, holds)
		}
	}
	for _, n := range r.Notes {
		fmt.Fprintf(w, "\n%s\n", n)
	}
}

// machine says where and with what it was measured.
func machine(w *bytes.Buffer) {
	var uts unix.Utsname
	_ = unix.Uname(&uts)
	fmt.Fprintf(w, "| | |\n|---|---|\n| kernel | %s |\n| processors | %d, %s |\n| Go | %s |\n",
		unix.ByteSliceToString(uts.Release[:]), runtime.NumCPU(), processor(), runtime.Version())
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return
	}
	for _, m := range info.Deps {
		switch m.Path {
		case "github.com/vishvananda/netlink", "github.com/vishvananda/netns":
			fmt.Fprintf(w, "| %s | %s |\n", m.Path, m.Version)
		}
	}
}

func processor() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(b)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "of an unknown model"
}
