package nat

import (
	"testing"

	"github.com/boxwire/boxwire/internal/testutil/allocs"
)

// Looking for overlaps among ports costs nothing for each of them.
func TestPortsAreCheckedWithoutAllocations(t *testing.T) {
	ports := bulk(1000)
	if n := allocs.PerRun(t, 10, func() {
		if p, err := checkPorts(ports); err != nil {
			t.Error(p, err)
		}
	}); n > 50 {
		t.Errorf("%v allocations for 1000 ports", n)
	}
}
