package main

import (
	"errors"
	"os"
)

// notRun is why a row, or one contender of it, cannot be run on this machine. It
// is no failure, but where everything has to be run.
type notRun string

func (r notRun) Error() string { return string(r) }

// kernelLacks is what a contender needs and the machine's kernel does not have. It is no failure
// anywhere: nothing that can be installed changes it.
type kernelLacks string

func (r kernelLacks) Error() string { return "the kernel lacks " + string(r) }

// mustRun reports whether what cannot be run is a failure, as for the tests.
func mustRun() bool { return os.Getenv("BOXWIRE_REQUIRE_WITNESS") == "1" }

// excuse makes a note of a contender that cannot be run here, and returns any
// other error.
func (b *bout) excuse(name string, err error) error {
	var reason notRun
	var lacks kernelLacks
	switch {
	case errors.As(err, &lacks):
		b.note("Not run: %s, because %v.", name, lacks)
	case errors.As(err, &reason) && !mustRun():
		b.note("Not run: %s, because %v.", name, reason)
	default:
		return err
	}
	return nil
}
