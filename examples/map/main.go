// Map shows what the network of a machine looks like: its network namespaces, what is in them, and
// how they are wired.
//
//	go run ./examples/map                a tree
//	go run ./examples/map -svg map.svg   a picture; "-" is the standard output
//	go run ./examples/map -dot           a graph for Graphviz
//	go run ./examples/map -mermaid       a flowchart for Markdown pages
//	go run ./examples/map -json          the data
//	go run ./examples/map -diff before.json
//	                                     what has changed since -json wrote the file
//	go run ./examples/map -why 8080      the way of a published port, and why it does not answer
//	go run ./examples/map -http 127.0.0.1:8090
//	                                     a page that follows the machine, until Ctrl-C
//
// The page can be read and not changed. It needs nothing from the network. Whoever reaches its address
// sees the names, addresses, routes, ports and programs of all network namespaces, without a password
// and in plain text. So the address is one of loopback, 127.0.0.1:0 with a free port, which every user
// of the machine reaches; others need -expose, and a firewall or a tunnel in front of them. Browsers are
// refused when a page of another site asks, or a name that leads here by accident or by intent.
//
// It changes nothing. A normal user sees the namespaces of his own processes, and a note about the
// rest.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"iter"
	"os"
	"os/signal"
	"syscall"

	"github.com/boxwire/boxwire/internal/topology"
	"github.com/boxwire/boxwire/internal/topology/firewall"
)

func main() {
	opts := topology.Options{Firewall: firewall.Read}
	read := func(ctx context.Context) (*topology.Snapshot, error) { return topology.Read(ctx, opts) }
	follow := source{
		watch:   func(ctx context.Context) iter.Seq2[*topology.Snapshot, error] { return topology.Watch(ctx, opts) },
		count:   count,
		explain: why,
	}
	program(os.Args[1:], read, follow)
}

// program is the process. It does not return.
func program(args []string, read reader, follow source) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := run(ctx, args, read, follow, os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// A reader reads the machine.
type reader func(context.Context) (*topology.Snapshot, error)

// run is the program, with its exit status: 2 for a bad command line, 1 for another error.
func run(ctx context.Context, args []string, read reader, follow source, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("map", flag.ContinueOnError)
	flags.SetOutput(stderr)
	forms := map[string]func(io.Writer, *topology.Snapshot) error{
		"dot": topology.WriteDOT, "mermaid": topology.WriteMermaid, "json": writeJSON,
	}
	flags.Bool("dot", false, "write a graph for Graphviz")
	flags.Bool("mermaid", false, "write a flowchart for Mermaid")
	flags.Bool("json", false, "write the data")
	svg := flags.String("svg", "", "write a picture to `FILE`, or to the standard output for -")
	since := flags.String("diff", "", "write what has changed since -json wrote `FILE`")
	port := flags.String("why", "", "write where `PORT` leads to, and why it does not answer: 8080, 53/udp, 203.0.113.1:8080")
	page := flags.String("http", "", "serve a page that follows the machine, at `ADDRESS:PORT`")
	expose := flags.Bool("expose", false, "let -http have an address that other machines reach, who then see everything")
	err := flags.Parse(args)
	single := 1
	if *page != "" && *expose {
		single = 2
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	case flags.NArg() > 0 || flags.NFlag() > single || *expose && *page == "":
		fmt.Fprintln(stderr, "map: one form, and no other word:", flags.Args())
		return 2
	}
	if *page != "" {
		return servePage(ctx, *page, *expose, follow, stdout, stderr)
	}
	write := topology.WriteTree
	flags.Visit(func(f *flag.Flag) {
		if form, ok := forms[f.Name]; ok {
			write = form
		}
	})
	switch {
	case *svg != "":
		write = topology.WriteSVG
	case *since != "":
		before, err := readFile(*since)
		if err != nil {
			fmt.Fprintln(stderr, "map:", err)
			return 1
		}
		write = func(w io.Writer, s *topology.Snapshot) error { return topology.WriteDiff(w, before, s) }
	case *port != "":
		if _, err := parseWanted(*port); err != nil {
			fmt.Fprintln(stderr, "map:", err)
			return 2
		}
		write = func(w io.Writer, s *topology.Snapshot) error {
			found, err := writeWhy(ctx, w, s, *port, follow.explain)
			if err == nil && !found {
				err = errNotPublished
			}
			return err
		}
	}
	if err := show(ctx, read, write, *svg, stdout); err != nil {
		fmt.Fprintln(stderr, "map:", err)
		return 1
	}
	return 0
}

// errNotPublished is the end of -why for a port that no namespace publishes.
var errNotPublished = errors.New("the port is not published")

// readFile reads a snapshot that -json has written.
func readFile(file string) (*topology.Snapshot, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s, err := topology.Decode(f)
	if err != nil {
		err = fmt.Errorf("%s is not what -json writes: %w", file, err)
	}
	return s, err
}

// servePage serves the page until the context ends.
func servePage(ctx context.Context, at string, expose bool, follow source, stdout, stderr io.Writer) int {
	a, err := parseAddress(at, expose)
	if err != nil {
		fmt.Fprintln(stderr, "map:", err)
		return 2
	}
	if err := serve(ctx, a, follow, stdout); err != nil {
		fmt.Fprintln(stderr, "map:", err)
		return 1
	}
	return 0
}

// show reads the machine and writes it.
func show(ctx context.Context, read reader, write func(io.Writer, *topology.Snapshot) error, file string, stdout io.Writer) error {
	s, err := read(ctx)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	answer := write(&b, s)
	if answer != nil && !errors.Is(answer, errNotPublished) {
		return answer
	}
	if file != "" && file != "-" {
		return os.WriteFile(file, b.Bytes(), 0o644)
	}
	_, err = stdout.Write(b.Bytes())
	return errors.Join(answer, err)
}

func writeJSON(w io.Writer, s *topology.Snapshot) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(s)
}
