package machine

import (
	"fmt"
	"os"
	"testing"
)

// roleEnv names what a process of the test's own program is instead of a test.
const roleEnv = "BOXWIRE_ENGINES_ROLE"

// The roles.
const (
	roleSupervisor = "supervisor"
	roleInstaller  = "installer"
	roleInit       = "init"
)

// inMain is whether Main has been called.
var inMain bool

// Main runs the tests of a package. TestMain calls it and nothing else: the processes of a machine
// are the test's own program, started again.
func Main(m *testing.M) {
	role := os.Getenv(roleEnv)
	if role == "" {
		inMain = true
		os.Exit(m.Run())
	}
	os.Unsetenv(roleEnv)
	var err error
	switch role {
	case roleSupervisor:
		err = supervise()
	case roleInstaller:
		err = install()
	case roleInit:
		err = runInit()
	default:
		err = fmt.Errorf("%s=%s is no role", roleEnv, role)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", role, err)
		os.Exit(1)
	}
	os.Exit(0)
}
