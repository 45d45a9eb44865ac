package failures

import (
	"flag"
	"testing"

	"github.com/boxwire/boxwire/examples/fleet/internal/command"
	"github.com/boxwire/boxwire/examples/fleet/internal/lab/labtest"
)

func TestMain(m *testing.M) {
	// The tests wait for leases and holds most of the time. -parallel still counts.
	_ = flag.Set("test.parallel", "6")
	labtest.Main(m, map[string]func([]string) int{"fleet": command.Run})
}
