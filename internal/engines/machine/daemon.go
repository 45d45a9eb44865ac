package machine

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Daemon is a program that runs in a machine until it is stopped, or until the machine ends. If the
// test fails, its log is printed.
type Daemon struct {
	m    *Machine
	name string
	args []string
	log  string // a file of the test

	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
	err  error         // how it ended; read after done
}

// Daemon starts a program that runs on.
func (m *Machine) Daemon(t testing.TB, name string, args ...string) *Daemon {
	t.Helper()
	d := &Daemon{m: m, name: name, args: args, log: filepath.Join(t.TempDir(), "daemon.log")}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of %s %s:\n%s", name, strings.Join(args, " "), tail(d.Log(), 32<<10))
		}
	})
	d.Start(t)
	return d
}

// Start starts the program again after it has ended.
func (d *Daemon) Start(t testing.TB) {
	t.Helper()
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatalf("machine: %v", err)
	}
	defer log.Close()
	cmd := d.m.Command(d.name, d.args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := d.m.Start(cmd); err != nil {
		t.Fatalf("machine: starting %s: %v", d.name, err)
	}
	d.cmd, d.done = cmd, make(chan struct{})
	go func(done chan struct{}) {
		d.err = cmd.Wait()
		close(done)
	}(d.done)
}

// Pid is the process id as the test sees it.
func (d *Daemon) Pid() int { return d.cmd.Process.Pid }

// Done is closed when the program has ended.
func (d *Daemon) Done() <-chan struct{} { return d.done }

// Log is what the program wrote so far, all runs together.
func (d *Daemon) Log() string {
	b, err := os.ReadFile(d.log)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Signal sends a signal.
func (d *Daemon) Signal(t testing.TB, sig os.Signal) {
	t.Helper()
	if err := d.cmd.Process.Signal(sig); err != nil {
		t.Fatalf("machine: signal %v to %s: %v", sig, d.name, err)
	}
}

// Stop asks the program to end (SIGTERM) and waits for that. A program that does not end within a
// minute, or has ended before, fails the test.
func (d *Daemon) Stop(t testing.TB) {
	t.Helper()
	select {
	case <-d.done:
		t.Fatalf("machine: %s has ended by itself: %v\n%s", d.name, d.err, tail(d.Log(), 8<<10))
	default:
	}
	d.Signal(t, unix.SIGTERM)
	d.wait(t)
}

// Kill kills the program (SIGKILL) and waits for its end. What it has started runs on.
func (d *Daemon) Kill(t testing.TB) {
	t.Helper()
	if err := d.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatalf("machine: killing %s: %v", d.name, err)
	}
	d.wait(t)
}

// Restart stops the program and starts it again.
func (d *Daemon) Restart(t testing.TB) {
	t.Helper()
	d.Stop(t)
	d.Start(t)
}

// wait waits for the end of the program.
func (d *Daemon) wait(t testing.TB) {
	t.Helper()
	select {
	case <-d.done:
	case <-time.After(time.Minute):
		t.Fatalf("machine: %s does not end", d.name)
	}
}

// Ready waits until a condition holds that tells that the program is at work, and fails as Missing
// does if the program ends instead.
func (d *Daemon) Ready(t testing.TB, ready func() error) {
	t.Helper()
	err := until(func() error {
		select {
		case <-d.done:
			return final{fmt.Errorf("%s ended: %v", d.name, d.err)}
		default:
			return ready()
		}
	})
	if err != nil {
		d.m.Missing(t, fmt.Errorf("%s cannot start: %w\n%s", d.name, err, tail(d.Log(), 16<<10)))
	}
}

// tail is the end of a text.
func tail(s string, n int) string {
	if len(s) > n {
		return "...\n" + s[len(s)-n:]
	}
	return s
}
