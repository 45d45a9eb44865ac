// Bench measures the library beside bare system calls and beside what people use
// instead, in one run:
//
//	go run . [-n N] [-rows a,b] [-json] [-plot DIR] [-results FILE] [-history DIR [-release R]] [-readme FILE]
//
// Contenders take turns, round by round, so that what disturbs the machine
// disturbs all of them; a ratio is the median of the ratios of single rounds.
// What each has done is looked at afterwards: one that did less is an error.
// Everything happens in namespaces of the program's own. A row or a contender
// that needs a program which is not installed (ip, nft, iptables) is left out,
// and the result says so; with BOXWIRE_REQUIRE_WITNESS=1 that is an error.
package main

import (
	"context"
	"encoding/json"
	"errors"
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
	&growthRow,
	&detachRow,
	&publishRow,
	&restartRow,
	&packetRow,
	&ppsPublishedRow,
	&ppsMasqueradeRow,
	&ppsSiblingRow,
	&policyChangeRow,
	&policyPacketRow,
	&policySyncRow,
	&listRow,
	&eventsRow,
	&mapReadRow,
	&mapEventRow,
	&doRow,
	&dialRow,
	&sysctlRow,
	&cniAddRow,
	&cniDelRow,
	&cniAddKeysRow,
	&cniDelKeysRow,
	&cniStatusRow,
	&cniDelFlowsRow,
	&cniDelManyRow,
}

// options are the command line.
type options struct {
	n                     int
	rows                  string
	json                  bool
	plot, results, readme string
	history, release      string
}

func parse() (o options) {
	flag.IntVar(&o.n, "n", 0, "rounds of each contender; 0 is each row's own number, and the full sizes")
	flag.StringVar(&o.rows, "rows", "", "the rows to run, separated by commas; all by default")
	flag.BoolVar(&o.json, "json", false, "print JSON instead of a table")
	flag.StringVar(&o.plot, "plot", "", "draw the curves into this directory, as SVG and PNG")
	flag.StringVar(&o.results, "results", "", "write the page of results to this file")
	flag.StringVar(&o.history, "history", "", "keep the figures in this directory, in the file of the release")
	flag.StringVar(&o.release, "release", "", "that release; by default, the newest that the changelog names")
	flag.StringVar(&o.readme, "readme", "", "write the short table of the history's last release between its marks in this file")
	flag.Parse()
	return o
}

func main() {
	if size := os.Getenv(restartEnv); size != "" {
		if err := restartAgain(size); err != nil {
			fmt.Fprintln(os.Stderr, "bench: after the restart:", err)
			os.Exit(1)
		}
		return
	}
	o := parse()
	chosen, err := choose(o.rows)
	if err == nil && o.readme != "" {
		err = checkReadme(o.readme)
		if err == nil && o.history == "" {
			err = errors.New("-readme draws what -history keeps")
		}
	}
	if err == nil && o.history != "" && o.release == "" {
		o.release, err = releaseOf("../../CHANGELOG.md")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	if os.Getenv(insideEnv) == "" {
		os.Exit(outside(chosen))
	}
	if err := inside(o, chosen); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// inside is the second run, in namespaces of its own.
func inside(o options, chosen []*row) error {
	if err := prepareMounts(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	all, failed := measure(ctx, chosen, o.n, progress(o.json))
	if err := publish(all, o); err != nil {
		return err
	}
	if failed {
		return errors.New("not every row did its work")
	}
	return nil
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
		res := b.result(r, err)
		res.Seconds = time.Since(begin).Seconds()
		failed = failed || res.Error != ""
		all = append(all, res)
		printResult(out, res)
		if ctx.Err() != nil {
			break
		}
	}
	return all, failed
}

// publish writes the results in the forms that were asked for.
func publish(all []Result, o options) error {
	if o.json {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		if err := enc.Encode(all); err != nil {
			return err
		}
	}
	if o.plot != "" {
		if err := plotAll(all, o.plot); err != nil {
			return err
		}
	}
	if o.results != "" {
		if err := writePage(all, o.plot, o.results); err != nil {
			return err
		}
	}
	if o.history != "" {
		if err := keepResults(all, o.history, o.release); err != nil {
			return err
		}
	}
	if o.readme != "" {
		return writeReadme(o.history, o.readme)
	}
	return nil
}
