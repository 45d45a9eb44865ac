package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// suites are the kernels that can be asked for, and the suite of Debian whose
// packages bring each. The last one moves: it is the newest kernel there is, and
// at least the one of its name.
var suites = []struct{ name, suite string }{
	{"5.10", "bullseye"},
	{"6.1", "bookworm"},
	{"6.12", "trixie"},
	{"7.2", "sid"},
}

// kernel is a kernel that lies ready in the cache.
type kernel struct {
	name      string // as asked for: "5.10"
	release   string // as it says itself: "5.10.0-32-amd64"
	dir       string // holds vmlinuz and lib/modules/<release>
	parameter string // that it boots with, of ipv6Modes
}

// booted is the kernel with IPv6 on, off or disabled.
func (k kernel) booted(mode string) kernel {
	if k.parameter = ipv6Modes[mode]; k.parameter != "" {
		k.name += "-" + mode
	}
	return k
}

func (k kernel) image() string { return filepath.Join(k.dir, "vmlinuz") }

// parseKernels reads a list of kernels, "5.10,7.2".
func parseKernels(list string) ([]string, error) {
	var names []string
	for name := range strings.SplitSeq(list, ",") {
		if suiteOf(name) == "" {
			var known []string
			for _, s := range suites {
				known = append(known, s.name)
			}
			return nil, fmt.Errorf("kernel %q is not known: it can be any of %s", name, strings.Join(known, ", "))
		}
		if slices.Contains(names, name) {
			return nil, fmt.Errorf("kernel %s is named twice", name)
		}
		names = append(names, name)
	}
	return names, nil
}

// suiteOf returns the suite that brings a kernel, "" for an unknown one.
func suiteOf(name string) string {
	for _, s := range suites {
		if s.name == name {
			return s.suite
		}
	}
	return ""
}

// cached returns a kernel from the cache. A directory there gets its name when
// it is complete, so each that is found can be used.
func cached(cache, name string) (kernel, error) {
	k := kernel{name: name, dir: filepath.Join(cache, name)}
	modules, err := filepath.Glob(filepath.Join(k.dir, "lib/modules/*"))
	if err != nil {
		return kernel{}, err
	}
	if len(modules) != 1 {
		return kernel{}, fmt.Errorf("no kernel %s in %s: %w", name, cache, os.ErrNotExist)
	}
	k.release = filepath.Base(modules[0])
	return k, nil
}

// fits says whether a release is the kernel of that name or, from the suite that
// moves, a newer one.
func fits(release, name string) bool {
	if name == suites[len(suites)-1].name {
		return newEnough(release, name)
	}
	return strings.HasPrefix(release, name+".")
}

// newEnough says whether a release is at least a version, "6.7" say.
func newEnough(release, version string) bool {
	number := func(s string) (n [2]int) {
		fmt.Sscanf(s, "%d.%d", &n[0], &n[1]) // 0.0 if it is none
		return n
	}
	have, want := number(release), number(version)
	return slices.Compare(have[:], want[:]) >= 0
}
