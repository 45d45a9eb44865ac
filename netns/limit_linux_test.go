package netns_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

func rootOfItsOwn() *syscall.SysProcAttr {
	one := []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	return &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: one, GidMappings: one}
}

// setLimit sets a limit of this user namespace (namespaces(7)).
func setLimit(t *testing.T, name, value string) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/user/"+name, []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

func wantFull(t *testing.T, err error, words ...string) {
	t.Helper()
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("error %v, want ENOSPC", err)
	}
	for _, word := range words {
		if !strings.Contains(fmt.Sprint(err), word) {
			t.Errorf("the error lacks %q: %v", word, err)
		}
	}
}

// ENOSPC alone would send the reader to look at his disk.
func TestALimitIsNamed(t *testing.T) {
	if !inChild(t, rootOfItsOwn()) {
		return
	}
	netnstest.Need(t)
	setLimit(t, "max_net_namespaces", "0")
	for _, make := range []func() (*netns.NS, error){
		func() (*netns.NS, error) { return netns.New(t.Context()) },
		func() (*netns.NS, error) { return netns.Dir(t.TempDir()).Create(t.Context(), "web") },
		func() (*netns.NS, error) { return netns.NewInUserNS(t.Context(), netns.UserNS{}) },
	} {
		_, err := make()
		wantFull(t, err, "the setting user.max_net_namespaces is 0")
	}
	// The limit of a user namespace above counts, and cannot be read from here.
	runChild(t, "TestChildHasALimitAbove", rootOfItsOwn())
	setLimit(t, "max_net_namespaces", "100")
	setLimit(t, "max_user_namespaces", "0")
	_, err := netns.NewInUserNS(t.Context(), netns.UserNS{})
	wantFull(t, err, "the setting user.max_user_namespaces is 0")
	setLimit(t, "max_user_namespaces", "100")
	setLimit(t, "max_inotify_instances", "0")
	for _, err = range netns.Watch(t.Context()) {
		break
	}
	if !errors.Is(err, unix.EMFILE) || !strings.Contains(fmt.Sprint(err), "max_user_instances") {
		t.Errorf("Watch: %v", err)
	}
	runChildEnv(t, "TestChildNests", rootOfItsOwn(), "BOXWIRE_NETNSTEST_LEAKS=allow") // package syscall leaves pipes
}

func TestChildHasALimitAbove(t *testing.T) {
	childOnly(t)
	_, err := netns.New(t.Context())
	wantFull(t, err, "user.max_net_namespaces", "each above")
}

// TestChildNests starts itself in user namespaces inside each other until there may be
// no more.
func TestChildNests(t *testing.T) {
	childOnly(t)
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestChildNests$", "-test.v")
	cmd.SysProcAttr = rootOfItsOwn()
	out, err := cmd.CombinedOutput()
	if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EUSERS) {
		if err != nil || !strings.Contains(string(out), "--- PASS") {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	_, err = netns.NewInUserNS(t.Context(), netns.UserNS{})
	wantFull(t, err, "32 user namespaces inside each other")
}
