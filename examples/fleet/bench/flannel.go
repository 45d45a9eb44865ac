//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// The environment of the run in the sandbox says where flanneld is, or why there is none, and what it is.
const (
	flannelEnv    = "BOXWIRE_BENCH_FLANNEL"
	noFlannelEnv  = "BOXWIRE_BENCH_NO_FLANNEL"
	flannelHowEnv = "BOXWIRE_BENCH_FLANNEL_HOW"
)

// flannelVersion is the flannel that is built. flannelWithout is what is left out of it: the backends of one cloud each, whose
// kits are large and not needed here.
const flannelVersion = "v0.28.10"

var flannelWithout = []string{"tencentvpc"}

func needsFlannel(chosen []*row) bool {
	return slices.ContainsFunc(chosen, func(r *row) bool { return r.flannel })
}

// prepareFlannel finds or builds flanneld before the sandbox, because go may have to fetch what is missing. It leaves no file:
// this process keeps the program open and waits for the run in the sandbox.
func prepareFlannel(o options) {
	if os.Getenv(flannelEnv) != "" || os.Getenv(noFlannelEnv) != "" {
		return
	}
	switch {
	case o.flannel != "":
		path, err := filepath.Abs(o.flannel)
		if err != nil {
			os.Setenv(noFlannelEnv, err.Error())
			return
		}
		os.Setenv(flannelEnv, path)
		out, _ := exec.Command(path, "-version").CombinedOutput()
		os.Setenv(flannelHowEnv, strings.TrimSpace(string(out)))
	case o.quick:
		os.Setenv(noFlannelEnv, "-quick leaves flannel out")
	default:
		path, err := buildFlannel()
		if err != nil {
			os.Setenv(noFlannelEnv, fmt.Sprintf("flannel %s could not be built: %v", flannelVersion, err))
			return
		}
		os.Setenv(flannelEnv, path)
		os.Setenv(flannelHowEnv, fmt.Sprintf("%s, built without its backend %s", flannelVersion, strings.Join(flannelWithout, ", ")))
	}
}

// buildFlannel builds flanneld of the Go module and returns a path that leads to it as long as this process lives.
func buildFlannel() (path string, err error) {
	dir, err := os.MkdirTemp("", "boxwire-flannel-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	cmd := exec.Command("go", "mod", "download", "-json", "github.com/flannel-io/flannel@"+flannelVersion)
	cmd.Dir = dir
	out, err := cmd.Output()
	var module struct{ Dir, Error string }
	if jerr := json.Unmarshal(out, &module); jerr != nil || module.Dir == "" {
		return "", fmt.Errorf("go mod download: %w: %s", errors.Join(err, jerr), module.Error)
	}
	src := filepath.Join(dir, "src")
	if err := copyWithout(src, module.Dir); err != nil {
		return "", err
	}
	cmd = exec.Command("go", "build", "-buildvcs=false", "-o", filepath.Join(dir, "flanneld"), ".")
	cmd.Dir = src
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, out)
	}
	f, err := os.Open(filepath.Join(dir, "flanneld"))
	if err != nil {
		return "", err
	}
	kept = append(kept, f)
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()), nil
}

// kept are files that stay open until the program ends.
var kept []*os.File

// copyWithout copies flannel's source. Its main does not import what is left out.
func copyWithout(to, from string) error {
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), text, 0o644)
	})
	if err != nil {
		return err
	}
	main := filepath.Join(to, "main.go")
	text, err := os.ReadFile(main)
	if err != nil {
		return err
	}
	var kept []string
	for line := range strings.Lines(string(text)) {
		if !slices.ContainsFunc(flannelWithout, func(name string) bool { return strings.Contains(line, "/pkg/backend/"+name+`"`) }) {
			kept = append(kept, line)
		}
	}
	return os.WriteFile(main, []byte(strings.Join(kept, "")), 0o644)
}

// flanneldMain becomes flanneld.
func flanneldMain(args []string) int {
	path := os.Getenv(flannelEnv)
	err := syscall.Exec(path, append([]string{"flanneld"}, args...), os.Environ())
	fmt.Fprintf(os.Stderr, "bench: %s: %v\n", path, err)
	return 1
}

// haveFlannel is why a row with flannel cannot run, nil if it can.
func haveFlannel(b *bout) error {
	if b.quick || os.Getenv(flannelEnv) == "" {
		why := os.Getenv(noFlannelEnv)
		if why == "" {
			why = "there is no flanneld"
		}
		return notRun(why)
	}
	return nil
}
