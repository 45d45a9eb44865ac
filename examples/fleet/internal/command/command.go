//go:build linux

// Package command is the command line of fleet. It is not in main, so that tests run it in processes of their own.
package command

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"github.com/boxwire/boxwire/examples/fleet/internal/box"
)

const usage = `usage: fleet agent [flags]     keep this machine a node of a fleet, until SIGTERM
       fleet ls [flags]        list the nodes
       fleet explain [flags] NODE
                               find out why a node is not reached
       fleet forget [flags] NODE
                               take a node that does not come back out of the fleet
       fleet box VERB ...      boxes of this node: run, exec, ls, rm, gc

fleet VERB -h lists the flags of a verb.
`

// Run does what the command line says and returns the exit status: 0, 1 for an error, 2 for a wrong command line.
func Run(args []string) int { return run(args, os.Stdout, os.Stderr) }

func run(args []string, stdout, stderr io.Writer) int {
	verb := ""
	if len(args) > 0 {
		verb, args = args[0], args[1:]
	}
	if verb == "box" { // which takes down what it has made after a signal, and so handles signals itself
		return box.Main(context.Background(), args)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	verbs := map[string]func(context.Context, []string, io.Writer) error{
		"agent": runAgent, "ls": listNodes, "explain": explain, "forget": forget,
	}
	switch do := verbs[verb]; {
	case do != nil:
		return exitStatus(stderr, verb, do(ctx, args, stdout))
	case verb == "-h" || verb == "-help" || verb == "--help" || verb == "help":
		fmt.Fprint(stdout, usage)
		return 0
	case verb == "":
		fmt.Fprint(stderr, usage)
		return 2
	}
	fmt.Fprintf(stderr, "fleet: no verb %.80q; fleet -h lists them\n", verb)
	return 2
}

// usageError is a wrong command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// exitStatus prints an error and returns the exit status that it gives.
func exitStatus(stderr io.Writer, verb string, err error) int {
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return 0
	}
	fmt.Fprintf(stderr, "fleet %s: %s\n", verb, oneLine(err.Error()))
	var wrong usageError
	if errors.As(err, &wrong) {
		return 2
	}
	return 1
}

// oneLine is a text as one line that a terminal shows as it is.
func oneLine(s string) string {
	var b strings.Builder
	for _, r := range strings.ReplaceAll(strings.TrimSpace(s), "\n", "; ") {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			quoted := strconv.QuoteRuneToASCII(r)
			b.WriteString(quoted[1 : len(quoted)-1])
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}
