//go:build linux

package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/boxwire/boxwire/netns"
)

const (
	// sandboxEnv carries the network namespace that the program was started in. The copy that finds itself in another one is
	// in the sandbox; a value that was set by accident never makes a program run on the machine's own network.
	sandboxEnv = "BOXWIRE_LAB_OUTER"

	// netnstestEnv is that of package netnstest, whose tests have a /run of their own, too.
	netnstestEnv = "BOXWIRE_NETNSTEST_INSIDE"
)

// Sandbox is for programs; tests have netnstest.Main. It runs the program once more in a network and a mount namespace of its
// own, and for a normal user in a user namespace in which the user is root. In there Sandbox returns nil. Outside it waits
// and exits with the status of the copy; signals are passed on. It returns an error only where no such namespaces are to be
// had. /run of the copy is an empty file system of its own, so that it sees no other program's names and leaves no file.
//
// The copy dies with the program, and all that it has made dies with the copy.
func Sandbox() error {
	inner, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return err
	}
	if outer := os.Getenv(sandboxEnv); outer != "" && outer != inner {
		if err := furnish(); err != nil {
			return fmt.Errorf("lab: no namespaces of its own: %w", err)
		}
		return nil
	}
	code, err := again(inner, unix.CLONE_NEWNS|unix.CLONE_NEWNET)
	if errors.Is(err, unix.EPERM) {
		code, err = again(inner, unix.CLONE_NEWNS|unix.CLONE_NEWNET|unix.CLONE_NEWUSER)
	}
	if err != nil {
		return fmt.Errorf("lab: no namespaces of its own (a security policy, or a limit: /proc/sys/user/max_*_namespaces): %w", err)
	}
	os.Exit(code)
	panic("unreachable")
}

// again runs this program in new namespaces and returns its status.
func again(outer string, flags uintptr) (int, error) {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), sandboxEnv+"="+outer)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: syscall.SIGKILL}
	if flags&unix.CLONE_NEWUSER != 0 {
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	runtime.LockOSThread() // Pdeathsig is sent when the thread that started the copy ends
	defer runtime.UnlockOSThread()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if err := cmd.Start(); err != nil {
		signal.Stop(signals)
		return 0, err
	}
	go func() {
		for s := range signals {
			cmd.Process.Signal(s) // harmless a second time, when the terminal has sent it to both
		}
	}()
	err := cmd.Wait()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	if code := cmd.ProcessState.ExitCode(); code >= 0 {
		return code, nil
	}
	return 0, err
}

// furnish gives the copy mounts of its own.
func furnish() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	for _, dir := range []string{"/run", filepath.Clean(netns.DefaultDir)} { // the second a mount point already, so that names add none
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
			return fmt.Errorf("mount a %s of its own: %w", dir, err)
		}
	}
	return nil
}
