package route

import (
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/netns"
)

// ErrInterrupted reports a list that could not be completed because the table changed while
// it was read. [All] returns it at once, other functions after 50 attempts.
var ErrInterrupted = nl.ErrInterrupted

// failed is the error of what involves no namespace; nil if err is.
func failed(op, subject string, err error) error {
	if err == nil {
		return nil
	}
	return &netns.Error{Op: op, Subject: subject, Err: err}
}
