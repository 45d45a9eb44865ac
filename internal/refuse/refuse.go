// Package refuse makes the errors that bad input is turned away with before
// anything is sent to the kernel.
package refuse

import (
	"fmt"
	"io/fs"
)

// badInput is an error that satisfies errors.Is(err, os.ErrInvalid).
type badInput string

func (e badInput) Error() string        { return string(e) }
func (e badInput) Is(target error) bool { return target == fs.ErrInvalid }

// Input returns an error with the given text for which errors.Is(err,
// os.ErrInvalid) holds. The text names the input and says what is wrong with it.
func Input(format string, args ...any) error {
	return badInput(fmt.Sprintf(format, args...))
}
