// Package box has the verbs run, exec, ls, rm and gc for boxes on a node of a fleet: those of examples/run, on the node's
// prefixes.
//
// A new box gets an address of each of the node's prefixes and a route by the prefix's first address. The other boxes of the
// fleet see it by its own address. What it sends out of the fleet has the host's. The agent says what the node's prefixes are.
// While it is away, the file says that it leaves in its state directory, so a box starts without an agent and without a store.
// Boxes that run need neither.
package box

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/status"
	"github.com/boxwire/boxwire/examples/internal/runner"
)

// Bridge is the bridge of a node's boxes. It is there as long as a box is.
const Bridge = "fleet0"

// patience is how long the agent has to answer before its file is read.
const patience = 2 * time.Second

const name = "fleet box"

const usage = `usage: fleet box [-socket PATH] [-state DIR] run|exec|ls|rm|gc ...
       fleet box run -h   says more

flags:
`

// Main does what the arguments say, those behind "fleet box", and returns the status to exit with, as runner.Main does.
func Main(ctx context.Context, args []string) int {
	var n node
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&n.socket, "socket", status.DefaultSocket, "`PATH` of the agent's socket")
	f.StringVar(&n.dir, "state", status.DefaultDir, "`DIR`ectory in which the agent leaves its state")
	switch err := f.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Print(usage)
		f.SetOutput(os.Stdout)
		f.PrintDefaults()
		return 0
	case err != nil:
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return 125
	}
	n.notes = os.Stderr
	return runner.Main(ctx, f.Args(), runner.Program{Name: name, Network: n.network})
}

// node is where the state of a node is to be found.
type node struct {
	socket, dir string
	notes       io.Writer
}

// network is the network of the node's boxes.
func (n node) network(ctx context.Context) (runner.Network, error) {
	s, err := n.state(ctx)
	if err != nil {
		return runner.Network{}, err
	}
	if len(s.Prefixes) == 0 {
		return runner.Network{}, fmt.Errorf("node %s of the fleet %s has no prefix yet", s.Name, s.Fleet)
	}
	return runner.Network{Bridge: Bridge, Subnets: s.Prefixes, Trusted: s.Trusted(), MTU: s.MTU}, nil
}

// state is what the agent says, or what it has left if it says nothing.
func (n node) state(ctx context.Context) (status.State, error) {
	asked, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s, err := status.Get(asked, n.socket)
	if err == nil || ctx.Err() != nil {
		return s, err
	}
	s, ferr := status.Read(n.dir)
	if ferr != nil {
		return s, fmt.Errorf("%w; nor has one left its state: %w", err, ferr)
	}
	fmt.Fprintf(n.notes, "%s: %s; %s says what the agent last knew\n", name, strings.ReplaceAll(err.Error(), "\n", "; "), status.Path(n.dir))
	return s, nil
}
