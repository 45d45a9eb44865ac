package nat

import (
	"flag"
	"io"
	"os"
	"testing"

	"github.com/boxwire/boxwire/netns/netnstest"
)

// idleEnv makes the test binary a process that does nothing until its standard
// input ends.
const idleEnv = "BOXWIRE_NAT_IDLE"

func TestMain(m *testing.M) {
	if os.Getenv(idleEnv) != "" {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
	if os.Getenv(readonlyEnv) != "" {
		os.Exit(readonly())
	}
	if os.Getenv(policyWorkerEnv) != "" {
		os.Exit(changePolicies())
	}
	if table := os.Getenv(networkWorkerEnv); table != "" {
		os.Exit(changeNetworks(table))
	}
	if what := os.Getenv(workerEnv); what != "" {
		os.Exit(work(what))
	}
	// Tests wait for packets and for other programs, not for a processor.
	flag.Parse()
	if parallel := flag.Lookup("test.parallel"); parallel.Value.String() == parallel.DefValue {
		parallel.Value.Set("8")
	}
	netnstest.Main(m)
}
