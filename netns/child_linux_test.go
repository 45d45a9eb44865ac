package netns_test

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/boxwire/boxwire/netns/netnstest"
)

const childEnv = "BOXWIRE_TEST_CHILD"

// runChild runs one test of this binary in a process of its own, with the given
// attributes. It fails if that does, and is skipped if that is. The test calls
// childOnly.
func runChild(t *testing.T, test string, attr *syscall.SysProcAttr) {
	t.Helper()
	runChildEnv(t, test, attr)
}

// runChildEnv is runChild with more in the environment.
func runChildEnv(t *testing.T, test string, attr *syscall.SysProcAttr, env ...string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+test+"$", "-test.v", "-test.count=1")
	if testing.Short() {
		cmd.Args = append(cmd.Args, "-test.short")
	}
	cmd.Env = append(append(os.Environ(), env...), childEnv+"="+test)
	if attr != nil && attr.Cloneflags&syscall.CLONE_NEWNS != 0 {
		cmd.Env = append(cmd.Env, "BOXWIRE_NETNSTEST_INSIDE=1") // a /run of its own
	}
	cmd.SysProcAttr = attr
	out, err := cmd.CombinedOutput()
	if err == nil && strings.Contains(string(out), "--- SKIP: "+test) {
		t.Skipf("%s", out) // with the reason
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: "+test) {
		t.Errorf("%v\n%s", err, out)
	}
}

// inChild runs the calling test once more in a process of its own, with the given
// attributes, and fails or is skipped as that does. It reports whether this is that
// process; elsewhere the test has nothing left to do. Without attributes, the process has
// mounts of its own, because it looks at what it has left, and the tests beside it mount.
func inChild(t *testing.T, attr *syscall.SysProcAttr) bool {
	t.Helper()
	if os.Getenv(childEnv) == t.Name() {
		return true
	}
	t.Parallel()
	netnstest.Need(t)
	if attr == nil {
		attr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	}
	runChild(t, t.Name(), attr)
	return false
}

// childOnly skips a test that runChild has not started.
func childOnly(t *testing.T) {
	t.Helper()
	if os.Getenv(childEnv) != t.Name() {
		t.Skip("runs only in a process that another test starts")
	}
}

// aUser are the attributes of a process that is user 1000 and has no capability
// outside a user namespace of its own.
func aUser() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 1000, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 1000, HostID: os.Getgid(), Size: 1}},
	}
}
