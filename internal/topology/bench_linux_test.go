package topology_test

import (
	"errors"
	"os"
	"testing"

	"github.com/boxwire/boxwire/internal/topology"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// BenchmarkRead reads a host with 300 boxes, beside the list of namespaces that it needs.
func BenchmarkRead(b *testing.B) {
	host, boxes := netnstest.Bridge(b, 300)
	all := newFleet(host.NS)
	for _, box := range boxes {
		all.add(box.NS)
	}
	b.Run("list", func(b *testing.B) {
		for b.Loop() {
			if _, err := netns.ListAll(b.Context()); err != nil && !errors.Is(err, os.ErrPermission) {
				b.Fatal(err)
			}
		}
	})
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			if _, err := topology.Read(b.Context(), topology.Options{Host: host.NS, Some: all.has}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkAgain is what a watch does after a change of one box of 1,000.
func BenchmarkAgain(b *testing.B) {
	host, boxes := netnstest.Bridge(b, 1000)
	all := newFleet(host.NS)
	for _, box := range boxes {
		all.add(box.NS)
	}
	again := topology.AgainForTest(b, topology.Options{Host: host.NS, Some: all.has})
	for b.Loop() {
		if s := again(boxes[7].ID().Ino); len(s.Namespaces) < 1000 {
			b.Fatal(len(s.Namespaces))
		}
	}
}
