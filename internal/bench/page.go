package main

import (
	"bytes"
	"debug/buildinfo"
	"fmt"
	"os"
	"os/exec"
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
	fmt.Fprintf(&w, "# What the bench has measured\n\nThis page is written by the command below; do not edit it.\n\n    %s\n\n", commandLine())
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
	if r.NotRun != "" {
		fmt.Fprintf(w, "This row was not run: %s.\n", r.NotRun)
		return
	}
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

// commandLine is how to do this again.
func commandLine() string {
	return strings.TrimSpace("go -C internal/bench run . " + strings.Join(os.Args[1:], " "))
}

// where says on what machine it was measured.
func where() []string {
	var uts unix.Utsname
	_ = unix.Uname(&uts)
	return []string{
		"Linux " + unix.ByteSliceToString(uts.Release[:]),
		fmt.Sprintf("%d processors, %s", runtime.NumCPU(), processor()),
		runtime.Version(),
	}
}

// loadBefore is how busy the machine was with other things, over a minute.
var loadBefore = func() string {
	b, _ := os.ReadFile("/proc/loadavg")
	minute, _, _ := strings.Cut(string(b), " ")
	return minute
}()

// machine says where and with what it was measured.
func machine(w *bytes.Buffer) {
	fmt.Fprintf(w, "| | |\n|---|---|\n")
	for i, what := range where() {
		fmt.Fprintf(w, "| %s | %s |\n", []string{"kernel", "processors", "Go"}[i], what)
	}
	fmt.Fprintf(w, "| load beforehand | %s |\n", loadBefore)
	var deps []*debug.Module
	if info, ok := debug.ReadBuildInfo(); ok {
		deps = info.Deps
	}
	if info, err := buildinfo.ReadFile(filepath.Join(os.Getenv(pluginsEnv), "portmap")); err == nil {
		deps = append(deps, &info.Main)
	}
	for _, m := range deps {
		switch m.Path {
		case "github.com/vishvananda/netlink", "github.com/vishvananda/netns", "github.com/containernetworking/plugins":
			fmt.Fprintf(w, "| %s | %s |\n", m.Path, m.Version)
		}
	}
	for _, tool := range [][]string{{"ip", "-V"}, {"nft", "--version"}, {"iptables", "--version"}} {
		if out, err := exec.Command(tool[0], tool[1:]...).Output(); err == nil {
			fmt.Fprintf(w, "| %s | %s |\n", tool[0], bytes.TrimSpace(out))
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
