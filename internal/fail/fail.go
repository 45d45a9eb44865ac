// Package fail builds the errors of link, route and nat, in the one shape that
// package netns defines.
package fail

import "github.com/boxwire/boxwire/netns"

// New returns a *netns.Error, or nil if err is nil.
func New(op string, ns *netns.NS, subject string, err error) error {
	if err == nil {
		return nil
	}
	return &netns.Error{Op: op, NS: ns.String(), Subject: subject, Err: err}
}
