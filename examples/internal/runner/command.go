//go:build linux

package runner

import (
	"context"
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

// execute runs a command in a namespace, passes signals on, and returns its
// status. One that came before the command began ends the run instead.
func execute(ns *netns.NS, args []string, signals <-chan os.Signal) (int, error) {
	path, err := exec.LookPath(args[0])
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return statusCannot, err
		}
		return statusUnknown, err
	}
	select {
	case s := <-signals:
		if s != unix.SIGWINCH {
			return statusSignal + int(s.(syscall.Signal)), nil
		}
	default:
	}
	cmd := ns.Command(context.Background(), path, args[1:]...)
	cmd.Args[0] = args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return statusUnknown, err
		}
		return statusCannot, err
	}
	return attend(cmd.Cmd, signals)
}

// attend passes signals on to a command that was started, waits for it, and
// returns its status.
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

// catch takes the signals that end a program by default, so that none ends a run
// while its box is being made or removed. What the parent has made this program
// ignore (nohup, a shell's background jobs) stays ignored.
func catch() <-chan os.Signal {
	signals := make(chan os.Signal, 16)
	for _, s := range []os.Signal{unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH} {
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	return signals
}

// pass hands signals to the command. Those of a terminal's keys go to all of its
// foreground processes anyway.
func pass(p *os.Process, signals <-chan os.Signal, over <-chan struct{}) {
	terminal := isTerminal(os.Stdin)
	for {
		select {
		case s := <-signals:
			switch s {
			case unix.SIGINT, unix.SIGQUIT, unix.SIGWINCH:
				if terminal {
					continue
				}
			}
			p.Signal(s)
		case <-over:
			return
		}
	}
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
