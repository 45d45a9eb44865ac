//go:build linux

package runner

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/boxwire/boxwire/examples/internal/attend"
	"github.com/boxwire/boxwire/internal/plain"
	"github.com/boxwire/boxwire/netns"
)

// Main does what the arguments say, those behind the program's name, and returns the status to exit with: that of the command
// in the box, as shells have it, or 125 after an error of its own, which it has printed.
func Main(ctx context.Context, args []string, p Program) (status int) {
	if !p.fixed() {
		p.Name = "run"
	}
	status, err := p.run(ctx, args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %s\n", p.Name, oneLine(err))
	}
	return status
}

// run does what the arguments say and returns the program's exit status.
func (p Program) run(ctx context.Context, args []string) (int, error) {
	verb := ""
	if len(args) > 0 {
		verb = args[0]
	}
	switch verb {
	case "exec", "ls", "rm", "gc", "explain":
	default:
		switch {
		case !p.fixed():
			return runBox(ctx, args, p)
		case verb == "run":
			return runBox(ctx, args[1:], p)
		}
		return statusOurs, fmt.Errorf("%q is none of run, exec, ls, explain, rm and gc; see %s", verb, p.help())
	}
	host, err := netns.Current()
	if err != nil {
		return statusOurs, err
	}
	defer host.Close()
	args = args[1:]
	switch verb {
	case "exec":
		return execIn(ctx, host, args, attend.Catch())
	case "ls":
		asJSON := len(args) == 1 && (args[0] == "-json" || args[0] == "--json")
		if len(args) > 0 && !asJSON {
			return statusOurs, fmt.Errorf("ls takes -json and nothing else, not %q", args)
		}
		err = ls(ctx, host, asJSON, os.Stdout)
	case "explain":
		return p.explainBoxes(ctx, host, args, os.Stdout)
	case "rm":
		err = rm(ctx, host, args)
	case "gc":
		if len(args) > 0 {
			return statusOurs, fmt.Errorf("gc takes no arguments, not %q", args)
		}
		err = gc(ctx, host, os.Stdout)
	}
	if err != nil {
		return statusOurs, err
	}
	return 0, nil
}

// runBox makes a box, runs the command in it, and removes the box.
func runBox(ctx context.Context, args []string, p Program) (status int, err error) {
	o, err := parseOptions(args, p, os.Stdout)
	if errors.Is(err, flag.ErrHelp) {
		return 0, nil
	}
	if err != nil {
		return statusOurs, err
	}
	signals := attend.Catch()
	if o.rootless && !inRootless() {
		return rootless(signals)
	}
	if o.rootless {
		os.Unsetenv(rootlessEnv) // what is started in the box is not in this state
		if err := prepareMounts(); err != nil {
			return statusOurs, err
		}
	}
	host, err := netns.Current()
	if err != nil {
		return statusOurs, err
	}
	defer host.Close()
	if o.network == "host" {
		return execute(host, o.command, signals, nil)
	}
	if name, ok := o.shares(); ok {
		return execIn(ctx, host, append([]string{name}, o.command...), signals)
	}
	if o.network == "bridge" && p.fixed() {
		n, err := p.Network(ctx)
		if err != nil {
			return statusOurs, err
		}
		if err := o.use(n); err != nil {
			return statusOurs, err
		}
	}
	w, err := wire(ctx, host, &o)
	if err != nil {
		return statusOurs, err
	}
	defer func() {
		unlock, lerr := lock()
		if lerr == nil {
			lerr = w.remove(ctx, host, &o)
			unlock()
		}
		if err == nil && lerr != nil {
			status, err = statusOurs, lerr
		}
	}()
	end := func() {}
	defer func() { end() }() // before the box is removed
	return execute(w.ns, o.command, signals, func() { end = w.attend(ctx, &o, os.Stderr) })
}

// execIn runs a command in the network of a box that exists.
func execIn(ctx context.Context, host *netns.NS, args []string, signals <-chan os.Signal) (int, error) {
	if len(args) < 2 {
		return statusOurs, errors.New("exec takes the name of a box and a command")
	}
	ns, _, err := openSpace(ctx, host, args[0])
	if errors.Is(err, os.ErrNotExist) {
		err = fmt.Errorf("there is no box %s", args[0])
	}
	if err != nil {
		return statusOurs, err
	}
	defer ns.Close()
	command := args[1:]
	if command[0] == "--" && len(command) > 1 { // as before the command of a new box
		command = command[1:]
	}
	return execute(ns, command, signals, nil)
}

// ls lists the boxes.
func ls(ctx context.Context, host *netns.NS, asJSON bool, out io.Writer) error {
	all, err := boxes(ctx, host)
	if err != nil {
		return err
	}
	if asJSON {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(all)
	}
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "NAME\tADDRESSES\tBRIDGE\tHOST LINK\tPID\tPORTS")
	for _, b := range all {
		var addrs []string
		for _, a := range b.Addrs {
			addrs = append(addrs, a.String())
		}
		pid := "gone"
		if b.Pid != 0 {
			pid = fmt.Sprint(b.Pid)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", b.Name, dash(strings.Join(addrs, ", ")), dash(b.Bridge), dash(b.HostLink), pid, dash(strings.Join(b.Ports, ", ")))
	}
	return w.Flush()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// oneLine keeps an error that joins several on one line.
func oneLine(err error) string { return plain.Text(strings.ReplaceAll(err.Error(), "\n", "; ")) }
