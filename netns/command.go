package netns

import (
	"bytes"
	"context"
	"errors"
	"os/exec"

	"github.com/boxwire/boxwire/internal/refuse"
)

// Cmd is an [exec.Cmd] whose process starts in a network namespace. It is used in
// the same way, its fields included, and at most once.
type Cmd struct {
	*exec.Cmd
	ns *NS
}

// Command returns the command to run a program in the namespace, as
// exec.CommandContext does for the present one: the program is ended when ctx is
// done. The process and its children are in the namespace; the caller's threads
// are not, and neither are the pipes and goroutines that serve it.
//
// Only the network namespace is another: /sys shows the links of the one that it
// was mounted in, and /etc/resolv.conf is the program's own. With
// SysProcAttr.Pdeathsig the process may end early, because the signal is sent
// when the thread that started it ends.
func (ns *NS) Command(ctx context.Context, name string, args ...string) *Cmd {
	return &Cmd{Cmd: exec.CommandContext(ctx, name, args...), ns: ns}
}

// Start starts the process and does not wait for it; see exec.Cmd.Start.
func (c *Cmd) Start() error {
	var err error
	// Whether the context is done is the command's own to say: it closes its
	// descriptors then.
	ierr := c.ns.inside(context.Background(), func() { err = c.Cmd.Start() })
	if ierr == nil {
		return err
	}
	if c.Err == nil {
		c.Err = &Error{Op: "netns.Cmd.Start", NS: c.ns.String(), Subject: c.Path, Err: ierr}
	}
	return c.Cmd.Start() // closes the pipes and returns Err
}

// Run starts the process and waits until it has ended; see exec.Cmd.Run.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output runs the process and returns its standard output. An *exec.ExitError has
// the standard error, if that was not set otherwise; see exec.Cmd.Output.
func (c *Cmd) Output() ([]byte, error) {
	if c.Stdout != nil {
		return nil, refuse.Input("netns.Cmd.Output: Stdout is set already")
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
		return nil, refuse.Input("netns.Cmd.CombinedOutput: Stdout or Stderr is set already")
	}
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return out.Bytes(), err
}
