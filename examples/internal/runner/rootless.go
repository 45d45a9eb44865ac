//go:build linux

package runner

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"github.com/boxwire/boxwire/examples/internal/attend"
	"golang.org/x/sys/unix"
)

// rootlessEnv marks the second run of the program.
const rootlessEnv = "BOXWIRE_RUN_ROOTLESS"

func inRootless() bool { return os.Getenv(rootlessEnv) == "1" }

// rootless runs this program once more as root of a user namespace, in which the
// user owns a host of its own: a network namespace with nothing but lo. Boxes
// reach each other and that host; a way out into the machine's network takes a
// privilege that the user does not have, or a network stack in user mode.
func rootless(signals <-chan os.Signal) (int, error) {
	runtime.LockOSThread() // the child dies with the thread that started it
	defer runtime.UnlockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), rootlessEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   unix.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		return statusOurs, fmt.Errorf("making a user namespace (see /proc/sys/user/max_user_namespaces and /proc/sys/kernel/*userns*): %w", err)
	}
	return attend.Wait(cmd, signals)
}

// prepareMounts gives the new mount namespace a /run for named namespaces and the
// lock.
func prepareMounts() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mounting /run: %w", err)
	}
	return nil
}
