//go:build linux

package lab

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/boxwire/boxwire/netns"
)

// A spawner starts processes from one thread that nothing else uses and that lives as long as the lab. The kernel kills a
// process with PR_SET_PDEATHSIG when the thread that started it ends, so that thread must not be one of Go's own.
type spawner struct {
	requests chan spawn
}

type spawn struct {
	ns  *netns.NS
	cmd *exec.Cmd
	err chan error
}

func newSpawner() (*spawner, error) {
	s := &spawner{requests: make(chan spawn)}
	ready := make(chan error)
	go s.run(ready)
	return s, <-ready
}

func (s *spawner) run(ready chan<- error) {
	runtime.LockOSThread() // for ever: the thread ends with the goroutine
	home, err := os.Open("/proc/thread-self/ns/net")
	ready <- err
	if err != nil {
		return
	}
	defer home.Close()
	for r := range s.requests {
		err := r.ns.WithFd(func(fd int) error { return unix.Setns(fd, unix.CLONE_NEWNET) })
		if err != nil {
			r.err <- fmt.Errorf("entering the namespace: %w", err)
			continue
		}
		err = r.cmd.Start()
		if herr := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err == nil && herr != nil {
			err = fmt.Errorf("leaving the namespace: %w", herr) // the next request enters its own
		}
		r.err <- err
	}
}

// start starts a command in a namespace. It dies with the lab's program.
func (s *spawner) start(ns *netns.NS, cmd *exec.Cmd) error {
	r := spawn{ns, cmd, make(chan error)}
	s.requests <- r
	return <-r.err
}

func (s *spawner) close() { close(s.requests) }
