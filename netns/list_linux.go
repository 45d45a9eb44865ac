package netns

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// List returns the named namespaces of [DefaultDir], sorted by name. It leaves out files
// that are not network namespaces, such as what an interrupted Create leaves. A missing
// directory is empty.
func List(ctx context.Context) ([]Entry, error) { return Dir("").List(ctx) }

// List is the function [List] for this directory.
func (d Dir) List(ctx context.Context) ([]Entry, error) {
	err := errors.Join(d.check(), ctx.Err())
	var named []Entry
	if err == nil {
		named, err = d.list()
	}
	if err != nil {
		return nil, &Error{Op: "netns.List", Subject: d.root(), Err: err}
	}
	return named, nil
}

func (d Dir) list() ([]Entry, error) {
	entries, err := os.ReadDir(d.root()) // sorted
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
	var named []Entry
	for _, e := range entries {
		// All namespace files are on one device; nothing else is opened.
		var st unix.Stat_t
		if unix.Stat(d.path(e.Name()), &st) != nil || st.Dev != home.Dev {
			continue
		}
		ns, err := openFile(d.path(e.Name()))
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrInvalid): // gone since, or of another kind
			continue
		case err != nil:
			return nil, err
		}
		named = append(named, Entry{e.Name(), ns.id})
		ns.Close()
	}
	return named, nil
}
