package netns

import (
	"path/filepath"
	"strconv"
	"strings"
	"unicode"

	"github.com/boxwire/boxwire/internal/refuse"
)

// DefaultDir is the directory of named namespaces that `ip netns` uses (ip-netns(8)).
const DefaultDir = "/run/netns"

// A Dir is a directory in which namespaces have names: an absolute path. "" is
// [DefaultDir]. Its methods do there what the functions [Create], [Ensure], [Open], [Pin],
// [Rename], [Delete], [List] and [Watch] do in DefaultDir.
//
// A missing directory is made. DefaultDir is made a mount point with shared propagation, as
// `ip netns` does, so that other mount namespaces see the names. Any other directory is not
// mounted on: the mount that it lies on decides who sees its names (mount_namespaces(7)).
type Dir string

// root returns the directory's path.
func (d Dir) root() string {
	if d == "" {
		return DefaultDir
	}
	return filepath.Clean(string(d))
}

func (d Dir) path(name string) string { return d.root() + "/" + name }

// subject names a namespace of the directory in an error.
func (d Dir) subject(name string) string {
	if d.root() == DefaultDir {
		return strconv.Quote(name)
	}
	return strconv.Quote(d.path(name))
}

// check refuses what cannot be a directory, or a name in it.
func (d Dir) check(names ...string) error {
	if d != "" && (!filepath.IsAbs(string(d)) || strings.ContainsRune(string(d), 0)) {
		return refuse.Input("the directory %q is not an absolute path", string(d))
	}
	for _, name := range names {
		if err := checkName(name); err != nil {
			return err
		}
	}
	return nil
}

// maxName is NAME_MAX: a name is a file in its directory.
const maxName = 255

// checkName refuses what cannot be the name of a namespace.
func checkName(name string) error {
	switch {
	case name == "":
		return refuse.Input("the name is empty")
	case len(name) > maxName:
		return refuse.Input("the name has %d bytes, %d is the most", len(name), maxName)
	case name == "." || name == "..":
		return refuse.Input("the name %q is a directory's", name)
	case strings.ContainsRune(name, '/'):
		return refuse.Input("the name %q contains '/'", name)
	}
	for _, r := range name {
		if unicode.IsSpace(r) || unicode.IsControl(r) {
			return refuse.Input("the name %q contains %q", name, r)
		}
	}
	return nil
}
