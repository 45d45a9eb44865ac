// Package refuse makes errors whose text is a sentence, and that errors.Is takes for
// what the sentence means.
package refuse

import (
	"fmt"
	"io/fs"
)

// meant is an error that is also of a kind, which its text does not repeat.
type meant struct {
	error
	kind error
}

func (e meant) Unwrap() []error { return []error{e.error, e.kind} }

// As returns an error with the text that fmt.Errorf makes of format and args, for
// which errors.Is(err, kind) holds, too. kind is os.ErrNotExist, os.ErrExist and the
// like: behind a sentence that says what is missing or in the way, their own text
// adds nothing.
func As(kind error, format string, args ...any) error {
	return meant{fmt.Errorf(format, args...), kind}
}

// Input returns an error for input that is turned away before anything is sent to
// the kernel: errors.Is(err, os.ErrInvalid) holds. The text names the input and says
// what is wrong with it.
func Input(format string, args ...any) error {
	return As(fs.ErrInvalid, format, args...)
}
