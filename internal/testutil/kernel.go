package testutil

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"

	"github.com/boxwire/boxwire/internal/kernel"
)

// NeedKernel is for tests of features that not every kernel has. A test passes
// it what the kernel answered, with the feature's name, in words that fit behind
// "needs", and the first kernel that has it:
//
//	_, err := link.Create(ctx, ns, link.Spec{Name: "nk0", Kind: link.Netkit{}})
//	testutil.NeedKernel(t, 6, 7, "netkit", err)
//
// If err is nil it does nothing. If the kernel is older, the test is skipped,
// whatever the error. If the kernel is new enough, an error can only mean that
// it was built without the feature: the test is skipped when the error says so
// (errors.ErrUnsupported, ENOENT, EAFNOSUPPORT, EPROTONOSUPPORT, ENOPROTOOPT)
// and fails otherwise. It fails always where BOXWIRE_KERNEL_MODULES is 1, which
// says that every module is there.
//
// The reason of the skip names the feature, the minimum, the running kernel and
// the error.
func NeedKernel(t testing.TB, major, minor int, feature string, err error) {
	t.Helper()
	release := kernel.Release()
	skip, reason := judge(release, os.Getenv("BOXWIRE_KERNEL_MODULES") == "1", major, minor, feature, err)
	switch {
	case reason == "":
	case skip:
		t.Skip(reason)
	default:
		t.Fatal(reason)
	}
}

// KernelAtLeast says whether the running kernel is at least major.minor. It is
// for tests of behaviour that came with a kernel and announces itself by no
// error; false where the kernel is not Linux.
func KernelAtLeast(major, minor int) bool { return kernel.AtLeast(major, minor) }

// judge returns no reason when there is nothing to say.
func judge(release string, modules bool, major, minor int, feature string, err error) (skip bool, reason string) {
	if err == nil {
		return false, ""
	}
	needs := fmt.Sprintf("needs %s (Linux >= %d.%d; this is %s): %v", feature, major, minor, release, err)
	switch {
	case !kernel.ReleaseAtLeast(release, major, minor):
		return true, needs
	case modules:
		return false, "this kernel is new enough and has every module, but the test " + needs
	case !saysAbsent(err):
		return false, "this kernel is new enough and the error is not that of a missing module, but the test " + needs
	default:
		return true, needs
	}
}

// saysAbsent says whether kernels answer so when they were built without a
// feature: EOPNOTSUPP for a link kind, ENOENT for a file or an nftables
// expression, EAFNOSUPPORT and the like for a socket or an address family.
func saysAbsent(err error) bool {
	if errors.Is(err, errors.ErrUnsupported) {
		return true
	}
	for _, errno := range []syscall.Errno{
		syscall.ENOENT, syscall.EAFNOSUPPORT, syscall.EPROTONOSUPPORT, syscall.ENOPROTOOPT,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}
