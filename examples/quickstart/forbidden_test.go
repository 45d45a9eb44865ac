//go:build linux

package main

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// Where nothing may be mounted the program says so once, and why, and that is all. A user namespace without a mount
// namespace is such a place.
func TestWhereMountsAreForbidden(t *testing.T) {
	one := []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
	for _, asJSON := range []bool{false, true} {
		cmd := exec.Command("/proc/self/exe")
		if asJSON {
			cmd.Args = append(cmd.Args, "-json")
		}
		cmd.Env = append(os.Environ(), runEnv+"=1", outerEnv+"=net:[1]")
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
			UidMappings: one, GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		}
		var stdout, stderr strings.Builder
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		err := cmd.Run()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Skip("no user namespaces: ", err)
		}
		if exit == nil || exit.ExitCode() != exitNoSandbox || strings.Count(stderr.String(), "operation not permitted") != 1 {
			t.Errorf("%v\n%s", err, &stderr)
		}
		if said := stdout.String(); asJSON != strings.HasPrefix(said, "[") || !asJSON && said != "" {
			t.Errorf("it prints %q", said)
		}
		if !strings.Contains(stderr.String(), "/proc/sys/") {
			t.Errorf("no setting is named: %s", &stderr)
		}
	}
}
