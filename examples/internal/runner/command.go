//go:build linux

package runner

import (
	"context"
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

// execute runs a command in a namespace, passes signals on, and returns its
// status. One that came before the command began ends the run instead. began is
// called when the command has begun, if it is not nil.
func execute(ns *netns.NS, args []string, signals <-chan os.Signal, began func()) (int, error) {
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
	if began != nil {
		began()
	}
	return attend.Wait(cmd.Cmd, signals)
}
