//go:build linux

package lab

import (
	"fmt"

	"github.com/boxwire/boxwire/examples/internal/selfcheck"
)

const (
	// sandboxEnv carries the network namespace that the program was started in.
	sandboxEnv = "BOXWIRE_LAB_OUTER"

	// netnstestEnv is that of package netnstest, whose tests have a /run of their own, too.
	netnstestEnv = "BOXWIRE_NETNSTEST_INSIDE"
)

// Sandbox is for programs; tests have netnstest.Main. It runs the program once more in a network and a mount namespace of its
// own, and for a normal user in a user namespace in which the user is root. In there Sandbox returns nil. Outside it waits
// and exits with the status of the copy; signals are passed on. It returns an error only where no such namespaces are to be
// had. /run of the copy is an empty file system of its own, so that it sees no other program's names and leaves no file.
//
// The copy dies with the program, and all that it has made dies with the copy.
func Sandbox() error {
	err := selfcheck.Sandbox(sandboxEnv)
	if err != nil {
		err = fmt.Errorf("lab: no namespaces of its own: %w", err)
	}
	return err
}
