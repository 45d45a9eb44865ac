//go:build linux

package command

import (
	"context"
	"io"
	"os"
	"runtime/debug"

	"github.com/boxwire/boxwire/examples/fleet/internal/agent"
	"github.com/boxwire/boxwire/netns"
)

// runAgent keeps this machine a node until ctx ends.
func runAgent(ctx context.Context, args []string, out io.Writer) (err error) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(agent.GCPercent)
	}
	o, err := parseAgent(args, out)
	if err != nil {
		return err
	}
	if o.Host, err = netns.Current(); err != nil {
		return err
	}
	defer o.Host.Close()
	return agent.Run(ctx, o)
}
