// Map shows what the network of a machine looks like: its network namespaces, what is in them, and
// how they are wired.
//
//	go run ./examples/map                a tree
//	go run ./examples/map -svg map.svg   a picture; "-" is the standard output
//	go run ./examples/map -dot           a graph for Graphviz
//	go run ./examples/map -mermaid       a flowchart for Markdown pages
//	go run ./examples/map -json          the data
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
	"os"
	"os/signal"
	"syscall"

	"github.com/boxwire/boxwire/internal/topology"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	read := func(ctx context.Context) (*topology.Snapshot, error) { return topology.Read(ctx, topology.Options{}) }
	status := run(ctx, os.Args[1:], read, os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// A reader reads the machine.
type reader func(context.Context) (*topology.Snapshot, error)

// run is the program, with its exit status: 2 for a bad command line, 1 for another error.
func run(ctx context.Context, args []string, read reader, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("map", flag.ContinueOnError)
	flags.SetOutput(stderr)
	forms := map[string]func(io.Writer, *topology.Snapshot) error{
		"dot": topology.WriteDOT, "mermaid": topology.WriteMermaid, "json": writeJSON,
	}
	flags.Bool("dot", false, "write a graph for Graphviz")
	flags.Bool("mermaid", false, "write a flowchart for Mermaid")
	flags.Bool("json", false, "write the data")
	svg := flags.String("svg", "", "write a picture to `FILE`, or to the standard output for -")
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	case flags.NArg() > 0 || flags.NFlag() > 1:
		fmt.Fprintln(stderr, "map: one form, and no other word:", flags.Args())
		return 2
	}
	write := topology.WriteTree
	flags.Visit(func(f *flag.Flag) {
		if form, ok := forms[f.Name]; ok {
			write = form
		}
	})
	if *svg != "" {
		write = topology.WriteSVG
	}
	if err := show(ctx, read, write, *svg, stdout); err != nil {
		fmt.Fprintln(stderr, "map:", err)
		return 1
	}
	return 0
}

// show reads the machine and writes it, all or nothing of a file.
func show(ctx context.Context, read reader, write func(io.Writer, *topology.Snapshot) error, file string, stdout io.Writer) error {
	s, err := read(ctx)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := write(&b, s); err != nil {
		return err
	}
	if file != "" && file != "-" {
		return os.WriteFile(file, b.Bytes(), 0o644)
	}
	_, err = stdout.Write(b.Bytes())
	return err
}

func writeJSON(w io.Writer, s *topology.Snapshot) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(s)
}
