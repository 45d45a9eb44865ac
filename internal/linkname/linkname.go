// Package linkname has the kernel's rule for the names of links.
package linkname

import (
	"strings"
	"unicode"

	"github.com/boxwire/boxwire/internal/refuse"
)

// The most bytes of a name and of an alternative name (linux/if.h, linux/netdevice.h:
// IFNAMSIZ - 1, ALTIFNAMSIZ - 1).
const (
	Max    = 15
	MaxAlt = 127
)

// Check refuses what cannot be the name of a link: what dev_valid_name in the kernel
// refuses, control characters, and '%', which the kernel takes for a pattern ("web%d").
func Check(name string) error { return check(name, Max) }

// CheckAlt is Check for a name that may be an alternative one.
func CheckAlt(name string) error { return check(name, MaxAlt) }

func check(name string, most int) error {
	switch {
	case name == "":
		return refuse.Input("the link's name is empty")
	case len(name) > most:
		return refuse.Input("the link's name %q has %d bytes; at most %d are possible", name, len(name), most)
	case name == "." || name == "..":
		return refuse.Input("the link's name must not be %q", name)
	case strings.ContainsAny(name, "/:%"):
		return refuse.Input("the link's name %q has a character that is not allowed ('/', ':' or '%%')", name)
	case strings.ContainsFunc(name, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }):
		return refuse.Input("the link's name %q has white space or a control character", name)
	case strings.IndexByte(name, 0xa0) >= 0:
		// The kernel judges single bytes as Latin-1, where 0xa0 is a space. Some letters
		// end in it in UTF-8.
		return refuse.Input("the link's name %q has a byte that the kernel takes for white space (0xa0)", name)
	}
	return nil
}
