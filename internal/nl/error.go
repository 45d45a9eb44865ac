package nl

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
)

// ErrInterrupted reports a dump during which the table changed in every attempt.
var ErrInterrupted = errors.New("the table kept changing while it was read")

// Error is the kernel's refusal of one request.
//
// errors.Is finds the errno itself and what it stands for: os.ErrExist,
// os.ErrNotExist (ENOENT, ENODEV, ESRCH, EADDRNOTAVAIL), os.ErrPermission and
// errors.ErrUnsupported.
type Error struct {
	Errno syscall.Errno
	Msg   string // the kernel's own words (extack), often empty
	Attr  string // the attribute that offended, or was missing; often empty
	Hint  string // the capability that is missing, where the kernel names none; often empty
}

// Error returns the errno's text and name and, where the kernel sent them, its
// own message and the attribute it objects to, or the missing capability.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Errno.Error())
	if n := errnoName(e.Errno); n != "" {
		fmt.Fprintf(&b, " (%s)", n)
	}
	if e.Msg != "" {
		b.WriteString(": " + strings.TrimSuffix(e.Msg, "."))
	}
	if e.Attr != "" {
		b.WriteString(" [" + e.Attr + "]")
	}
	if e.Hint != "" {
		b.WriteString(": " + e.Hint)
	}
	return b.String()
}

// Unwrap returns the errno.
func (e *Error) Unwrap() error { return e.Errno }

// Is widens the errno's own classes by those that netlink uses in their place.
func (e *Error) Is(target error) bool {
	switch target {
	case fs.ErrNotExist:
		switch e.Errno {
		case syscall.ENODEV, syscall.ESRCH, syscall.EADDRNOTAVAIL, syscall.ENXIO:
			return true
		}
	case errors.ErrUnsupported:
		switch e.Errno {
		case syscall.EAFNOSUPPORT, syscall.EPROTONOSUPPORT:
			return true
		}
	}
	return false
}

// Item is one failed request of many.
type Item struct {
	Index int // position in the requests handed over; -1 for a transaction's own begin and commit
	Err   *Error
}

// ExecError says which of many requests failed, and where the rest was left.
type ExecError struct {
	Failed []Item // by ascending Index
	Sent   int    // how many requests were sent; those from Sent on the kernel never saw
	Cause  error  // why no more were sent, where that was not a failed request: the context's error
}

// Error returns the text of the first failure and how many there were.
func (e *ExecError) Error() string {
	switch {
	case len(e.Failed) == 0:
		return fmt.Sprintf("after %d requests: %v", e.Sent, e.Cause)
	case len(e.Failed) == 1:
		return e.Failed[0].Err.Error()
	}
	return fmt.Sprintf("%v (and %d more failed)", e.Failed[0].Err, len(e.Failed)-1)
}

// Unwrap returns every failure, so that errors.Is and errors.As see them all.
func (e *ExecError) Unwrap() []error {
	errs := make([]error, 0, len(e.Failed)+1)
	for _, f := range e.Failed {
		errs = append(errs, f.Err)
	}
	if e.Cause != nil {
		errs = append(errs, e.Cause)
	}
	return errs
}
