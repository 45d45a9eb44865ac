//go:build linux

package main

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
// status.
func execute(ns *netns.NS, args []string) (int, error) {
	path, err := exec.LookPath(args[0])
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return statusCannot, err
		}
		return statusUnknown, err
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH)
	defer signal.Stop(signals)

	cmd := ns.Command(context.Background(), path, args[1:]...)
	cmd.Args[0] = args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return statusUnknown, err
		}
		return statusCannot, err
	}
	over := make(chan struct{})
	passed := make(chan struct{})
	go func() {
		defer close(passed)
		pass(cmd.Process, signals, over)
	}()
	err = cmd.Wait()
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
