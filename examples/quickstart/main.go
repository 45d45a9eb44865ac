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
// namespaces of its own (reexec_linux.go), where a fresh namespace plays the host and another one its outside neighbour.
//
// wire.go is the part to copy: the namespaces, links, routes and published ports. checks.go shows what each of them gives.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

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

	if !sandboxed() {
		os.Exit(runInSandbox())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	results := &report{out: os.Stdout, quiet: *asJSON}
	err := prepareSandbox()
	if err != nil {
		if *asJSON {
			results.failAll(err)
			results.writeJSON()
		}
		fmt.Fprintf(os.Stderr, "quickstart: no namespaces of its own: %v\n%s", err, whyForbidden())
		os.Exit(exitNoSandbox)
	}
	if err = needIPv6(); err != nil {
		if *asJSON {
			results.failAll(err)
			results.writeJSON()
		}
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(exitNoIPv6)
	}
	err = quickstart(ctx, results, *hold, *svg)
	if *asJSON {
		results.writeJSON()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

// quickstart builds the world, checks it, draws it and takes it away again. It returns an error unless every check held.
func quickstart(ctx context.Context, results *report, hold bool, svg string) error {
	w := &world{}
	before, err := w.leftovers(ctx)
	if err != nil {
		results.failAll(err)
		return err
	}

	// Cleaning up is owed whatever happened, and is not to be cut short by the Ctrl-C that brought us here.
	cleanUp := func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		detail, err := w.cleanUp(ctx, before)
		results.add("clean-up", detail, err)
	}

	if err := w.build(ctx); err != nil {
		for _, c := range checks {
			results.add(c.name, "", fmt.Errorf("not wired: %w", err))
		}
		cleanUp()
		return err
	}
	runChecks(ctx, w, results)
	if !results.quiet && ctx.Err() == nil {
		if err := w.draw(ctx, results.out); err != nil {
			fmt.Fprintln(os.Stderr, "quickstart: no picture:", err)
		}
	}
	if svg != "" && ctx.Err() == nil {
		if err := w.drawFile(ctx, svg); err != nil {
			fmt.Fprintln(os.Stderr, "quickstart: no picture:", err)
		}
	}
	if hold && ctx.Err() == nil {
		fmt.Fprint(os.Stderr, howToLook())
		<-ctx.Done()
	}
	cleanUp()
	return results.err()
}

// A result is what one check found; its JSON form is the program's machine-readable output.
type result struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

// A report collects results in the order of the checks and, unless quiet, prints each as it arrives.
type report struct {
	out     io.Writer
	quiet   bool
	results []result
}

func (r *report) add(name, detail string, err error) {
	one := result{Name: name, OK: err == nil, Detail: detail}
	word := "ok  "
	if err != nil {
		word, one.Detail = "FAIL", strings.ReplaceAll(err.Error(), "\n", "; ") // joined errors come in lines
	}
	r.results = append(r.results, one)
	if !r.quiet {
		fmt.Fprintf(r.out, "%s %-23s %s\n", word, name, one.Detail)
	}
}

// failAll reports every check as failed for one reason: nothing could be tried.
func (r *report) failAll(err error) {
	for _, c := range checks {
		r.add(c.name, "", err)
	}
	r.add("clean-up", "", err)
}

// err is nil only if every check held.
func (r *report) err() error {
	failed := 0
	for _, one := range r.results {
		if !one.OK {
			failed++
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d checks failed", failed, len(r.results))
	}
	return nil
}

func (r *report) writeJSON() {
	enc := json.NewEncoder(r.out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(r.results); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
	}
}
