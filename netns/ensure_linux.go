package netns

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Ensure opens the named namespace of [DefaultDir], or creates it as [Create] does. It may
// be repeated. If several processes call it at the same time, all get the same namespace.
// An existing namespace is not changed.
//
// Ensure removes the empty file that an interrupted Create leaves. A file that is younger
// than a second may belong to a program that is about to mount its namespace, so Ensure
// first waits for the mount. Other files and directories are [ErrNotNamespace]. A name that
// only another mount namespace has is syscall.EBUSY.
func Ensure(ctx context.Context, name string) (*NS, error) { return Dir("").Ensure(ctx, name) }

// Ensure is the function [Ensure] for this directory.
func (d Dir) Ensure(ctx context.Context, name string) (*NS, error) {
	err := d.check(name)
	var ns *NS
	if err == nil {
		ns, err = d.ensure(ctx, name)
	}
	if err != nil {
		return nil, &Error{Op: "netns.Ensure", Subject: d.subject(name), Err: explainNaming(err)}
	}
	ns.name, ns.path = name, d.path(name)
	return ns, nil
}

func (d Dir) ensure(ctx context.Context, name string) (ns *NS, err error) {
	path := d.path(name)
	for range mostTries {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		ns, err = openFile(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			ns, err = create(ctx, func() error { return d.pin(ctx, name, selfNet) })
			if errors.Is(err, fs.ErrExist) {
				continue // another process was faster
			}
			return ns, err
		case errors.Is(err, ErrNotNamespace):
			if err := d.clear(ctx, path); err != nil {
				return nil, err
			}
		default:
			return ns, err
		}
	}
	return nil, err
}

// halfway is how long a program may take between a name's file and its mount.
const halfway = time.Second

// clear removes what a Create that was cut off leaves at path. It returns early, with
// the file still there, when that may be a namespace's name by now. It never unmounts:
// the kernel refuses to remove a file that something is mounted on (EBUSY).
func (d Dir) clear(ctx context.Context, path string) error {
	if fi, err := os.Lstat(path); err == nil && fi.Mode().IsRegular() && fi.Size() == 0 {
		rest := halfway - time.Since(fi.ModTime())
		if rest > 0 && rest <= halfway { // beyond that, the clock was set back
			return d.await(ctx, path, rest)
		}
	}
	naming.Lock()
	defer naming.Unlock()
	err := (&removal{path: path}).remove(ctx)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EBUSY) && !errors.Is(err, errElsewhere) {
		return nil
	}
	return err
}

// await waits until something changes in the directory or is mounted, or the time is up.
func (d Dir) await(ctx context.Context, path string, most time.Duration) error {
	a, err := newAlarm(d.root())
	if err != nil {
		return err
	}
	defer a.close()
	if err := a.arm(); err != nil {
		return err
	}
	if ns, err := openFile(path); err == nil { // mounted before the alarm was set
		return ns.Close()
	}
	limited, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	if err := a.wait(limited); err != nil && limited.Err() == nil {
		return err
	}
	return ctx.Err()
}
