package containerd

import (
	"testing"

	"github.com/boxwire/boxwire/internal/engines/machine"
)

func TestMain(m *testing.M) { machine.Main(m) }
