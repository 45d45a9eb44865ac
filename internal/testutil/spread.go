package testutil

import (
	"fmt"
	"testing"

	"github.com/boxwire/boxwire/internal/kernel"
)

// Spread reports whether a run takes case i of a matrix. A run without -short takes
// every case. One with -short takes one case of n, and each kernel of the kernel matrix
// another, so that the kernels share the cases: a case takes half a minute in emulation.
func Spread(i, n int) bool {
	return !testing.Short() || (i+turn(kernel.Release()))%n == 0
}

// turn gives the kernels of the matrix numbers that follow each other: 11 to 14 for
// 5.10, 6.1, 6.12 and 7.2.
func turn(release string) int {
	var major, minor int
	fmt.Sscanf(release, "%d.%d", &major, &minor)
	return 2*major + minor/10
}
