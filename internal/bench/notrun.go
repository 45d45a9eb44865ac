package main

import (
	"errors"
	"os"
)

// notRun is why a row, or one contender of it, cannot be run on this machine. It
// is no failure, but where everything has to be run.
type notRun string

func (r notRun) Error() string { return string(r) }

// mustRun reports whether what cannot be run is a failure, as for the tests.
func mustRun() bool { return os.Getenv("BOXWIRE_REQUIRE_WITNESS") == "1" }

// excuse makes a note of a contender that cannot be run here, and returns any
// other error.
func (b *bout) excuse(name string, err error) error {
	var reason notRun
	if !errors.As(err, &reason) || mustRun() {
		return err
	}
	b.note("Not run: %s, because %v.", name, reason)
	return nil
}
