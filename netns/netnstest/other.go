//go:build !linux

package netnstest

import (
	"os"
	"testing"
)

var forbidden = "network namespaces need Linux"

// Main runs the tests. Those that need a namespace are skipped.
func Main(m *testing.M) { os.Exit(m.Run()) }
