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

	"github.com/boxwire/boxwire/netns"
)

// leftovers is what a program can leave behind, as /proc and the file system show it.
type leftovers struct {
	names  []string // files in /run/netns
	mounts []string // lines of /proc/self/mountinfo
	inUse  []string // network namespaces that a thread of ours is in or a descriptor of ours keeps alive
}

// leftovers looks at this process and its mount namespace.
func (w *world) leftovers(context.Context) (leftovers, error) {
	var l leftovers
	names, err := os.ReadDir(netns.DefaultDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return l, err
	}
	for _, name := range names {
		l.names = append(l.names, name.Name())
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
	slices.Sort(l.mounts)

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
	slices.Sort(l.inUse)
	l.inUse = slices.Compact(l.inUse)
	return l, nil
}

// nothingSince returns an error that names what is there now and was not there before.
//
// A thread that has served in a namespace is retired by the runtime after its goroutine has ended, not at once, so this
// looks again, for a bounded time, until all is as it was.
func (w *world) nothingSince(ctx context.Context, before leftovers) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	again := time.NewTicker(2 * time.Millisecond)
	defer again.Stop()
	for {
		now, err := w.leftovers(ctx)
		if err != nil {
			return err
		}
		err = errors.Join(
			extra("named namespaces", before.names, now.names),
			extra("mounts", before.mounts, now.mounts),
			extra("namespaces in use", before.inUse, now.inUse))
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

// hostIsEmpty returns an error unless the host has no link but lo and no table.
func (w *world) hostIsEmpty(ctx context.Context) error {
	names, err := linkNames(ctx, w.host)
	if err != nil {
		return err
	}
	tables, err := tables(ctx, w.host)
	if err != nil {
		return err
	}
	return errors.Join(extra("links", []string{"lo"}, names), extra("tables", nil, tables))
}

// extra returns an error that names what is in now and not in before.
func extra(what string, before, now []string) error {
	rest := slices.DeleteFunc(slices.Clone(now), func(s string) bool { return slices.Contains(before, s) })
	if len(rest) == 0 {
		return nil
	}
	return fmt.Errorf("%s left: %s", what, strings.Join(rest, ", "))
}
