package netns

import "fmt"

// PanicError is what [Do] panics with in its caller when the function it ran
// panicked: the value, and the stack of the goroutine it came from.
type PanicError struct {
	Value any
	Stack []byte
}

// Error returns the value and the stack.
func (e *PanicError) Error() string {
	return fmt.Sprintf("panic inside netns.Do: %v\n\n%s", e.Value, e.Stack)
}

// Unwrap returns the value if it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}
