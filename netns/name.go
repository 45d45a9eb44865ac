package netns

import (
	"strings"
	"unicode"

	"github.com/boxwire/boxwire/internal/refuse"
)

// Dir is the folder of named namespaces, the one that `ip netns` uses
// (ip-netns(8)).
const Dir = "/run/netns"

// maxName is NAME_MAX: a name is a file in Dir.
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
