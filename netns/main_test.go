package netns_test

import (
	"flag"
	"os/exec"
	"testing"

	"github.com/boxwire/boxwire/netns/netnstest"
)

func TestMain(m *testing.M) {
	// An example cannot skip itself where its program is missing.
	if _, err := exec.LookPath("cat"); err != nil {
		flag.Parse()
		if skip := flag.Lookup("test.skip"); skip.Value.String() == "" {
			skip.Value.Set("^ExampleNS_Command$")
		}
	}
	netnstest.Main(m)
}
