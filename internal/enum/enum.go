// Package enum gives numbers with names their text forms. A number without a name
// is written in decimal.
package enum

import (
	"strconv"
	"unsafe"

	"github.com/boxwire/boxwire/internal/refuse"
)

// Number is the type below an enum.
type Number interface {
	~uint8 | ~uint16 | ~uint32
}

// Name returns the name of a value, or its number.
func Name[T Number](names map[T]string, v T) string {
	if s, ok := names[v]; ok {
		return s
	}
	return strconv.FormatUint(uint64(v), 10)
}

// Value returns the value with a name, or with a number of at most so many bits. A
// number may have the prefix 0x.
func Value[T Number](names map[T]string, s string, bits int) (T, bool) {
	for v, name := range names {
		if name == s {
			return v, true
		}
	}
	n, err := strconv.ParseUint(s, 0, bits)
	return T(n), err == nil
}

// Marshal is the body of an enum's MarshalText.
func Marshal[T Number](names map[T]string, v T) ([]byte, error) { return []byte(Name(names, v)), nil }

// Unmarshal is the body of an enum's UnmarshalText: it sets v to what text says, and
// refuses any other text.
func Unmarshal[T Number](names map[T]string, v *T, text []byte) error {
	got, ok := Value(names, string(text), 8*int(unsafe.Sizeof(*v)))
	if !ok {
		return refuse.Input("%q is neither a name nor a number of %T", text, *v)
	}
	*v = got
	return nil
}
