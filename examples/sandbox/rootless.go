//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"github.com/boxwire/boxwire/examples/internal/attend"
	"golang.org/x/sys/unix"
)

// rootless runs this program once more as root of a user namespace, in which the user owns a host
// of its own: a network namespace with nothing but lo. A way from there to the machine's network
// takes a privilege that the user does not have, or a network stack in user mode.
func rootless(signals <-chan os.Signal) (int, error) {
	return startSelf(os.Args[1:], stageRootless, nil, &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}, signals)
}

// startSelf runs this program in a stage, passes signals on, and returns its status. The program
// ends with this one, even if that is killed.
func startSelf(args []string, stage string, file *os.File, attr *syscall.SysProcAttr, signals <-chan os.Signal) (int, error) {
	runtime.LockOSThread() // the child dies with the thread that has started it
	defer runtime.UnlockOSThread()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), stageEnv+"="+stage)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if file != nil {
		cmd.ExtraFiles = []*os.File{file} // boxFd
	}
	attr.Pdeathsig = unix.SIGKILL
	cmd.SysProcAttr = attr
	if err := cmd.Start(); err != nil {
		if attr.Cloneflags&unix.CLONE_NEWUSER != 0 {
			err = fmt.Errorf("making a user namespace (see /proc/sys/user/max_user_namespaces and /proc/sys/kernel/*userns*): %w", err)
		}
		return statusOurs, err
	}
	return attend.Wait(cmd, signals)
}
