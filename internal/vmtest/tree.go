package main

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cavaliergopher/cpio"
)

// tree is a file system in the making. Its paths are absolute and clean.
type tree map[string]node

// node is a directory (the zero value), a file from the machine, a file of given
// content, or a symbolic link.
type node struct {
	from    string // the machine's file
	content []byte
	link    string // what the link says
	mode    fs.FileMode
}

func (n node) isDir() bool { return n.mode.IsDir() }

// put adds a node and the directories above it.
func (t tree) put(name string, n node) {
	t[name] = n
	for dir := path.Dir(name); dir != "/"; dir = path.Dir(dir) {
		if _, ok := t[dir]; ok {
			return
		}
		t[dir] = node{mode: fs.ModeDir | 0o755}
	}
}

func (t tree) dir(name string)             { t.put(name, node{mode: fs.ModeDir | 0o755}) }
func (t tree) write(name string, b []byte) { t.put(name, node{content: b, mode: 0o644}) }
func (t tree) symlink(name, target string) {
	t.put(name, node{link: target, mode: fs.ModeSymlink | 0o777})
}
func (t tree) program(name, from string) { t.put(name, node{from: from, mode: 0o755}) }
func (t tree) file(name, from string)    { t.put(name, node{from: from, mode: 0o644}) }
func (t tree) has(name string) bool      { _, ok := t[name]; return ok }

// addDir adds a directory of the machine with all that is in it. It may be missing.
// A symbolic link is followed, so that one that leads out of the directory is whole
// too.
func (t tree) addDir(name, from string, skip func(path string, d fs.DirEntry) bool) error {
	return filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		switch {
		case os.IsNotExist(err) && p == from:
			return nil
		case err != nil:
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		if skip != nil && skip(filepath.ToSlash(rel), d) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		info, err := os.Stat(p)
		switch {
		case err != nil || !info.Mode().IsRegular() && !info.IsDir():
			return nil // a link to nowhere, a socket
		case info.IsDir():
			if d.IsDir() {
				t.dir(path.Join(name, filepath.ToSlash(rel)))
			}
			return nil
		}
		t.put(path.Join(name, filepath.ToSlash(rel)), node{from: p, mode: info.Mode().Perm()})
		return nil
	})
}

// writeTo writes the trees, one after another, as an initramfs.
func writeTo(w io.Writer, trees ...tree) error {
	out := cpio.NewWriter(w)
	for _, t := range trees {
		for _, name := range slices.Sorted(maps.Keys(t)) { // a directory comes before what is in it
			if err := t[name].writeTo(out, strings.TrimPrefix(name, "/")); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return out.Close()
}

func (n node) writeTo(out *cpio.Writer, name string) error {
	h := &cpio.Header{Name: name, Mode: cpio.FileMode(n.mode.Perm()), Links: 1}
	var content io.Reader = bytes.NewReader(n.content)
	h.Size = int64(len(n.content))
	switch {
	case n.isDir():
		h.Mode |= cpio.TypeDir
	case n.link != "":
		h.Mode |= cpio.TypeSymlink
		h.Size, content = int64(len(n.link)), strings.NewReader(n.link)
	case n.from != "":
		f, err := os.Open(n.from)
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		h.Mode |= cpio.TypeReg
		h.Size, content = info.Size(), io.LimitReader(f, info.Size())
	default:
		h.Mode |= cpio.TypeReg
	}
	if err := out.WriteHeader(h); err != nil {
		return err
	}
	if n.isDir() {
		return nil
	}
	_, err := io.Copy(out, content)
	return err
}
