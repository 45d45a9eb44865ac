package topology

import (
	"errors"
	"os"
	"testing"

	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// BenchmarkRead reads a host with 300 boxes, beside the list of namespaces that it needs.
func BenchmarkRead(b *testing.B) {
	host, _ := netnstest.Bridge(b, 300)
	b.Run("list", func(b *testing.B) {
		for b.Loop() {
			if _, err := netns.ListAll(b.Context()); err != nil && !errors.Is(err, os.ErrPermission) {
				b.Fatal(err)
			}
		}
	})
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			if _, err := Read(b.Context(), Options{Host: host.NS, Some: ours}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
