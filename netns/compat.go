package netns

import "github.com/boxwire/boxwire/internal/refuse"

// Fail and Invalid stand here until the callers use internal/fail.

// Fail builds an Error.
func Fail(op string, ns *NS, subject string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Op: op, NS: ns.String(), Subject: subject, Err: err}
}

// Invalid makes a bad-input error.
func Invalid(format string, args ...any) error { return refuse.Input(format, args...) }
