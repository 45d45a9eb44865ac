//go:build linux

// Quickstart wires two boxes to a host and shows, by real traffic, that they are isolated, published, masqueraded
// and removed without a trace.
//
//	go run ./examples/quickstart          one line a check, then a picture of what is wired to what
//	go run ./examples/quickstart -json    [{"name":...,"ok":...,"detail":...}] and nothing else
//	go run ./examples/quickstart -svg F   write the picture to the file F, too
//	go run ./examples/quickstart -hold    keep everything until Ctrl-C and say how to look inside
//
// It needs neither root nor any tool, and never touches the machine's own network: the program runs itself once more in
// namespaces of its own, where a fresh namespace plays the host and another one its outside neighbour.
//
// wire.go is the part to copy: the namespaces, links, routes and published ports. checks.go shows what each of them gives.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"time"

	"github.com/boxwire/boxwire/examples/internal/selfcheck"
)

const (
	// outerEnv carries the network namespace that the program was started in.
	outerEnv = "BOXWIRE_QUICKSTART_OUTER"
	// fetchEnv makes the program fetch one URL and print the answer: see the shared-namespace check.
	fetchEnv = "BOXWIRE_QUICKSTART_FETCH"
)

// The exit statuses besides 0, 1 (a check failed) and 2 (a wrong command line).
const (
	exitNoSandbox = 3 // the machine does not let the program have namespaces of its own
	exitNoIPv6    = 4 // namespaces have no IPv6, which half of the checks show
)

// howToLook says how to enter the sandbox from another terminal.
const howToLook = `
Held until Ctrl-C. To look inside, from another terminal:
  %[1]s ip netns exec host nft list ruleset
  %[1]s ip netns exec web1 ip addr
  %[1]s ip netns exec outside curl -s http://203.0.113.1:8080/
`

func main() {
	if url := os.Getenv(fetchEnv); url != "" {
		os.Exit(fetchMain(url)) // the second process of the shared-namespace check
	}

	asJSON := flag.Bool("json", false, "print the checks as JSON and nothing else")
	hold := flag.Bool("hold", false, "keep the boxes until Ctrl-C")
	svg := flag.String("svg", "", "write the picture to `FILE`, too")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "quickstart: takes flags only, see -help")
		os.Exit(2)
	}

	os.Exit(run(*asJSON, *hold, *svg))
}

// run runs the program in namespaces of its own and returns its exit status.
func run(asJSON, hold bool, svg string) int {
	results := &selfcheck.Report{Out: os.Stdout, Quiet: asJSON, Width: 23}
	if asJSON {
		defer results.WriteJSON()
	}
	if err := selfcheck.Sandbox(outerEnv); err != nil { // outside, it does not return but for an error
		if asJSON {
			failAll(results, err)
		}
		fmt.Fprintf(os.Stderr, "quickstart: no namespaces of its own: %v\n%s", err, selfcheck.WhyForbidden())
		return exitNoSandbox
	}
	if why := selfcheck.WhyNoIPv6(); why != "" {
		if asJSON {
			failAll(results, errors.New("needs IPv6: "+why))
		}
		fmt.Fprintln(os.Stderr, "quickstart: needs IPv6:", why)
		return exitNoIPv6
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := quickstart(ctx, results, hold, svg); err != nil {
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
	results.Add("clean-up", "", err)
}

// quickstart builds the world, checks it, draws it and takes it away again. It returns an error unless every check held.
func quickstart(ctx context.Context, results *selfcheck.Report, hold bool, svg string) error {
	w := &world{}
	before, err := selfcheck.Look("/run")
	if err != nil {
		failAll(results, err)
		return err
	}

	// Cleaning up is owed whatever happened, and is not to be cut short by the Ctrl-C that brought us here.
	cleanUp := func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		detail, err := w.cleanUp(ctx, before)
		results.Add("clean-up", detail, err)
	}

	if err := w.build(ctx); err != nil {
		for _, c := range checks {
			results.Add(c.name, "", fmt.Errorf("not wired: %w", err))
		}
		cleanUp()
		return err
	}
	runChecks(ctx, w, results)
	if !results.Quiet && ctx.Err() == nil {
		if err := w.draw(ctx, results.Out); err != nil {
			fmt.Fprintln(os.Stderr, "quickstart: no picture:", err)
		}
	}
	if svg != "" && ctx.Err() == nil {
		if err := w.drawFile(ctx, svg); err != nil {
			fmt.Fprintln(os.Stderr, "quickstart: no picture:", err)
		}
	}
	if hold && ctx.Err() == nil {
		fmt.Fprintf(os.Stderr, howToLook, selfcheck.Enter())
		<-ctx.Done()
	}
	cleanUp()
	return results.Err()
}
