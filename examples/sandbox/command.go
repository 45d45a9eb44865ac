//go:build linux

package main

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"syscall"

	"github.com/boxwire/boxwire/examples/internal/attend"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// The statuses that shells and container runners use.
const (
	statusOurs    = attend.StatusOurs
	statusCannot  = 126 // the command cannot be executed
	statusUnknown = 127 // there is no such command
	statusSignal  = attend.StatusSignal
)

// lookUp finds the file of a command.
func lookUp(name string) (path string, status int, err error) {
	path, err = exec.LookPath(name)
	switch {
	case err == nil:
		return path, 0, nil
	case errors.Is(err, fs.ErrPermission):
		return "", statusCannot, err
	}
	return "", statusUnknown, err
}

// execute runs a command in a box, passes signals on, and returns its status. A signal that came
// before the command began ends the run instead.
func execute(box *netns.NS, path string, command []string, signals <-chan os.Signal) (status int, err error) {
	select {
	case s := <-signals:
		if s != unix.SIGWINCH {
			return statusSignal + int(s.(syscall.Signal)), nil
		}
	default:
	}
	var file *os.File
	err = box.WithFd(func(fd int) error {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		file = os.NewFile(uintptr(dup), "box")
		return err
	})
	if err != nil {
		return statusOurs, err
	}
	defer file.Close()
	args := append([]string{path}, command...)
	return startSelf(args, stageInside, file, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}, signals)
}
