package wire

import (
	"testing"

	"github.com/boxwire/boxwire/netns/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }
