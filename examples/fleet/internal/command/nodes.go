//go:build linux

package command

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/boxwire/boxwire/examples/fleet/internal/status"
	"github.com/boxwire/boxwire/examples/fleet/internal/store"
)

const listUsage = `usage: fleet ls [flags]

Lists the nodes of the fleet as the agent of this one sees them.

flags:
`

// listNodes prints the nodes that the agent of this machine knows.
func listNodes(ctx context.Context, args []string, out io.Writer) error {
	f := newFlags("ls")
	socket := socketFlag(f)
	asJSON := f.Bool("json", false, "print all that the agent knows, as JSON")
	if err := parse(f, listUsage, args, out); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return usageError{fmt.Errorf("ls takes flags alone, not %q", f.Args())}
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s, err := status.Get(ctx, *socket)
	if err != nil {
		return err
	}
	if *asJSON {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		return enc.Encode(s)
	}
	return printNodes(out, s)
}

// printNodes prints a table: this node first.
func printNodes(w io.Writer, s status.State) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NODE\tID\tPREFIXES\tENDPOINT\tMODE\tMTU\tSTATE")
	own := "ready"
	if !s.Ready {
		own = "not ready"
	}
	row := func(name, id string, prefixes any, endpoint, mode string, mtu int, state string) {
		size := "-"
		if mtu > 0 {
			size = fmt.Sprint(mtu)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", name, id, strings.Trim(fmt.Sprint(prefixes), "[]"), endpoint, mode, size, state)
	}
	row(s.Name, s.ID.Short(), s.Prefixes, "this one", string(s.Mode), s.MTU, own)
	for _, p := range s.Peers {
		endpoint, mode, state := "-", "-", "up"
		if p.Endpoint.IsValid() {
			endpoint, mode = p.Endpoint.String(), string(p.Mode)
		}
		switch {
		case p.Problem != "":
			state = "left out: " + p.Problem
		case p.Down:
			state = "down"
		case !p.Alive:
			state = "up, without its agent"
		}
		row(p.Name, p.ID.Short(), p.Prefixes, endpoint, mode, p.MTU, state)
	}
	return t.Flush()
}

const forgetUsage = `usage: fleet forget -name FLEET -store URLS [flags] NODE

Takes a node that does not come back out of the fleet; its prefixes are free then. NODE is its name, its id or the id's beginning.

flags:
`

// forget deletes a node from the store.
func forget(ctx context.Context, args []string, out io.Writer) error {
	f := newFlags("forget")
	fleet := f.String("name", "", "`NAME` of the fleet")
	urls := f.String("store", "", "`URLS` of etcd, with commas")
	insecure := f.Bool("insecure", false, "talk to a store on the network without TLS")
	var cert certificates
	cert.flags(f)
	if err := parse(f, forgetUsage, args, out); err != nil {
		return err
	}
	if f.NArg() != 1 || *fleet == "" || *urls == "" {
		return usageError{errors.New("want -name FLEET, -store URLS and one NODE")}
	}
	if *urls == "embed" {
		return usageError{errors.New("-store embed: the store is in the agent: want the URL of its -listen, or unix:///STATE/etcd.sock with its -state")}
	}
	cfg := store.Config{
		Fleet: *fleet, Endpoints: strings.Split(*urls, ","), CA: cert.ca, Cert: cert.cert, Key: cert.key, Insecure: *insecure,
	}
	if err := cfg.Validate(); err != nil {
		return usageError{err}
	}
	s, err := store.Open(cfg)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return errors.Join(s.Forget(ctx, f.Arg(0)), s.Close())
}

// socketFlag is the flag of the verbs that ask the agent.
func socketFlag(f *flag.FlagSet) *string {
	return f.String("socket", status.DefaultSocket, "`PATH` of the agent's unix socket")
}
