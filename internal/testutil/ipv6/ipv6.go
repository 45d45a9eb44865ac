// Package ipv6 leaves IPv6 out of what tests prepare where namespaces have none.
package ipv6

import (
	"net/netip"
	"strings"

	"github.com/boxwire/boxwire/netns/netnstest"
)

// Lines returns lines of commands for a namespace: where namespaces have no
// IPv6, without those that have an IPv6 address or prefix among their words.
func Lines(lines string) string {
	if netnstest.HasIPv6() {
		return lines
	}
	var kept strings.Builder
	for line := range strings.Lines(lines) {
		if !Among(line) {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

// Among reports whether one of the words of a text is an IPv6 address or
// prefix.
func Among(text string) bool {
	for word := range strings.FieldsFuncSeq(text, func(r rune) bool { return strings.ContainsRune(" \t\n,[]", r) }) {
		if a, err := netip.ParseAddr(word); err == nil && a.Is6() {
			return true
		}
		if p, err := netip.ParsePrefix(word); err == nil && p.Addr().Is6() {
			return true
		}
	}
	return false
}
