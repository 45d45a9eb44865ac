package testutil

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"github.com/boxwire/boxwire/internal/kernel"
)

func TestKernelJudge(t *testing.T) {
	t.Parallel()
	wrapped := fmt.Errorf("create link: %w", syscall.EOPNOTSUPP)
	for _, c := range []struct {
		name    string
		release string
		modules bool
		err     error
		want    string // "go on", "skip" or "fail"
	}{
		{"no error", "5.10.0-35-amd64", true, nil, "go on"},
		{"older", "5.10.0-35-amd64", false, wrapped, "skip"},
		{"older, with modules", "6.6.1", true, wrapped, "skip"},
		{"older, any error", "6.1.0", true, syscall.EINVAL, "skip"},
		{"the minimum itself", "6.7.0-rc1", true, wrapped, "fail"},
		{"newer minor", "6.12.30-amd64", true, wrapped, "fail"},
		{"newer major, smaller minor", "7.2-amd64", true, wrapped, "fail"},
		{"newer, without modules", "6.18.44", false, wrapped, "skip"},
		{"newer, unsupported", "6.18.44", false, fmt.Errorf("x: %w", errors.ErrUnsupported), "skip"},
		{"newer, no such file", "6.18.44", false, fmt.Errorf("x: %w", fs.ErrNotExist), "fail"},
		{"newer, the kernel's no such file", "6.18.44", false, &fs.PathError{Err: syscall.ENOENT}, "skip"},
		{"newer, an error of the test's own making", "6.18.44", false, syscall.EINVAL, "fail"},
		{"newer, no permission", "6.18.44", false, syscall.EPERM, "fail"},
		{"newer, no family", "6.18.44", false, syscall.EAFNOSUPPORT, "skip"},
	} {
		skip, reason := judge(c.release, c.modules, 6, 7, "netkit", c.err)
		got := "go on"
		switch {
		case skip:
			got = "skip"
		case reason != "":
			got = "fail"
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s (%s)", c.name, got, c.want, reason)
		}
		if c.err == nil {
			continue
		}
		for _, word := range []string{"netkit", "Linux >= 6.7", c.release, c.err.Error()} {
			if !strings.Contains(reason, word) {
				t.Errorf("%s: the reason lacks %q: %s", c.name, word, reason)
			}
		}
	}
}

// ending records how a test was ended.
type ending struct {
	testing.TB
	how string
}

func (e *ending) Helper()        {}
func (e *ending) Skip(v ...any)  { e.how = "skip" }
func (e *ending) Fatal(v ...any) { e.how = "fail" }

func TestNeedKernel(t *testing.T) {
	if !kernel.AtLeast(0, 1) {
		t.Skip("not Linux")
	}
	for _, c := range []struct {
		major   int
		modules string
		err     error
		want    string
	}{
		{0, "", nil, ""},
		{0, "1", nil, ""},
		{0, "", syscall.EOPNOTSUPP, "skip"},
		{0, "1", syscall.EOPNOTSUPP, "fail"},
		{1 << 20, "1", syscall.EOPNOTSUPP, "skip"},
	} {
		t.Setenv("BOXWIRE_KERNEL_MODULES", c.modules)
		e := &ending{TB: t}
		NeedKernel(e, c.major, 0, "a feature", c.err)
		if e.how != c.want {
			t.Errorf("Linux >= %d, modules %q, error %v: %q, want %q", c.major, c.modules, c.err, e.how, c.want)
		}
	}
}
