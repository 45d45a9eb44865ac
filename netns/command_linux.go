package netns

import "context"

// Start starts the process and does not wait for it; see exec.Cmd.Start. A failure to enter
// the namespace is an [*Error]. Errors about the program itself are those of os/exec.
func (c *Cmd) Start() error {
	var err error
	// Whether the context is done is the command's own to say: it closes its
	// descriptors then.
	ierr := c.ns.inside(context.Background(), func() { err = c.Cmd.Start() })
	if ierr == nil {
		return err
	}
	if c.Err == nil {
		c.Err = c.fail("netns.Cmd.Start", ierr)
	}
	return c.Cmd.Start() // closes the pipes and returns Err
}
