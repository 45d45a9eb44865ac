//go:build linux

package main

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

// leftovers is what the program can leave behind, as /proc and the file system show it.
type leftovers struct {
	files     []string // in /run, which is the sandbox's own: names of namespaces among them
	mounts    []string // lines of /proc/self/mountinfo
	inUse     []string // network namespaces that a thread of ours is in or a descriptor of ours keeps alive
	processes []string // children of ours
}

// lookForLeftovers looks at this process and its mount namespace.
func lookForLeftovers() (l leftovers, err error) {
	err = filepath.WalkDir("/run", func(path string, _ fs.DirEntry, err error) error {
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

// nothingSince returns an error that names what is left. A thread that has served in a namespace is retired by
// the runtime after its goroutine has ended, not at once, so this looks again, for a bounded time, until all is as it was.
func nothingSince(ctx context.Context, before leftovers) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	for {
		now, err := lookForLeftovers()
		if err == nil {
			err = before.compare(now)
		}
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// compare returns an error that names what is there now and was not there before.
func (l leftovers) compare(now leftovers) error {
	return errors.Join(
		extra("files", l.files, now.files),
		extra("mounts", l.mounts, now.mounts),
		extra("namespaces in use", l.inUse, now.inUse),
		extra("processes", l.processes, now.processes))
}

// extra returns an error that names what is in now and not in before.
func extra(what string, before, now []string) error {
	rest := slices.DeleteFunc(slices.Clone(now), func(s string) bool { return slices.Contains(before, s) })
	if len(rest) == 0 {
		return nil
	}
	slices.Sort(rest)
	return fmt.Errorf("%s left: %s", what, strings.Join(slices.Compact(rest), ", "))
}
