package nat

import (
	"os"
	"testing"

	"github.com/boxwire/boxwire/netns/netnstest"
)

func TestMain(m *testing.M) {
	if what := os.Getenv(workerEnv); what != "" {
		os.Exit(work(what))
	}
	netnstest.Main(m)
}
