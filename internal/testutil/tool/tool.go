// Package tool finds the programs that tests run. It imports nothing of the
// library, so that every package's own tests can use it.
package tool

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// Path looks for a program that a test runs, such as ip, nft or sh, and returns
// its path. Where it is missing the test is skipped, or fails if
// BOXWIRE_REQUIRE_WITNESS is 1. BOXWIRE_ABSENT lists programs, with a comma between
// them, that a guest of the kernel matrix has not got: a test of one is skipped
// there all the same.
func Path(t testing.TB, name string) string {
	t.Helper()
	for _, dir := range []string{"", "/usr/sbin/", "/sbin/"} {
		if path, err := exec.LookPath(dir + name); err == nil {
			return path
		}
	}
	if slices.Contains(strings.Split(os.Getenv("BOXWIRE_ABSENT"), ","), name) {
		t.Skipf("the guest has no %s", name)
	}
	if os.Getenv("BOXWIRE_REQUIRE_WITNESS") == "1" {
		t.Fatalf("the program %s is not installed", name)
	}
	t.Skipf("the program %s is not installed", name)
	return ""
}
