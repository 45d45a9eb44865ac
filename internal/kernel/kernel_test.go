package kernel

import (
	"os"
	"strings"
	"testing"
)

func TestKernelRelease(t *testing.T) {
	t.Parallel()
	want, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Skip(err)
	}
	if got := Release(); got != strings.TrimSpace(string(want)) {
		t.Errorf("Release() = %q, /proc says %q", got, want)
	}
	if !AtLeast(3, 0) || AtLeast(1<<20, 0) {
		t.Errorf("AtLeast is wrong about %s", want)
	}
}

func TestReleaseAtLeast(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		release      string
		major, minor int
		want         bool
	}{
		{"6.12.30-amd64", 6, 12, true},
		{"6.12.30-amd64", 6, 13, false},
		{"6.12.30-amd64", 5, 99, true},
		{"6.12.30-amd64", 7, 0, false},
		{"7.0-rc1", 7, 0, true},
		{"not Linux", 0, 0, false},
	} {
		if got := ReleaseAtLeast(c.release, c.major, c.minor); got != c.want {
			t.Errorf("%s at least %d.%d: %t", c.release, c.major, c.minor, got)
		}
	}
}
