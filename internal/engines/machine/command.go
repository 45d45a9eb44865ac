package machine

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// path is where programs of a machine are looked for.
const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environ is the environment of programs of a machine.
func environ() []string {
	return []string{"PATH=" + path, "HOME=/root", "LANG=C.UTF-8", "TERM=dumb", "USER=root"}
}

// Run runs a program in the machine and returns what it wrote to its standard output and error. A
// program that does not succeed fails the test.
func (m *Machine) Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := m.Try(name, args...)
	if err != nil {
		t.Fatalf("machine: %v\n%s", err, out)
	}
	return out
}

// Try is Run with an error instead of a failed test. Of a program that did not succeed the error is an
// exec.ExitError.
func (m *Machine) Try(name string, args ...string) (string, error) {
	cmd := m.Command(name, args...)
	var out logBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := m.Start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		err = fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return out.String(), err
}

// Command prepares a program for Start. The caller may set everything but Path, Args[0] and
// SysProcAttr; Env has to be added to.
func (m *Machine) Command(name string, args ...string) *exec.Cmd {
	cmd := &exec.Cmd{Path: name, Args: append([]string{name}, args...), Env: environ(), Dir: "/"}
	return cmd
}

// Start starts a command of Command in the machine. The process is a child of the test, and ends with
// the machine. Cmd.Wait waits for it, and Cmd.Process signals it.
func (m *Machine) Start(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, UseCgroupFD: true, CgroupFD: int(m.cgroup.Fd())}
	return m.do(func() error {
		file, err := lookPath(cmd.Path)
		if err != nil {
			return err
		}
		cmd.Path = file
		if err := joinHierarchies(); err != nil {
			return err
		}
		return cmd.Start()
	})
}

// do runs a function on a thread that is in all namespaces of the machine, and ends then.
func (m *Machine) do(fn func() error) error {
	_, err := netns.Do(context.Background(), m.NS, func(context.Context) (struct{}, error) {
		// A thread that shares its root and directory with others cannot change it.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return struct{}{}, os.NewSyscallError("unshare", err)
		}
		const all = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWCGROUP
		if err := unix.Setns(m.pidfd, all); err != nil {
			return struct{}{}, os.NewSyscallError("setns", err)
		}
		return struct{}{}, fn()
	})
	return err
}

// lookPath finds a program in the machine that the thread is in.
func lookPath(name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	for _, dir := range strings.Split(path, ":") {
		file := dir + "/" + name
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", &exec.Error{Name: name, Err: exec.ErrNotFound}
}
