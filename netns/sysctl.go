package netns

import (
	"strings"

	"github.com/boxwire/boxwire/internal/refuse"
)

// sysctlPath turns the name of a setting into its path below /proc/sys/net, as
// sysctl(8) does: the first separator in the name says which of '.' and '/'
// separates, and the other one is then an ordinary character, which it has to be
// for links such as eth0.100.
func sysctlPath(key string) (string, error) {
	path := key
	if i := strings.IndexAny(key, "./"); i >= 0 && key[i] == '.' {
		path = strings.Map(func(r rune) rune {
			switch r {
			case '.':
				return '/'
			case '/':
				return '.'
			}
			return r
		}, key)
	}
	path, ok := strings.CutPrefix(path, "net/")
	if !ok {
		return "", refuse.Input("the setting %q does not begin with \"net.\": only those do that a network namespace has", key)
	}
	for part := range strings.SplitSeq(path, "/") {
		if part == "" || part == "." || part == ".." || strings.ContainsRune(part, 0) {
			return "", refuse.Input("the setting %q has a part that is no name: %q", key, part)
		}
	}
	return path, nil
}

// checkValue refuses what could not be one setting's value.
func checkValue(value string) error {
	switch {
	case value == "":
		return refuse.Input("the value is empty")
	case strings.ContainsAny(value, "\x00\n"):
		return refuse.Input("the value %q has more than one line", value)
	}
	return nil
}
