package netnstest

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil/tool"
	"golang.org/x/sys/unix"
)

// Where namespaces are forbidden tests skip and name the setting, or fail if they
// are asked to; examples are left out.
func TestWhereNamespacesAreForbidden(t *testing.T) {
	t.Parallel()
	Need(t)
	tool.Path(t, "cat")
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
	set := func(kind, value string) {
		t.Helper()
		if err := os.WriteFile("/proc/sys/user/max_"+kind+"_namespaces", []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	again := func(env string) (string, error) {
		cmd := exec.Command("/proc/self/exe", "-test.run=^(TestPairTalks|Example.*)$", "-test.v")
		cmd.Env = append(os.Environ(), insideEnv+"=", env)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for _, kind := range []string{"net", "mnt"} {
		set(kind, "0")
		out, err := again("BOXWIRE_REQUIRE_NETNS=")
		if err != nil || !strings.Contains(out, "--- SKIP: TestPairTalks") || !strings.Contains(out, "the setting user.max_"+kind+"_namespaces is 0") {
			t.Errorf("%v\n%s", err, out)
		}
		if strings.Contains(out, "Example") || strings.Contains(out, "security policy") {
			t.Errorf("an example ran, or a policy is blamed:\n%s", out)
		}
		set(kind, "100")
	}
	// Some are allowed, but not that many.
	set("net", "1")
	taken := exec.Command("cat")
	taken.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	in, err := taken.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	if err := taken.Start(); err != nil {
		t.Fatal(err)
	}
	defer taken.Wait()
	defer in.Close()
	out, err := again("BOXWIRE_REQUIRE_NETNS=")
	if err != nil || !strings.Contains(out, "--- SKIP: TestPairTalks") || !strings.Contains(out, "a limit is reached: user.max_net_namespaces (1 in this user namespace") {
		t.Errorf("%v\n%s", err, out)
	}
	out, err = again("BOXWIRE_REQUIRE_NETNS=1")
	if err == nil || !strings.Contains(out, "--- FAIL: TestPairTalks") {
		t.Errorf("required: %v\n%s", err, out)
	}
}

// A package that has forgotten Main is not green: the tests that need it fail.
func TestAPackageThatForgetsMain(t *testing.T) {
	t.Parallel()
	Need(t)
	for _, require := range []string{"", "1"} {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestPairTalks$", "-test.v")
		cmd.Env = append(os.Environ(), forgetEnv+"=1", "BOXWIRE_REQUIRE_NETNS="+require)
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "--- FAIL: TestPairTalks") || !strings.Contains(string(out), "netnstest.Main(m)") {
			t.Errorf("%v\n%s", err, out)
		}
	}
}
