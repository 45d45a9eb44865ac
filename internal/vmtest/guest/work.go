//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/boxwire/boxwire/internal/vmtest/protocol"
	"golang.org/x/sys/unix"
)

// aliveEvery is how often a guest shows that it runs.
const aliveEvery = 5 * time.Second

func work() error {
	b, err := os.ReadFile(protocol.JobsPath)
	if err != nil {
		return err
	}
	var work protocol.Work
	if err := json.Unmarshal(b, &work); err != nil {
		return fmt.Errorf("%s: %w", protocol.JobsPath, err)
	}
	ready := prepare(work.Modules)
	port, err := openPort(protocol.Port)
	if err != nil {
		return errors.Join(ready, err)
	}
	defer port.Close()
	if ready != nil {
		return port.say(protocol.Record{Event: protocol.Fault, Text: ready.Error()})
	}
	go func() {
		for range time.Tick(aliveEvery) {
			port.say(protocol.Record{Event: protocol.Alive})
		}
	}()

	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	port.say(protocol.Record{Event: protocol.Boot, Text: unix.ByteSliceToString(u.Release[:])})
	for i, job := range work.Jobs {
		port.say(protocol.Record{Event: protocol.Start, Job: i})
		status, err := run(job, func(text string) {
			port.say(protocol.Record{Event: protocol.Output, Job: i, Text: text})
		})
		if err != nil {
			return port.say(protocol.Record{Event: protocol.Fault, Text: fmt.Sprintf("%s: %v", job.Name, err)})
		}
		port.say(protocol.Record{Event: protocol.Exit, Job: i, Status: status})
	}
	return port.say(protocol.Record{Event: protocol.Done})
}

// run runs a job and passes its output on as it comes.
func run(job protocol.Job, output func(string)) (status int, err error) {
	args := job.Args
	if job.User {
		args = append([]string{"/init", protocol.Unprivileged}, args...)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Env = job.Dir, job.Env
	cmd.Stdout, cmd.Stderr = w, w
	err = cmd.Start()
	w.Close()
	if err != nil {
		return 0, err
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		whole := bufio.NewReaderSize(r, 16<<10)
		for {
			// Whole lines, as many as there are: a record cut within a character would
			// spoil it.
			line, err := whole.ReadString('\n')
			for err == nil && whole.Buffered() > 0 && len(line) < 4<<10 {
				var more string
				more, err = whole.ReadString('\n')
				line += more
			}
			if line != "" {
				output(line)
			}
			if err != nil {
				return
			}
		}
	}()
	err = cmd.Wait()
	// What a test has left behind may keep the pipe open for ever.
	r.SetReadDeadline(time.Now().Add(time.Second))
	<-over
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return cmd.ProcessState.ExitCode(), nil
}

// becomeNobody gives up every privilege and becomes the program. It returns only
// if that does not work.
func becomeNobody(args []string) error {
	// The flag and the bounding set are the thread's, and the thread's are the
	// program's.
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("giving up new privileges: %w", err)
	}
	for capability := uintptr(0); ; capability++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0)
		if err == unix.EINVAL {
			break // one more than the kernel knows
		}
		if err != nil {
			return fmt.Errorf("dropping capability %d: %w", capability, err)
		}
	}
	if err := syscall.Setgroups(nil); err != nil {
		return err
	}
	if err := syscall.Setresgid(protocol.UID, protocol.UID, protocol.UID); err != nil {
		return err
	}
	if err := syscall.Setresuid(protocol.UID, protocol.UID, protocol.UID); err != nil {
		return err
	}
	return syscall.Exec(args[0], args, os.Environ())
}

// port is where the records go.
type port struct {
	mu sync.Mutex // guards writing: a record is a line
	f  *os.File
}

// openPort opens a serial port and has the kernel change nothing that goes
// through it.
func openPort(path string) (*port, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	t, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	if err := unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, t); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &port{f: f}, nil
}

// say writes a record.
func (p *port) say(r protocol.Record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	_, err = p.f.Write(append(b, '\n'))
	return err
}

// Close waits until everything has left the port.
func (p *port) Close() error {
	return errors.Join(unix.IoctlSetInt(int(p.f.Fd()), unix.TCSBRK, 1), p.f.Close())
}
