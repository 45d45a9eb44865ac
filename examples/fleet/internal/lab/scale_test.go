//go:build linux

package lab_test

import (
	"testing"

	"github.com/boxwire/boxwire/examples/fleet/internal/lab"
)

// BenchmarkNew makes labs of many hosts, as the tests of joins do.
func BenchmarkNew(b *testing.B) {
	for b.Loop() {
		l, err := lab.New(b.Context(), lab.Options{Segments: []int{128}})
		if err != nil {
			b.Fatal(err)
		}
		if err := l.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
