//go:build linux

package attend

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// The statuses that shells and container runners use.
const (
	StatusOurs   = 125 // the program has failed, not the command
	StatusSignal = 128 // plus the number of the signal that ended the command
)

// Wait passes signals on to a command that was started, waits for it, and returns its status. With an error that is StatusOurs.
func Wait(cmd *exec.Cmd, signals <-chan os.Signal) (int, error) {
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
		return StatusOurs, err
	}
	if s := cmd.ProcessState.Sys().(syscall.WaitStatus); s.Signaled() {
		return StatusSignal + int(s.Signal()), nil
	}
	return cmd.ProcessState.ExitCode(), nil
}

// Catch takes the signals that end a program by default, so that none ends a run
// while its box is being made or removed. What the parent has made this program
// ignore (nohup, a shell's background jobs) stays ignored.
func Catch() <-chan os.Signal {
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
