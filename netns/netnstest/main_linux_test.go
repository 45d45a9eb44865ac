package netnstest

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Where namespaces are forbidden tests skip and name the setting, or fail if they
// are told to; examples are left out.
func TestWhereNamespacesAreForbidden(t *testing.T) {
	t.Parallel()
	Need(t)
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestChildForbidsNamespaces$", "-test.v")
	cmd.Env = append(os.Environ(), childEnv+"=TestChildForbidsNamespaces")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestChildForbidsNamespaces is in a user namespace of its own, whose limits it may
// set, and starts a test run like that of `go test`.
func TestChildForbidsNamespaces(t *testing.T) {
	if os.Getenv(childEnv) != t.Name() {
		t.Skip("runs only in a process that another test starts")
	}
	if err := os.WriteFile("/proc/sys/user/max_net_namespaces", []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	again := func(env string) (string, error) {
		cmd := exec.Command("/proc/self/exe", "-test.run=^(TestPairTalks|Example.*)$", "-test.v")
		cmd.Env = append(os.Environ(), insideEnv+"=", env)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := again("BOXWIRE_REQUIRE_NETNS=")
	if err != nil || !strings.Contains(out, "--- SKIP: TestPairTalks") || !strings.Contains(out, "the setting user.max_net_namespaces is 0") {
		t.Errorf("%v\n%s", err, out)
	}
	if strings.Contains(out, "Example") {
		t.Errorf("an example ran:\n%s", out)
	}
	out, err = again("BOXWIRE_REQUIRE_NETNS=1")
	if err == nil || !strings.Contains(out, "--- FAIL: TestPairTalks") {
		t.Errorf("required: %v\n%s", err, out)
	}
}
