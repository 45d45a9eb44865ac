//go:build linux

// Quickstart makes a fleet of three machines with two boxes each, and shows by real traffic what it gives and what happens when
// the store, an agent or a machine fails.
//
//	go run ./quickstart          one line a check, then a picture of what is wired to what
//	go run ./quickstart -json    [{"name":...,"ok":...,"detail":...}] and nothing else
//	go run ./quickstart -hold    keep everything until Ctrl-C and say how to look inside
//	go run ./quickstart -4       as on a machine without IPv6
//	go run ./quickstart -v       log what the agents do, too
//
// It needs neither root nor a tool, and never touches the machine's own network: the program runs itself once more in namespaces
// of its own, where a namespace plays each machine, the network between them and the boxes. The store is an etcd in a process of
// its own; the agents run in this one.
//
// fleet.go is the part to copy: agents, boxes and ports. checks.go shows what they give.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/command"
	"github.com/boxwire/boxwire/examples/fleet/internal/lab"
	"github.com/boxwire/boxwire/examples/internal/selfcheck"
)

// The exit statuses besides 0, 1 (a check failed) and 2 (a wrong command line).
const exitNoSandbox = 3 // the machine does not let the program have namespaces of its own

func main() {
	lab.Main(map[string]func([]string) int{storeProgram: storeMain})
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	f := flag.NewFlagSet("quickstart", flag.ContinueOnError)
	asJSON := f.Bool("json", false, "print the checks as JSON and nothing else")
	hold := f.Bool("hold", false, "keep the fleet until Ctrl-C")
	only4 := f.Bool("4", false, "do without IPv6")
	verbose := f.Bool("v", false, "log what the agents do, too")
	switch err := f.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	case f.NArg() > 0:
		fmt.Fprintln(os.Stderr, "quickstart: takes flags only, see -help")
		return 2
	}
	results := &selfcheck.Report{Out: os.Stdout, Quiet: *asJSON, Width: 19}
	if *asJSON {
		defer results.WriteJSON()
	}
	if err := lab.Sandbox(); err != nil { // outside, it does not return but for an error
		failAll(results, err)
		fmt.Fprintf(os.Stderr, "quickstart: %v\n%s", err, selfcheck.WhyForbidden())
		return exitNoSandbox
	}
	if *only4 {
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
			failAll(results, err)
			fmt.Fprintln(os.Stderr, "quickstart: disable IPv6:", err)
			return 1
		}
	}
	if why := selfcheck.WhyNoIPv6(); why != "" {
		fmt.Fprintln(os.Stderr, "quickstart: IPv4 only:", why)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	fl := &fleet{log: slog.New(slog.DiscardHandler)}
	if *verbose {
		fl.log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	if err := fl.quickstart(ctx, results, *hold); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		return 1
	}
	return 0
}

// failAll reports every check as failed for one reason: nothing could be tried.
func failAll(results *selfcheck.Report, err error) {
	for _, c := range checks {
		results.Add(c.name, "", err)
	}
	results.Add(cleanUpName, "", err)
}

// quickstart builds the fleet, checks it, draws it and takes it away again. It returns an error unless every check held.
func (fl *fleet) quickstart(ctx context.Context, results *selfcheck.Report, hold bool) error {
	before, err := selfcheck.Look("/run")
	if err != nil {
		failAll(results, err)
		return err
	}
	// Cleaning up is owed whatever happened, and is not to be cut short by the Ctrl-C that brought us here.
	cleanUp := func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		detail, err := fl.cleanUp(ctx, before)
		results.Add(cleanUpName, detail, err)
	}
	building, cancel := context.WithTimeout(ctx, 30*time.Second)
	err = fl.build(building)
	cancel()
	if err != nil {
		for _, c := range checks {
			results.Add(c.name, "", fmt.Errorf("not wired: %w", err))
		}
		cleanUp()
		return err
	}
	for _, c := range checks {
		checking, cancel := context.WithTimeout(ctx, 20*time.Second)
		detail, err := c.run(checking, fl)
		cancel()
		results.Add(c.name, detail, err)
	}
	if !results.Quiet && ctx.Err() == nil {
		fmt.Printf("\nhost1$ fleet ls\n")
		command.Run([]string{"ls", "-socket", fl.machines[0].options.Socket})
		fmt.Println()
		if err := fl.lab.Picture(ctx, results.Out); err != nil {
			fmt.Fprintln(os.Stderr, "quickstart: no picture:", err)
		}
	}
	if hold && ctx.Err() == nil {
		fmt.Fprint(os.Stderr, fl.howToLook())
		<-ctx.Done()
	}
	cleanUp()
	return results.Err()
}

// howToLook says how to enter the sandbox from another terminal.
func (fl *fleet) howToLook() string {
	m := fl.machines[0]
	return fmt.Sprintf(`
Held until Ctrl-C. To look inside, from another terminal:
  %[1]s ip netns exec %[2]s ip route
  %[1]s ip netns exec %[3]s ip addr
With fleet, as "go build -o /tmp/fleet ." in examples/fleet makes it:
  %[1]s /tmp/fleet ls -socket %[4]s
  %[1]s /tmp/fleet explain -socket %[4]s host3
`, selfcheck.Enter(), m.host.Name, m.boxes[0].Name, m.options.Socket)
}
