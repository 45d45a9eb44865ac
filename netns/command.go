package netns

import (
	"bytes"
	"context"
	"errors"
	"os/exec"

	"github.com/boxwire/boxwire/internal/refuse"
)

// Cmd is an [exec.Cmd] whose process starts in a network namespace. Its fields and methods
// are used in the same way, and once at most.
type Cmd struct {
	*exec.Cmd
	ns *NS
}

// Command returns the command to run a program in the namespace. As with
// exec.CommandContext, the program is killed when ctx is done. The process and its children
// are in the namespace. The caller's threads are not, nor are the pipes and the goroutines
// that serve it.
//
// Only the network namespace is another one. /sys shows the links of the namespace that it
// was mounted in, and /etc/resolv.conf is that of the calling program. With
// SysProcAttr.Pdeathsig the process may end early: the kernel sends the signal when the
// thread that started it ends.
func (ns *NS) Command(ctx context.Context, name string, args ...string) *Cmd {
	return &Cmd{Cmd: exec.CommandContext(ctx, name, args...), ns: ns}
}

// Run starts the process and waits until it has ended; see exec.Cmd.Run.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

func (c *Cmd) fail(op string, err error) error {
	return &Error{Op: op, NS: c.ns.String(), Subject: c.Path, Err: err}
}

// Output runs the process and returns its standard output. An *exec.ExitError holds the
// standard error unless Stderr is set; see exec.Cmd.Output.
func (c *Cmd) Output() ([]byte, error) {
	if c.Stdout != nil {
		return nil, c.fail("netns.Cmd.Output", refuse.Input("Stdout is set already"))
	}
	var stdout, stderr bytes.Buffer
	c.Stdout = &stdout
	own := c.Stderr == nil
	if own {
		c.Stderr = &stderr
	}
	err := c.Run()
	var exit *exec.ExitError
	if own && errors.As(err, &exit) {
		exit.Stderr = stderr.Bytes()
	}
	return stdout.Bytes(), err
}

// CombinedOutput runs the process and returns its standard output and error; see
// exec.Cmd.CombinedOutput.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	if c.Stdout != nil || c.Stderr != nil {
		return nil, c.fail("netns.Cmd.CombinedOutput", refuse.Input("Stdout or Stderr is set already"))
	}
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return out.Bytes(), err
}
