package agent

import (
	"testing"

	"github.com/boxwire/boxwire/examples/fleet/internal/lab/labtest"
)

func TestMain(m *testing.M) { labtest.Main(m, nil) }
