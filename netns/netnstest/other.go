//go:build !linux

package netnstest

import (
	"context"
	"os"
	"testing"

	"github.com/boxwire/boxwire/netns"
)

var forbidden = "network namespaces need Linux"

// Main runs the tests. Those that need a namespace are skipped.
func Main(m *testing.M) {
	called = true
	os.Exit(m.Run())
}

// wiring is never used: New skips before.
type wiring struct {
	t   testing.TB
	ctx context.Context
}

func (wiring) veth(*netns.NS, string, *netns.NS, uint32) {}
func (wiring) bridge(*netns.NS, string) uint32           { return 0 }
func (wiring) ready(*netns.NS, string)                   {}
func (wiring) address(Box)                               {}
func (wiring) defaultRoute(b, via Box)                   {}

func dump(testing.TB, *netns.NS, string) {}

type made struct{}

func note(testing.TB, *netns.NS, string) {}
func leave(testing.TB) []made            { return nil }
func draw(testing.TB, []made)            {}

type capture struct{ linkType uint32 }

func startCapture(testing.TB, *netns.NS, string) *capture { return new(capture) }
func (*capture) stop() []packet                           { return nil }
