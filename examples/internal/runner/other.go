//go:build !linux

package runner

import (
	"cmp"
	"context"
	"fmt"
	"os"
)

// Main says that network namespaces need Linux and returns 125.
func Main(_ context.Context, _ []string, p Program) int {
	fmt.Fprintln(os.Stderr, cmp.Or(p.Name, "run")+": network namespaces need Linux")
	return 125
}
