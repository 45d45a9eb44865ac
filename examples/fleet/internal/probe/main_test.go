package probe

import (
	"flag"
	"testing"

	"github.com/boxwire/boxwire/netns/netnstest"
)

func TestMain(m *testing.M) {
	// The tests wait for packets that do not come, and so more of them run at once than there are processors.
	if err := flag.Set("test.parallel", "24"); err != nil {
		panic(err)
	}
	netnstest.Main(m)
}
