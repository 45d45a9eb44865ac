package netnstest

import (
	"os"
	"testing"
)

// forgetEnv makes the run one of a package that has forgotten Main.
const forgetEnv = "BOXWIRE_TEST_FORGET_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(forgetEnv) != "" {
		os.Exit(m.Run())
	}
	prepare()
	Main(m)
}
