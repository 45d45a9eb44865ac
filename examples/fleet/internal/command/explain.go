//go:build linux

package command

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/boxwire/boxwire/examples/fleet/internal/status"
)

const explainUsage = `usage: fleet explain [flags] NODE

Finds out why a node is not reached: its name, its id or the id's beginning. The agent of this machine asks that of the other, and
sends packets of each kind. The exit status is 1 if something is wrong.

flags:
`

// explain asks the agent why a node is not reached.
func explain(ctx context.Context, args []string, out io.Writer) error {
	f := newFlags("explain")
	socket := socketFlag(f)
	if err := parse(f, explainUsage, args, out); err != nil {
		return err
	}
	if f.NArg() != 1 {
		return usageError{errors.New("want one NODE")}
	}
	ctx, cancel := context.WithTimeout(ctx, 3*patience)
	defer cancel()
	report, fine, err := status.Explain(ctx, *socket, f.Arg(0))
	if err != nil {
		return err
	}
	fmt.Fprint(out, report)
	if !fine {
		return errors.New("the node is not reached as it should be")
	}
	return nil
}
