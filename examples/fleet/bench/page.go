//go:build linux

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// printResult prints a row for a person.
func printResult(w io.Writer, r Result) {
	fmt.Fprintf(w, "\n%s: %s\n", r.Row, r.Work)
	for _, s := range r.Series {
		fmt.Fprintf(w, "  %-58s %9s %-8s  p99 %s, %s to %s, %d figures\n", s.Name, number(s.quantile(0.5)), s.Unit,
			number(s.quantile(0.99)), number(s.quantile(0)), number(s.quantile(1)), len(s.Values))
	}
	for _, c := range r.Claims {
		mark := "ok  "
		if !c.Holds() {
			mark = "MISS"
		}
		fmt.Fprintf(w, "  %s %s: %s%s, target %s\n", mark, c.Text, number(c.Value), unit(c.Unit), c.Target())
	}
	for _, n := range r.Notes {
		fmt.Fprintf(w, "  %s\n", n)
	}
	if r.NotRun != "" {
		fmt.Fprintf(w, "  not run: %s\n", r.NotRun)
	}
	if r.Error != "" {
		fmt.Fprintf(w, "  FAILED: %s\n", r.Error)
	}
	fmt.Fprintf(w, "  %.1f s\n", r.Took.Seconds())
}

// writePage writes the page of results: where it was measured, the targets, and the rows. Nothing in it is typed by hand.
func writePage(all []Result, path string) error {
	var w bytes.Buffer
	fmt.Fprintf(&w, "# What the fleet's bench has measured\n\nThis page is written by the command below; do not edit it.\n\n    %s\n\n", commandLine())
	machine(&w)
	fmt.Fprint(&w, "\nThe machines are namespaces of one lab. All their agents, the store and what measures share these processors: "+
		"a time that all agents of a fleet take together is that of one machine doing the work of all. Files of agents and store are on a tmpfs.\n")
	fmt.Fprintf(&w, "\n| row | figure | measured | target | |\n|---|---|---:|---:|---|\n")
	for _, r := range all {
		for _, c := range r.Claims {
			holds := "holds"
			if !c.Holds() {
				holds = "**missed**"
			}
			fmt.Fprintf(&w, "| %s | %s | %s%s | %s | %s |\n", r.Row, c.Text, number(c.Value), unit(c.Unit), c.Target(), holds)
		}
	}
	for _, r := range all {
		section(&w, r)
	}
	return os.WriteFile(path, w.Bytes(), 0o644)
}

func section(w *bytes.Buffer, r Result) {
	fmt.Fprintf(w, "\n## %s\n\n%s.\n", r.Row, r.Work)
	if r.NotRun != "" {
		fmt.Fprintf(w, "\nThis row was not run: %s.\n", r.NotRun)
		return
	}
	if r.Error != "" {
		fmt.Fprintf(w, "\nThis row failed: %s\n", r.Error)
		return
	}
	fmt.Fprintf(w, "\n| | unit | median | p99 | min | max | figures |\n|---|---|---:|---:|---:|---:|---:|\n")
	for _, s := range r.Series {
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s | %d |\n", s.Name, s.Unit, number(s.quantile(0.5)), number(s.quantile(0.99)),
			number(s.quantile(0)), number(s.quantile(1)), len(s.Values))
	}
	for _, n := range r.Notes {
		fmt.Fprintf(w, "\n%s\n", n)
	}
}

// commandLine is how to do this again.
func commandLine() string {
	return strings.TrimSpace("go -C examples/fleet run ./bench " + strings.Join(os.Args[1:], " "))
}

// loadBefore is how busy the machine was with other things, over a minute.
var loadBefore = func() string {
	b, _ := os.ReadFile("/proc/loadavg")
	minute, _, _ := strings.Cut(string(b), " ")
	return minute
}()

// machine says where and with what it was measured.
func machine(w *bytes.Buffer) {
	var uts unix.Utsname
	_ = unix.Uname(&uts)
	fmt.Fprintf(w, "| | |\n|---|---|\n| kernel | Linux %s |\n", unix.ByteSliceToString(uts.Release[:]))
	fmt.Fprintf(w, "| processors | %d, %s |\n| Go | %s |\n| load beforehand | %s |\n", runtime.NumCPU(), processor(), runtime.Version(), loadBefore)
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			switch m.Path {
			case "go.etcd.io/etcd/client/v3", "go.etcd.io/etcd/server/v3", "google.golang.org/grpc":
				fmt.Fprintf(w, "| %s | %s |\n", m.Path, m.Version)
			}
		}
	}
	if out, err := exec.Command("ip", "-V").Output(); err == nil {
		fmt.Fprintf(w, "| ip | %s |\n", bytes.TrimSpace(out))
	}
	if how := os.Getenv(flannelHowEnv); how != "" {
		fmt.Fprintf(w, "| flannel | %s |\n", how)
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
