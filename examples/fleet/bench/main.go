//go:build linux

// Bench measures a fleet: how fast a node joins, what its agent costs, what its tunnel carries, and what is lost when an agent
// ends. Beside it, in the same run, stands what does the same work: bare netlink, a plain VXLAN, flannel.
//
//	go -C examples/fleet run ./bench [-run a,b] [-n N] [-quick] [-results FILE] [-flannel FILE]
//
// The machines are namespaces of a lab, and nothing of it touches the machine that it runs on. A row that cannot do its work is an
// error; a target that is missed is said so, and is none.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/boxwire/boxwire/examples/fleet/internal/lab"
)

// rows are the rows in the order of the page.
var rows = []*row{
	&joinRow, &addressRow, &applyRow, &meshRow, &thousandRow, &memoryRow, &throughputRow, &restartRow, &repairRow,
	&flannelJoinRow, &flannelRestartRow, &flannelMemoryRow,
}

// options are the command line.
type options struct {
	run     string
	n       int
	quick   bool
	results string
	flannel string
	pprof   string
}

func parse() (o options) {
	flag.StringVar(&o.run, "run", "", "the `ROWS` to run, with commas; all by default")
	flag.IntVar(&o.n, "n", 0, "`ROUNDS` of each row; 0 is each row's own number")
	flag.BoolVar(&o.quick, "quick", false, "each row once and small, without flannel: shows that they work, and no figures worth keeping")
	flag.StringVar(&o.results, "results", "", "write the page of results to this `FILE`")
	flag.StringVar(&o.flannel, "flannel", "", "the `PROGRAM` flanneld; built by go by default, none with -quick")
	flag.StringVar(&o.pprof, "pprof", "", "write a CPU profile of each row to this `DIRECTORY`")
	flag.Parse()
	return o
}

func main() {
	lab.Main(map[string]func([]string) int{
		"agent": agentMain, "idle": idleMain, "follower": followerMain, "flanneld": flanneldMain,
	})
	o := parse()
	chosen, err := choose(o.run)
	if err == nil && flag.NArg() > 0 {
		err = fmt.Errorf("it takes flags alone, not %q", flag.Args())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	if needsFlannel(chosen) {
		prepareFlannel(o)
	}
	if err := lab.Sandbox(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	if err := inside(o, chosen); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// inside runs the rows, in namespaces of the program's own.
func inside(o options, chosen []*row) error {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	var all []Result
	failed := false
	for _, r := range chosen {
		res := r.measure(ctx, o)
		printResult(os.Stdout, res)
		all = append(all, res)
		failed = failed || res.Error != ""
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if o.results != "" {
		if err := writePage(all, o.results); err != nil {
			return err
		}
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
		at := slices.IndexFunc(rows, func(r *row) bool { return r.name == strings.TrimSpace(name) })
		if at < 0 {
			return nil, fmt.Errorf("there is no row %q", name)
		}
		chosen = append(chosen, rows[at])
	}
	return chosen, nil
}
