//go:build linux

// The init of a test guest. As PID 1 it starts itself once more, buries what
// dies, and powers the machine off when its second self is over. The second self
// makes a system of the bare kernel, runs the jobs one after another, and says
// on a serial port how they went.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"github.com/boxwire/boxwire/internal/vmtest/protocol"
	"golang.org/x/sys/unix"
)

func main() {
	switch {
	case len(os.Args) > 2 && os.Args[1] == protocol.Unprivileged:
		fmt.Fprintln(os.Stderr, "init:", becomeNobody(os.Args[2:]))
		os.Exit(127)
	case os.Getpid() == 1:
		if err := reap(); err != nil {
			fmt.Fprintln(os.Stderr, "init:", err)
		}
		unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	default:
		if err := work(); err != nil {
			fmt.Fprintln(os.Stderr, "init:", err)
			os.Exit(1)
		}
	}
}

// reap starts the worker and waits for every process there is until the worker
// has ended. It is a process of its own because a worker that waits for one
// child must not lose it to a wait for any.
func reap() error {
	worker := exec.Command("/init")
	worker.Stdin, worker.Stdout, worker.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := worker.Start(); err != nil {
		return err
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return fmt.Errorf("waiting: %w", err)
		case pid == worker.Process.Pid && status.ExitStatus() != 0:
			return fmt.Errorf("the worker ended with %#x", int(status))
		case pid == worker.Process.Pid:
			return nil
		}
	}
}
