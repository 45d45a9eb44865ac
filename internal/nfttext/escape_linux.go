package nfttext

import (
	"strconv"
	"strings"
	"unicode"
)

// quoted writes a text in quotes. Only what is not printable is escaped.
func quoted(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return r == unicode.ReplacementChar || r == '"' || !strconv.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return `"` + s + `"`
}

// name writes the name of a table, chain or set: in quotes only if it is none that nft
// would read without them.
func name(s string) string {
	ordinary := func(r rune) bool {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("_-./\\", r)
	}
	if s == "" || strings.ContainsFunc(s, func(r rune) bool { return !ordinary(r) }) {
		return quoted(s)
	}
	return s
}
