package netns

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// List returns the named namespaces of [Dir], sorted by name. What has a name
// there and is no network namespace, because a Create was cut off for instance, is
// left out. A folder that is not there has none.
func List(ctx context.Context) ([]Named, error) { return Folder("").List(ctx) }

// List is the function [List] for this folder.
func (f Folder) List(ctx context.Context) ([]Named, error) {
	err := errors.Join(f.check(), ctx.Err())
	var named []Named
	if err == nil {
		named, err = f.list()
	}
	if err != nil {
		return nil, &Error{Op: "netns.List", Subject: f.dir(), Err: err}
	}
	return named, nil
}

func (f Folder) list() ([]Named, error) {
	entries, err := os.ReadDir(f.dir()) // sorted
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var home unix.Stat_t
	if err := unix.Stat("/proc/self/ns/net", &home); err != nil {
		return nil, &os.PathError{Op: "stat", Path: "/proc/self/ns/net", Err: err}
	}
	var named []Named
	for _, e := range entries {
		// All namespace files are on one device; nothing else is opened.
		var st unix.Stat_t
		if unix.Stat(f.path(e.Name()), &st) != nil || st.Dev != home.Dev {
			continue
		}
		ns, err := openFile(f.path(e.Name()))
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrInvalid): // gone since, or of another kind
			continue
		case err != nil:
			return nil, err
		}
		named = append(named, Named{e.Name(), ns.id})
		ns.Close()
	}
	return named, nil
}
