//go:build linux

// Sandbox runs a program in a box whose network is closed but for what -allow names.
//
//	go -C examples/sandbox build -o sandbox
//	sudo ./sandbox -allow example.org:443 -allow 203.0.113.0/24:22 -- curl https://example.org
//
// Names are resolved by a DNS forwarder that serves the box alone. It opens the addresses of an
// answer before it sends the answer, and for the answer's lifetime.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/boxwire/boxwire/examples/internal/attend"
	"github.com/boxwire/boxwire/internal/plain"
	"github.com/boxwire/boxwire/netns"
)

// stageEnv says what a process of this program is, which the program has started itself.
const stageEnv = "BOXWIRE_SANDBOX_STAGE"

// The stages.
const (
	stageRootless = "rootless" // root of a user namespace, and does the work
	stageInside   = "inside"   // becomes the command
)

func main() {
	status, err := run(context.Background(), os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "sandbox:", oneLine(err))
	}
	os.Exit(status)
}

// run does what the command line says and returns the command's exit status.
func run(ctx context.Context, args []string) (status int, err error) {
	stage := os.Getenv(stageEnv)
	os.Unsetenv(stageEnv) // the command does not get it
	if stage == stageInside {
		return inside(args)
	}
	o, err := parseOptions(args, os.Stdout)
	if errors.Is(err, flag.ErrHelp) {
		return 0, nil
	}
	if err != nil {
		return statusOurs, err
	}
	signals := attend.Catch()
	if o.rootless && stage != stageRootless {
		return rootless(signals)
	}
	path, status, err := lookUp(o.command[0])
	if err != nil {
		return status, err
	}
	host, err := netns.Current()
	if err != nil {
		return statusOurs, err
	}
	defer host.Close()
	b, err := newBox(ctx, host, &o)
	if err != nil {
		return statusOurs, err
	}
	defer func() {
		if rerr := b.remove(ctx); rerr != nil && err == nil {
			status, err = statusOurs, rerr
		}
	}()
	names := newForwarder(&o, b, host)
	stop, err := names.serve(ctx, b.ns)
	if err != nil {
		return statusOurs, err
	}
	defer stop()
	end := b.keep(ctx, names.grants, os.Stderr)
	defer end() // before the box is removed
	status, err = execute(b.ns, path, o.command, signals)
	return status, errors.Join(err, report(ctx, b, names, os.Stderr))
}

// oneLine keeps an error that joins several on one line.
func oneLine(err error) string { return plain.Text(strings.ReplaceAll(err.Error(), "\n", "; ")) }
