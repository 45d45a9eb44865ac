//go:build linux

package main

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// The statuses that shells and container runners use.
const (
	statusOurs    = 125 // we have failed, not the command
	statusCannot  = 126 // the command cannot be executed
	statusUnknown = 127 // there is no such command
	statusSignal  = 128 // plus the number of the signal that ended it
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

// attend passes signals on to a command that was started, waits for it, and returns its status.
func attend(cmd *exec.Cmd, signals <-chan os.Signal) (int, error) {
	over := make(chan struct{})
	passed := make(chan struct{})
	go func() {
		defer close(passed)
		pass(cmd.Process, signals, over)
	}()
	err := cmd.Wait()
	close(over)
	<-passed
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return statusOurs, err
	}
	if s := cmd.ProcessState.Sys().(syscall.WaitStatus); s.Signaled() {
		return statusSignal + int(s.Signal()), nil
	}
	return cmd.ProcessState.ExitCode(), nil
}

// catch takes the signals that end a program by default, so that none ends a run while its box is
// being made or removed. What the parent has made this program ignore (nohup, a shell's background
// jobs) stays ignored.
func catch() <-chan os.Signal {
	signals := make(chan os.Signal, 16)
	for _, s := range []os.Signal{unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH} {
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	return signals
}

// pass hands signals to the command. Those of a terminal's keys go to all of its foreground
// processes anyway.
func pass(p *os.Process, signals <-chan os.Signal, over <-chan struct{}) {
	_, err := unix.IoctlGetTermios(int(os.Stdin.Fd()), unix.TCGETS)
	terminal := err == nil
	for {
		select {
		case s := <-signals:
			if terminal && (s == unix.SIGINT || s == unix.SIGQUIT || s == unix.SIGWINCH) {
				continue
			}
			p.Signal(s)
		case <-over:
			return
		}
	}
}
