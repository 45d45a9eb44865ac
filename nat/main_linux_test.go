package nat

import (
	"flag"
	"os"
	"testing"

	"github.com/boxwire/boxwire/netns/netnstest"
)

func TestMain(m *testing.M) {
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
