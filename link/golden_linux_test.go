package link

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// hexBytes reads a recorded message; white space in it is for the reader. The
// records are of little-endian machines.
func hexBytes(t testing.TB, s string) []byte {
	t.Helper()
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("recorded on a little-endian machine")
	}
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// sameNested compares two messages: the header byte by byte and the attributes
// in any order, also inside those that ours marks as nested. That mark itself,
// which many programs leave away, does not count.
func sameNested(ours, theirs []byte, header int) bool {
	if len(ours) < header || len(theirs) < header || !bytes.Equal(ours[:header], theirs[:header]) {
		return false
	}
	a, b := attrsByType(ours[header:]), attrsByType(theirs[header:])
	return slices.EqualFunc(a, b, func(a, b attr) bool {
		switch {
		case a.typ&^unix.NLA_F_NESTED != b.typ&^unix.NLA_F_NESTED:
			return false
		case a.typ&unix.NLA_F_NESTED != 0:
			return sameNested(a.data, b.data, 0)
		}
		return bytes.Equal(a.data, b.data)
	})
}

type attr struct {
	typ  uint16
	data []byte
}

func attrsByType(b []byte) (list []attr) {
	for len(b) >= 4 {
		n := int(binary.NativeEndian.Uint16(b))
		if n < 4 || n > len(b) {
			return append(list, attr{data: b}) // equal to nothing
		}
		list = append(list, attr{binary.NativeEndian.Uint16(b[2:]), b[4:n]})
		b = b[min((n+3)&^3, len(b)):]
	}
	slices.SortStableFunc(list, func(a, b attr) int {
		return cmp.Compare(a.typ&^unix.NLA_F_NESTED, b.typ&^unix.NLA_F_NESTED)
	})
	return list
}
