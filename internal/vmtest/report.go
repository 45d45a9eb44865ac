package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/boxwire/boxwire/internal/vmtest/protocol"
)

// String is the cell of the table.
func (r *result) String() string {
	if r == nil {
		return "NOT RUN"
	}
	var parts []string
	add := func(n int, word string) {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, word))
		}
	}
	add(r.pass, "passed")
	add(len(r.late), "PASSED LATE")
	add(r.fail, "FAILED")
	add(len(r.unfinished), "UNFINISHED")
	add(r.skip-len(r.unfounded), "skipped")
	add(len(r.unfounded), "SKIPPED WITHOUT NEED")
	switch {
	case !r.over:
		parts = append(parts, "DIED")
	case r.status != 0 && r.fail == 0:
		parts = append(parts, fmt.Sprintf("STATUS %d", r.status))
	case len(parts) == 0:
		parts = append(parts, "no tests")
	}
	return strings.Join(parts, ", ")
}

// report prints the table, package by kernel, the reasons of the skips, and last
// what failed. An error means that not everything passed.
func report(w io.Writer, jobs []protocol.Job, columns []*column) error {
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	row := func(head string, cell func(c *column) string) {
		fmt.Fprint(t, head)
		for _, c := range columns {
			fmt.Fprint(t, "\t", cell(c))
		}
		fmt.Fprintln(t)
	}
	row("package", func(c *column) string { return c.kernel.release })
	for i, job := range jobs {
		row(job.Name, func(c *column) string { return c.results[i].String() })
	}
	row("seconds", func(c *column) string { return fmt.Sprintf("%.0f", c.took.Seconds()) })
	if err := t.Flush(); err != nil {
		return err
	}
	if skips := reasons(jobs, columns); len(skips) > 0 {
		fmt.Fprintln(w, "\nskipped:")
		for _, s := range skips {
			fmt.Fprintln(w, " ", s)
		}
	}
	for _, c := range columns {
		for i, job := range jobs {
			if r := c.results[i]; r != nil && len(r.late) > 0 {
				fmt.Fprintf(w, "\n%s: %s failed first and passed when run again: %s\n", c.kernel.name, job.Name, strings.Join(r.late, " "))
			}
		}
	}
	printSlowest(w, jobs, columns)
	printFailures(w, jobs, columns)
	for _, c := range columns {
		if c.err != nil || slices.ContainsFunc(c.results, func(r *result) bool { return r == nil || !r.ok() }) {
			return errors.New("not everything passed")
		}
	}
	return nil
}

// printSlowest prints the tests that took longest, of all kernels.
func printSlowest(w io.Writer, jobs []protocol.Job, columns []*column) {
	const most = 12
	type slow struct {
		seconds float64
		what    string
	}
	var all []slow
	for _, c := range columns {
		for i, job := range jobs {
			if r := c.results[i]; r != nil {
				for name, seconds := range r.seconds {
					all = append(all, slow{seconds, fmt.Sprintf("%s: %s %s", c.kernel.name, job.Name, name)})
				}
			}
		}
	}
	slices.SortFunc(all, func(a, b slow) int { return cmp.Or(cmp.Compare(b.seconds, a.seconds), cmp.Compare(a.what, b.what)) })
	if len(all) == 0 {
		return
	}
	fmt.Fprintln(w, "\nslowest:")
	for _, s := range all[:min(len(all), most)] {
		fmt.Fprintf(w, "  %.0f s  %s\n", s.seconds, s.what)
	}
}

// printFailures prints each test that failed or was skipped without need, with
// the first lines that it wrote.
func printFailures(w io.Writer, jobs []protocol.Job, columns []*column) {
	const most = 6
	for _, c := range columns {
		if c.err != nil {
			fmt.Fprintf(w, "\n%s: %v\n", c.kernel.name, c.err)
		}
		for i, job := range jobs {
			r := c.results[i]
			if r == nil {
				continue
			}
			for _, name := range slices.Concat(r.failed, r.unfounded, r.unfinished) {
				said := strings.SplitAfterN(plain(r.output[name]), "\n", most+1)
				fmt.Fprintf(w, "\nFAIL %s: %s %s%s\n", c.kernel.name, job.Name, name, indent(strings.Join(said[:min(len(said), most)], "")))
			}
		}
	}
}

// reasons lists the skips: package, test and reason, with the kernels.
func reasons(jobs []protocol.Job, columns []*column) []string {
	var lines []string
	kernels := map[string][]string{}
	for i, job := range jobs {
		for _, c := range columns {
			r := c.results[i]
			if r == nil {
				continue
			}
			for _, test := range slices.Sorted(maps.Keys(r.reasons)) {
				line := fmt.Sprintf("%s %s: %s", job.Name, test, r.reasons[test])
				if kernels[line] == nil {
					lines = append(lines, line)
				}
				kernels[line] = append(kernels[line], c.kernel.name)
			}
		}
	}
	for i, line := range lines {
		lines[i] = fmt.Sprintf("%s: %s", strings.Join(kernels[line], ", "), line)
	}
	return lines
}
