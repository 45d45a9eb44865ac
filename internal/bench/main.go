// Bench measures the library beside bare system calls and beside what people use
// instead, in one run:
//
//	go run . [-n N] [-rows a,b] [-json] [-plot DIR] [-results FILE]
//
// Contenders take turns, round by round, so that what disturbs the machine
// disturbs all of them; a ratio is the median of the ratios of single rounds.
// What each has done is looked at afterwards: one that did less is an error.
// Everything happens in namespaces of the program's own.
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
	"time"

	"golang.org/x/sys/unix"
)

// rows are the rows in the order of the table.
var rows = []*row{
	&attachRow,
	&attach1000Row,
	&slotsRow,
	&burstRow,
	&poolRow,
	&detachRow,
	&publishRow,
	&packetRow,
	&listRow,
	&eventsRow,
	&doRow,
	&dialRow,
	&sysctlRow,
}

func main() {
	if os.Getenv(insideEnv) == "" {
		os.Exit(again())
	}
	if err := furnish(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	n := flag.Int("n", 0, "rounds of each contender; 0 is each row's own number, and the full sizes")
	only := flag.String("rows", "", "the rows to run, separated by commas; all by default")
	asJSON := flag.Bool("json", false, "print JSON instead of a table")
	plotDir := flag.String("plot", "", "draw the curves into this folder, as SVG and PNG")
	results := flag.String("results", "", "write the page of results to this file")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	chosen, err := choose(*only)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	all, failed := measure(ctx, chosen, *n, progress(*asJSON))
	if err := publish(all, *asJSON, *plotDir, *results); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	if failed {
		os.Exit(1)
	}
}

// choose finds the rows by their names.
func choose(names string) ([]*row, error) {
	if names == "" {
		return rows, nil
	}
	var chosen []*row
	for name := range strings.SplitSeq(names, ",") {
		found := false
		for _, r := range rows {
			if r.name == strings.TrimSpace(name) {
				chosen, found = append(chosen, r), true
			}
		}
		if !found {
			return nil, fmt.Errorf("there is no row %q", name)
		}
	}
	return chosen, nil
}

// progress is where lines about what is under way go: nowhere that a program
// reads.
func progress(asJSON bool) io.Writer {
	if asJSON {
		return os.Stderr
	}
	return os.Stdout
}

// measure runs the rows. A row that fails does not keep the others from running.
func measure(ctx context.Context, chosen []*row, n int, out io.Writer) (all []Result, failed bool) {
	for _, r := range chosen {
		rounds, full := r.n, n == 0
		if !full {
			rounds = n
		}
		b := newBout(rounds, full)
		begin := time.Now()
		err := settle(ctx)
		if err == nil {
			err = r.run(ctx, b)
		}
		res := b.result(r)
		res.Seconds = time.Since(begin).Seconds()
		if err != nil {
			res.Error, failed = err.Error(), true
		}
		all = append(all, res)
		printResult(out, res)
		if ctx.Err() != nil {
			break
		}
	}
	return all, failed
}

// publish writes the results in the forms that were asked for.
func publish(all []Result, asJSON bool, plotDir, page string) error {
	if asJSON {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		if err := enc.Encode(all); err != nil {
			return err
		}
	}
	if plotDir != "" {
		if err := plotAll(all, plotDir); err != nil {
			return err
		}
	}
	if page != "" {
		return writePage(all, plotDir, page)
	}
	return nil
}
