//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/boxwire/boxwire/netns"
)

// A Process runs one of the programs given to [Main] in a namespace: this program's file is executed again. It can be started
// again when it has ended. It ends with the lab, and with this program, however that ends. Its methods are safe for
// concurrent use.
type Process struct {
	Name string   // "agent on host1", for messages
	Args []string // the program's arguments; a change holds from the next Start
	Env  []string // variables besides those of this program: "KEY=value"; a change holds from the next Start

	lab     *Lab
	ns      *netns.NS
	program string

	mu     sync.Mutex // guards the following fields
	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has ended and was waited for; nil before the first Start
	paused bool
	output output
}

// Program prepares a process that runs a program on the host. [Process.Start] starts it.
func (h *Host) Program(program string, args ...string) *Process {
	return h.lab.Program(h.NS, program+" on "+h.Name, program, args...)
}

// Program prepares a process that runs a program in any namespace. The name is for messages.
func (l *Lab) Program(ns *netns.NS, name, program string, args ...string) *Process {
	p := &Process{Name: name, Args: args, lab: l, ns: ns, program: program}
	l.onClose(p.Kill)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.processes = append(l.processes, p)
	return p
}

// Start starts the process. A process that runs is os.ErrExist, and a lab that is closed os.ErrClosed.
func (p *Process) Start() error {
	if !registered(p.program) {
		return fmt.Errorf("lab: %s: no program %q was given to Main: %w", p.Name, p.program, os.ErrNotExist)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running() {
		return fmt.Errorf("lab: %s runs: %w", p.Name, os.ErrExist)
	}
	cmd := exec.Command("/proc/self/exe", p.Args...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(append(os.Environ(), p.Env...), programEnv+"="+p.program)
	cmd.Stdout, cmd.Stderr = &p.output, &p.output
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second // for a child of its own that keeps the output
	p.lab.mu.Lock()             // Close waits for no process that starts later
	defer p.lab.mu.Unlock()
	if p.lab.closed {
		return fmt.Errorf("lab: %s: the lab is closed: %w", p.Name, os.ErrClosed)
	}
	if err := p.lab.spawn.start(p.ns, cmd); err != nil {
		return fmt.Errorf("lab: %s: %w", p.Name, err)
	}
	exited := make(chan struct{})
	p.cmd, p.exited, p.paused = cmd, exited, false
	go func() {
		_ = cmd.Wait() // ProcessState has the status
		close(exited)
	}()
	return nil
}

// running reports whether the process has been started and has not ended. The mutex is held.
func (p *Process) running() bool {
	if p.exited == nil {
		return false
	}
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// Running reports whether the process runs or is paused.
func (p *Process) Running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.running()
}

// Pid is the process's id, 0 unless it runs.
func (p *Process) Pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running() {
		return 0
	}
	return p.cmd.Process.Pid
}

// Kill ends the process by SIGKILL and waits until it is gone. A process that does not run is fine.
func (p *Process) Kill() error {
	if err := p.signal(syscall.SIGKILL); err != nil {
		return err
	}
	_, err := p.Wait(context.Background())
	if errors.Is(err, os.ErrNotExist) {
		return nil // never started
	}
	return err
}

// Stop ends the process by SIGTERM, waits until it is gone, and returns its exit status as [Process.Wait] does.
func (p *Process) Stop(ctx context.Context) (int, error) {
	if err := p.signal(syscall.SIGTERM); err != nil {
		return 0, err
	}
	return p.Wait(ctx)
}

// signal sends a signal. A process that does not run gets none, without an error.
func (p *Process) signal(s syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running() {
		return nil
	}
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("lab: %s: %v: %w", p.Name, s, err)
	}
	return nil
}

// Wait waits until the process has ended, and returns its exit status: -1 after a signal. One that was never started is
// os.ErrNotExist.
func (p *Process) Wait(ctx context.Context) (int, error) {
	p.mu.Lock()
	cmd, exited := p.cmd, p.exited
	p.mu.Unlock()
	if exited == nil {
		return 0, fmt.Errorf("lab: %s was not started: %w", p.Name, os.ErrNotExist)
	}
	select {
	case <-exited:
		return cmd.ProcessState.ExitCode(), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("lab: %s has not ended: %w", p.Name, ctx.Err())
	}
}

// Exited is closed when the process has ended; nil if it was never started.
func (p *Process) Exited() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.exited
}

// Pause stops the process by SIGSTOP. When it returns, no thread of the process runs. A process that does not run is
// os.ErrNotExist.
func (p *Process) Pause() error {
	pid := p.Pid()
	if pid == 0 {
		return fmt.Errorf("lab: %s does not run: %w", p.Name, os.ErrNotExist)
	}
	if err := p.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	// The kernel reports the stop when the last thread has stopped (waitid(2)).
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WSTOPPED|unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			if err == nil && !p.Running() {
				err = os.ErrNotExist
			}
			if err != nil {
				return fmt.Errorf("lab: %s: waiting until it has stopped: %w", p.Name, err)
			}
			p.mu.Lock()
			p.paused = true
			p.mu.Unlock()
			return nil
		}
	}
}

// Resume lets a paused process go on (SIGCONT).
func (p *Process) Resume() error {
	p.mu.Lock()
	p.paused = false
	p.mu.Unlock()
	return p.signal(syscall.SIGCONT)
}

// Paused reports whether the process is there, and Pause was the last word.
func (p *Process) Paused() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.paused && p.running()
}

// Output is what the process has written to its standard output and error since the first start, the last 64 KiB of it.
func (p *Process) Output() string { return p.output.String() }

// WaitOutput waits until Output has a text. A process that has ended without it is an error at once.
func (p *Process) WaitOutput(ctx context.Context, text string) error {
	exited := p.Exited()
	for {
		more := p.output.more()
		if strings.Contains(p.Output(), text) {
			return nil
		}
		var why error
		select {
		case <-more:
			continue
		case <-exited:
			// All that it has written is there by now.
			if strings.Contains(p.Output(), text) {
				return nil
			}
			why = errors.New("it has ended")
		case <-ctx.Done():
			why = ctx.Err()
		}
		return fmt.Errorf("lab: %s does not print %q: %w; its output:\n%s", p.Name, text, why, p.Output())
	}
}

// output keeps the last bytes that were written to it.
type output struct {
	mu    sync.Mutex // guards the following fields
	buf   []byte
	grown chan struct{} // closed at the next write; nil if nobody waits
}

const keptOutput = 64 << 10

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf = append(o.buf, b...)
	if over := len(o.buf) - keptOutput; over > 0 {
		o.buf = append(o.buf[:0], o.buf[over:]...)
	}
	if o.grown != nil {
		close(o.grown)
		o.grown = nil
	}
	return len(b), nil
}

// more is closed when something has been written after the call.
func (o *output) more() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.grown == nil {
		o.grown = make(chan struct{})
	}
	return o.grown
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.buf)
}
