package netns

import (
	"path/filepath"
	"strconv"
	"strings"
	"unicode"

	"github.com/boxwire/boxwire/internal/refuse"
)

// Dir is the folder of named namespaces, the one that `ip netns` uses
// (ip-netns(8)).
const Dir = "/run/netns"

// A Folder is a place where namespaces have names: an absolute path. "" is [Dir],
// and the functions [Create], [Open], [Pin], [Rename], [Delete], [List] and
// [Watch] are its methods.
//
// Dir is made as `ip netns` makes it: a mount point of its own with shared
// propagation, so that other mount namespaces see the names. Any other folder
// is made when it is missing and otherwise used as it is; whether other mount
// namespaces see its names is up to the mount it lies on (mount_namespaces(7)).
type Folder string

// dir returns the folder's path.
func (f Folder) dir() string {
	if f == "" {
		return Dir
	}
	return filepath.Clean(string(f))
}

func (f Folder) path(name string) string { return f.dir() + "/" + name }

// subject names a namespace of the folder in an error.
func (f Folder) subject(name string) string {
	if f.dir() == Dir {
		return strconv.Quote(name)
	}
	return strconv.Quote(f.path(name))
}

// check refuses what cannot be a folder, or a name in it.
func (f Folder) check(names ...string) error {
	if f != "" && (!filepath.IsAbs(string(f)) || strings.ContainsRune(string(f), 0)) {
		return refuse.Input("the folder %q is not an absolute path", string(f))
	}
	for _, name := range names {
		if err := checkName(name); err != nil {
			return err
		}
	}
	return nil
}

// maxName is NAME_MAX: a name is a file in its folder.
const maxName = 255

// checkName refuses what cannot be the name of a namespace.
func checkName(name string) error {
	switch {
	case name == "":
		return refuse.Input("the name is empty")
	case len(name) > maxName:
		return refuse.Input("the name has %d bytes, %d is the most", len(name), maxName)
	case name == "." || name == "..":
		return refuse.Input("the name %q is a folder's", name)
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
