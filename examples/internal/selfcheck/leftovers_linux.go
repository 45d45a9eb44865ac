package selfcheck

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Leftovers is what a program can leave behind, as /proc and the file system show it.
type Leftovers struct {
	dir       string
	files     []string // below dir: names of namespaces among them
	mounts    []string // lines of /proc/self/mountinfo
	inUse     []string // network namespaces that a thread of ours is in or a descriptor of ours keeps alive
	processes []string // children of ours
}

// Look looks at this process, its mount namespace and a directory that is the program's own, such as the sandbox's /run.
func Look(dir string) (Leftovers, error) {
	l := Leftovers{dir: dir}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		l.files = append(l.files, path)
		return err
	})
	if err != nil {
		return l, err
	}
	mountinfo, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return l, err
	}
	for line := range strings.Lines(string(mountinfo)) {
		// "36 35 98:0 /root /mount/point options - type source": the point and what is mounted there.
		if f := strings.Fields(line); len(f) > 4 {
			l.mounts = append(l.mounts, f[4]+" from "+f[3])
		}
	}
	for _, pattern := range []string{"/proc/self/fd/*", "/proc/self/task/*/ns/net"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			return l, err
		}
		for _, file := range files {
			// A thread or descriptor that is gone by now holds nothing.
			if to, err := os.Readlink(file); err == nil && strings.HasPrefix(to, "net:[") {
				l.inUse = append(l.inUse, to)
			}
		}
	}
	children, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		return l, err
	}
	for _, file := range children {
		if pids, err := os.ReadFile(file); err == nil {
			l.processes = append(l.processes, strings.Fields(string(pids))...)
		}
	}
	return l, nil
}

// NothingSince returns an error that names what is there now and was not there before.
//
// A thread that has served in a namespace is retired by the runtime after its goroutine has ended, not at once, so this looks again,
// for a bounded time, until all is as it was.
func (l Leftovers) NothingSince(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	again := time.NewTicker(2 * time.Millisecond)
	defer again.Stop()
	for {
		now, err := Look(l.dir)
		if err == nil {
			err = l.compare(now)
		}
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-again.C:
		}
	}
}

func (l Leftovers) compare(now Leftovers) error {
	return errors.Join(
		Extra("files", l.files, now.files),
		Extra("mounts", l.mounts, now.mounts),
		Extra("namespaces in use", l.inUse, now.inUse),
		Extra("processes", l.processes, now.processes))
}

// Extra returns an error that names what is in now and not in before.
func Extra(what string, before, now []string) error {
	rest := slices.DeleteFunc(slices.Clone(now), func(s string) bool { return slices.Contains(before, s) })
	if len(rest) == 0 {
		return nil
	}
	slices.Sort(rest)
	return fmt.Errorf("%s left: %s", what, strings.Join(slices.Compact(rest), ", "))
}
